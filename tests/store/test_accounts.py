"""Account rows and their balance, the sum of the ledger."""

import pytest

from allaprima.domain.accounts import Account, ApiKey
from allaprima.domain.billing import EntryDirection, EntryType, LedgerFilter
from allaprima.store.accounts import AccountRepository
from allaprima.store.database import Database
from allaprima.store.ledger import LedgerRepository
from tests.clock import NOW
from tests.store.factories import new_entry


@pytest.fixture
def accounts(database: Database) -> AccountRepository:
    return AccountRepository(database)


async def test_accounts_are_listed_oldest_first(accounts: AccountRepository) -> None:
    young, old = Account("b", "young", NOW + 1), Account("a", "old", NOW)
    assert await accounts.all() == []
    await accounts.add(young)
    await accounts.add(old)
    assert await accounts.all() == [old, young]


async def test_first_account_is_created_only_once(accounts: AccountRepository) -> None:
    made = Account("a", "default", NOW)
    assert await accounts.first(made) == made
    assert await accounts.first(Account("b", "default", NOW - 1)) == made
    assert await accounts.all() == [made]


async def test_balance_is_sum_of_ledger(database: Database, accounts: AccountRepository, owner: ApiKey) -> None:
    paid = new_entry(100, NOW, note="for March")
    taken = new_entry(30, NOW + 1, direction=EntryDirection.CHARGE, type=EntryType.ADJUSTMENT)
    assert (await accounts.post(owner.account_id, paid)).balance == 100
    assert (await accounts.post(owner.account_id, taken)).balance == 70
    assert (await accounts.get(owner.account_id)).balance == 70
    entries = await LedgerRepository(database).entries(owner.account_id, LedgerFilter(), None, 10)
    assert entries == [taken, paid]

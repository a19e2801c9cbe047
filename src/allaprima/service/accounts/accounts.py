"""AccountRepository: made and paid into by the operator; their balance and their bill."""

from uuid_utils import uuid7

from allaprima.domain.accounts import Account
from allaprima.domain.billing import EntryType, LedgerEntry, LedgerFilter
from allaprima.domain.ports import Clock
from allaprima.errors import AccountNotFound
from allaprima.store.keys import AccountRepository
from allaprima.store.ledger import LedgerRepository


class AccountBook:
    """Makes accounts and keeps their money."""

    def __init__(self, accounts: AccountRepository, ledger: LedgerRepository, clock: Clock) -> None:
        self._accounts = accounts
        self._ledger = ledger
        self._clock = clock

    async def create(self, name: str) -> Account:
        """Make an account with nothing in it."""
        account = Account(str(uuid7()), name, self._clock())
        await self._accounts.add(account)
        return account

    async def all(self) -> list[Account]:
        """Return every account, oldest first."""
        return await self._accounts.all()

    async def get(self, account_id: str) -> Account:
        """Return an account that is there."""
        return await self._accounts.get(account_id)

    async def find(self, wanted: str) -> Account:
        """Return the account with that id, or the only one with that name. Raises `AccountNotFound`."""
        accounts = await self.all()
        found = [account for account in accounts if account.id == wanted]
        found = found or [account for account in accounts if account.name == wanted]
        if len(found) != 1:
            how = "more than one account is" if found else "no account is"
            raise AccountNotFound(f"{how} called {wanted[:80]}; `allaprima accounts list` shows their ids")
        return found[0]

    async def credit(self, account_id: str, credits_: int, note: str | None = None) -> Account:
        """Pay in; or take out, where `credits_` is below zero. Returns the account as it is then."""
        kind = EntryType.PAYMENT if credits_ >= 0 else EntryType.ADJUSTMENT
        return await self._accounts.credit(account_id, kind, credits_, note, self._clock())

    async def entries(self, account_id: str, wanted: LedgerFilter, before: str | None, limit: int) -> list[LedgerEntry]:
        """Return rows of an account's ledger, newest first; before: only those older than this id."""
        return await self._ledger.entries(account_id, wanted, before, limit)

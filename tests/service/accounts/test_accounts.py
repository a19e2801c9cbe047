"""Accounts: created, found and credited by the operator."""

from dataclasses import replace
from pathlib import Path

import pytest

from allaprima.domain.billing import EntryDirection, EntryType, LedgerFilter
from allaprima.errors import AccountNotFound, InvalidRequest
from allaprima.service.app import Service
from tests.service.jobs.submitting import write


async def test_new_account_is_empty_and_found_by_id_and_name(service: Service) -> None:
    accounts = service.operator.accounts
    made = await accounts.create("acme")
    assert (made.balance, made.held) == (0, 0)
    assert await accounts.find(made.id) == await accounts.find("acme") == made


async def test_name_of_account_is_used_once(service: Service) -> None:
    await service.operator.accounts.create("acme")
    with pytest.raises(InvalidRequest, match="an account is called acme already"):
        await service.operator.accounts.create("acme")


async def test_ambiguous_or_unknown_name_finds_no_account(service: Service, tmp_path: Path) -> None:
    accounts = service.operator.accounts
    made = [await accounts.create(name) for name in ("acme", "another")]
    # Earlier versions allowed it.
    write(tmp_path, "UPDATE accounts SET name = 'acme' WHERE id = ?", made[1].id)
    made[1] = replace(made[1], name="acme")
    with pytest.raises(AccountNotFound, match="several accounts have the name acme"):
        await accounts.find("acme")
    with pytest.raises(AccountNotFound, match="no account has the id or name other"):
        await accounts.find("other")
    assert await accounts.find(made[1].id) == made[1]


async def test_each_change_of_credits_has_ledger_entry(service: Service) -> None:
    accounts = service.operator.accounts
    account = await accounts.create("acme")
    assert (await accounts.credit(account.id, 500, "March")).balance == 500
    assert (await accounts.credit(account.id, -200)).balance == 300
    entries = await service.ledger.entries(account.id, LedgerFilter(), None, 10)
    assert [(entry.direction, entry.type, entry.credits, entry.note) for entry in entries] == [
        (EntryDirection.CHARGE, EntryType.ADJUSTMENT, 200, None),
        (EntryDirection.TOPUP, EntryType.PAYMENT, 500, "March"),
    ]

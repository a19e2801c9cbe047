"""Accounts, which the operator creates and credits."""

from uuid_utils import uuid7

from allaprima.domain.accounts import Account
from allaprima.domain.billing import EntryDirection, EntryType, LedgerEntry
from allaprima.domain.clock import Clock
from allaprima.errors import AccountNotFound, Conflict, FieldProblem, InvalidRequest
from allaprima.store.accounts import AccountRepository


class AccountService:
    """Creates and credits accounts."""

    def __init__(self, accounts: AccountRepository, clock: Clock, *, is_single: bool = False) -> None:
        """is_single: whether no further account can be created, because requests without a key name none."""
        self._accounts = accounts
        self._clock = clock
        self._is_single = is_single

    async def create(self, name: str) -> Account:
        """Create an account with an empty balance. Raises `InvalidRequest` if the name is taken.

        Raises `Conflict` while the server runs without authentication.
        """
        if self._is_single:
            raise Conflict(
                "the server runs with --no-auth, which is for a single account; stop it, and create the account then"
            )
        account = Account(str(uuid7()), name, self._clock())
        if not await self._accounts.add(account):
            raise InvalidRequest(FieldProblem("name", f"an account is called {name[:80]} already"))
        return account

    async def find(self, wanted: str) -> Account:
        """Return an account by its id or name. Raises `AccountNotFound`, also if several accounts have the name."""
        accounts = await self._accounts.all()
        found = [account for account in accounts if account.id == wanted]
        found = found or [account for account in accounts if account.name == wanted]
        if len(found) != 1:
            problem = "several accounts have the name" if found else "no account has the id or name"
            raise AccountNotFound(f"{problem} {wanted[:80]}; `allaprima accounts list` shows all ids")
        return found[0]

    async def credit(self, account_id: str, credits_: int, note: str | None = None) -> Account:
        """Add credits to the balance (negative: withdraw them) with a ledger entry; return the updated account."""
        is_payment = credits_ >= 0
        entry = LedgerEntry(
            id=str(uuid7()),
            created_at=self._clock(),
            direction=EntryDirection.TOPUP if is_payment else EntryDirection.CHARGE,
            type=EntryType.PAYMENT if is_payment else EntryType.ADJUSTMENT,
            credits=abs(credits_),
            note=note,
        )
        return await self._accounts.post(account_id, entry)

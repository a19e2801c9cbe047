"""The use cases of an operator."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from allaprima.domain.accounts import Account
from allaprima.domain.erasure import Erased
from allaprima.service.accounts.accounts import AccountService
from allaprima.service.accounts.keys import ApiKeyService
from allaprima.store.accounts import AccountRepository


@dataclass(frozen=True, slots=True)
class OperatorService:
    """The operator's use cases on one data folder."""

    accounts: AccountService
    keys: ApiKeyService
    account_records: AccountRepository
    #: Erases an account; see `Erasure.erase`.
    erase: Callable[[Account], Awaitable[Erased]]

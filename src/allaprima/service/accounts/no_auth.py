"""A server without authentication: the key that requests without one act as, and the rule of a single account."""

from collections.abc import Sequence

from allaprima.domain.accounts import IMAGE_SCOPE, Account, KeySpec
from allaprima.errors import SettingsError
from allaprima.service.accounts.keys import ApiKeyService

#: Name of the key that requests without a key act as.
LOCAL_KEY = "no-auth on this machine"


def require_single_account(accounts: Sequence[Account]) -> None:
    """Raise `SettingsError` if there are several accounts, because a request without a key names none of them."""
    if len(accounts) > 1:
        names = ", ".join(one.name for one in accounts[:10])
        raise SettingsError(
            f"--no-auth needs a data folder with a single account, and this one has {len(accounts)}: {names}; start "
            "without it, or name another folder with --data-dir"
        )


async def renew_local_key(keys: ApiKeyService) -> str:
    """Return the key that requests without a key act as, valid until the next start of a server without authentication.

    Its record stays the same, so that its images and its usage do, and the secret is replaced. It is created if the
    account has none, or if the operator revoked it.
    """
    account = await keys.first_account()
    for record in await keys.all(account.id):
        is_valid = record.revoked_at is None and not record.is_disabled
        if is_valid and (record.name, record.scopes) == (LOCAL_KEY, (IMAGE_SCOPE,)):
            _, key = await keys.rotate(account.id, record.prefix)
            break
    else:
        _, key = await keys.create(KeySpec(name=LOCAL_KEY, scopes=(IMAGE_SCOPE,)), account.id)
    assert key is not None  # only a replayed request has none
    return key

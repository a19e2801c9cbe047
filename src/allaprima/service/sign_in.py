"""Signs a browser in by a link: a token that is valid once and for five minutes becomes a key for the browser.

The tokens are in memory, because a restart of the server may end them. A key that was created for a browser is an
ordinary one: `allaprima keys list` shows it, and `allaprima keys revoke` ends it.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from allaprima.domain.accounts import IMAGE_SCOPE, Account, ApiKey, KeySpec
from allaprima.domain.clock import Clocks
from allaprima.errors import AccountNotFound, SignInTokenInvalid
from allaprima.service.operator import OperatorService

TOKEN_TTL_S = 300.0
#: Largest number of unused tokens; the oldest is dropped.
MAX_TOKENS = 64
#: Random bytes of a token.
TOKEN_BYTES = 32


@dataclass(frozen=True, slots=True)
class _Token:
    #: SHA-256 of the token.
    digest: bytes
    account_id: str
    #: In seconds of the monotonic clock.
    expires_at: float


class SignIn:
    """Creates and redeems single-use tokens."""

    def __init__(self, operator: OperatorService, clocks: Clocks) -> None:
        self._operator = operator
        self._clocks = clocks
        #: The unused tokens, oldest first.
        self._tokens: list[_Token] = []

    async def create_token(self, account: str | None = None) -> str:
        """Return a new token. account: id or name; None: the only account.

        Raises `AccountNotFound` for an unknown account, and if there are several and none is named.
        """
        owner = await self._account(account)
        token, now = secrets.token_urlsafe(TOKEN_BYTES), self._clocks.monotonic()
        valid = [one for one in self._tokens if one.expires_at > now]
        self._tokens = [*valid, _Token(_digest(token), owner.id, now + TOKEN_TTL_S)][-MAX_TOKENS:]
        return token

    async def redeem(self, token: str, held: ApiKey | None = None) -> tuple[ApiKey, str | None]:
        """Create a key for the browser that sent a token; return its record and the key. The token becomes invalid.

        held: the key that the browser has; if it generates images for the token's account, it is returned with None,
        and no key is created. Raises `SignInTokenInvalid` for a used, expired or unknown token.
        """
        digest, now = _digest(token), self._clocks.monotonic()
        # Every token is compared, so that the time does not depend on which one matches.
        found = [one for one in self._tokens if hmac.compare_digest(one.digest, digest)]
        self._tokens = [one for one in self._tokens if one not in found]
        if not found or found[0].expires_at <= now:
            raise SignInTokenInvalid
        if held is not None and held.account_id == found[0].account_id and held.generates_images:
            return held, None
        today = datetime.fromtimestamp(self._clocks.unix(), UTC)
        spec = KeySpec(name=f"browser, {today.day} {today:%b %Y}", scopes=(IMAGE_SCOPE,))
        return await self._operator.keys.create(spec, found[0].account_id)

    async def _account(self, wanted: str | None) -> Account:
        if wanted is not None:
            return await self._operator.accounts.find(wanted)
        accounts = await self._operator.account_records.all()
        if len(accounts) > 1:
            names = ", ".join(one.name for one in accounts[:10])
            raise AccountNotFound(f"there are several accounts, so --account must name one of them: {names}")
        return await self._operator.keys.first_account()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()

"""Sign-in tokens: valid once, for five minutes, for one account, and bounded in number."""

import asyncio

import pytest

from allaprima.domain.accounts import IMAGE_SCOPE, KeySpec
from allaprima.errors import AccountNotFound, SignInTokenInvalid
from allaprima.service.accounts.keys import is_well_formed
from allaprima.service.app import Service
from allaprima.service.sign_in import MAX_TOKENS, TOKEN_TTL_S
from tests.fakes import FakeClock


async def test_token_becomes_an_ordinary_key_that_is_listed_and_revocable(service: Service) -> None:
    record, key = await service.sign_in.redeem(await service.sign_in.create_token())

    assert key is not None
    assert is_well_formed(key)
    assert (record.name, record.scopes, record.is_management) == ("browser, 15 Jan 2026", (IMAGE_SCOPE,), False)
    assert await service.keys.authenticate(key) == record
    assert record in await service.keys.all()
    await service.keys.revoke(record.prefix)
    assert record not in await service.keys.all()


async def test_browser_with_a_key_of_the_account_keeps_it(service: Service) -> None:
    held = await service.keys.authenticate(service.first_key or "")
    token = await service.sign_in.create_token()

    assert await service.sign_in.redeem(token, held) == (held, None)
    assert await service.keys.all() == [held]
    with pytest.raises(SignInTokenInvalid):
        await service.sign_in.redeem(token, held)


@pytest.mark.parametrize("spec", [KeySpec(is_management=True), KeySpec(scopes=())], ids=["management", "scopeless"])
async def test_browser_with_a_key_that_generates_nothing_gets_another(service: Service, spec: KeySpec) -> None:
    held, _ = await service.keys.create(spec)
    record, key = await service.sign_in.redeem(await service.sign_in.create_token(), held)
    assert record != held
    assert key is not None


async def test_browser_with_a_key_of_another_account_gets_one_of_the_tokens(service: Service) -> None:
    held = await service.keys.authenticate(service.first_key or "")
    other = await service.operator.accounts.create("acme")
    record, key = await service.sign_in.redeem(await service.sign_in.create_token("acme"), held)
    assert record.account_id == other.id
    assert key is not None


async def test_token_is_valid_once(service: Service) -> None:
    token = await service.sign_in.create_token()
    await service.sign_in.redeem(token)

    with pytest.raises(SignInTokenInvalid, match="used before, or it has expired"):
        await service.sign_in.redeem(token)


async def test_one_of_many_concurrent_redemptions_succeeds(service: Service) -> None:
    token = await service.sign_in.create_token()

    outcomes = await asyncio.gather(*(service.sign_in.redeem(token) for _ in range(20)), return_exceptions=True)

    assert sum(isinstance(outcome, SignInTokenInvalid) for outcome in outcomes) == 19
    assert [key.name for key in await service.keys.all()] == ["first", "browser, 15 Jan 2026"]


@pytest.mark.parametrize(("age_s", "is_valid"), [(TOKEN_TTL_S - 1, True), (TOKEN_TTL_S, False)])
async def test_token_expires_after_five_minutes(
    service: Service, clock: FakeClock, age_s: float, *, is_valid: bool
) -> None:
    token = await service.sign_in.create_token()
    clock.now += age_s

    if is_valid:
        await service.sign_in.redeem(token)
    else:
        with pytest.raises(SignInTokenInvalid):
            await service.sign_in.redeem(token)


@pytest.mark.parametrize("token", ["", "x", "A" * 43, "\udcff", "größe"])
async def test_unknown_token_is_refused(service: Service, token: str) -> None:
    await service.sign_in.create_token()

    with pytest.raises(SignInTokenInvalid):
        await service.sign_in.redeem(token)


async def test_oldest_token_is_dropped_beyond_the_bound(service: Service) -> None:
    tokens = [await service.sign_in.create_token() for _ in range(MAX_TOKENS + 1)]

    with pytest.raises(SignInTokenInvalid):
        await service.sign_in.redeem(tokens[0])
    for token in tokens[1:]:
        await service.sign_in.redeem(token)


async def test_account_must_be_named_where_there_are_several(service: Service) -> None:
    other = await service.operator.accounts.create("acme")

    with pytest.raises(AccountNotFound, match="--account must name one of them: default, acme"):
        await service.sign_in.create_token()
    with pytest.raises(AccountNotFound, match="no account has the id or name unknown"):
        await service.sign_in.create_token("unknown")
    record, _ = await service.sign_in.redeem(await service.sign_in.create_token("acme"))
    assert record.account_id == other.id

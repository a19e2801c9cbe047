"""Erasing an account: no byte of its prompts and images remains, its sums do, and other accounts lose nothing."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from allaprima.api.operator import create_operator_app
from allaprima.domain.accounts import Account, KeySpec
from allaprima.errors import StoreError, Unauthorized
from allaprima.service.accounts.erasure import JOBS_AT_ONCE, Erasure
from allaprima.service.app import Service
from allaprima.store.data_folder import IMAGES_FOLDER
from allaprima.store.erasure import ErasureRepository
from allaprima.store.images import ImageRepository
from allaprima.store.objects.local import LocalObjectStore
from tests.databases import stored_bytes
from tests.fakes import FakeClock, FakeEngine, client_of, ended, open_service
from tests.service.jobs.submitting import REQUEST, finish, rows, submit

WORDS = ("rhinoceros", "raincoat")
BODY: dict[str, Any] = {"model": "sketch", "prompt": f"a {' in a '.join(WORDS)}", "size": "64x64", "seed": 7}
PRICES = {"prices": {"allaprima/sketch": {"megapixel": 1.0}}}


@pytest.fixture
async def service(tmp_path: Path, engine: FakeEngine, clock: FakeClock) -> AsyncIterator[Service]:
    engine.warnings = (f"the model does not know these words: {', '.join(WORDS)}",)
    async with open_service(tmp_path, engine, clock, billing=PRICES) as opened:
        yield opened


@pytest.fixture
async def account(service: Service) -> Account:
    """An account with credits, which is erased."""
    created = await service.operator.accounts.create("acme")
    return await service.operator.accounts.credit(created.id, 10**9)


@pytest.fixture
async def acme(service: Service, account: Account) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of that account."""
    _, key = await service.keys.create(KeySpec("ours"), account.id)
    async with client_of(service, key=key) as opened:
        yield opened


async def erase(service: Service, reference: str) -> httpx2.Response:
    transport = httpx2.ASGITransport(create_operator_app(service.operator))
    async with httpx2.AsyncClient(transport=transport, base_url="http://operator.test") as operator:
        return await operator.post("/accounts/erase", json={"account": reference})


async def test_no_byte_of_prompts_and_images_remains_while_server_runs(
    service: Service, account: Account, acme: httpx2.AsyncClient, tmp_path: Path
) -> None:
    owner = next(key for key in await service.keys.all(account.id))
    await service.operator.accounts.credit(owner.account_id, 10**12)
    # More jobs than one transaction removes, so that pages of the database are split and freed.
    for number in range(JOBS_AT_ONCE + 20):
        request = REQUEST.changed(prompt=f"{BODY['prompt']} {number} " + "x" * (number * 37 % 3000), seed=number)
        await submit(service, owner, request)
    await finish(service, await submit(service, owner, REQUEST.changed(prompt=BODY["prompt"]), group_id=WORDS[0]))
    headers = {"idempotency-key": f"{WORDS[1]}-1", "x-client-request-id": f"{WORDS[1]}-2"}
    hook = {"webhook_url": f"https://example.com/{WORDS[0]}", "num_images": 2}
    answer = await acme.post("/v1/images/generations", json=BODY | hook, headers=headers)
    [image, _] = answer.json()["images"]
    await acme.patch(f"/v1/images/{image['id']}", json={"starred": True})
    await acme.get("/v1/webhooks/secret")
    assert stored_bytes(tmp_path).count(WORDS[0].encode()) > JOBS_AT_ONCE
    found = (await erase(service, "acme")).json()
    content = stored_bytes(tmp_path)
    assert [word for word in WORDS if word.encode() in content] == []
    assert list((tmp_path / IMAGES_FOLDER).iterdir()) == []
    jobs = JOBS_AT_ONCE + 22
    assert (found["jobs"], found["images"], found["logged_requests"]) == (jobs, jobs + 1, jobs)
    assert (found["keys_disabled"], found["idempotency_records"], found["webhook_endpoints"]) == (1, 1, 1)
    assert found["image_bytes"] > 0
    assert (await service.operator.erase(account)).jobs == 0


async def test_bookkeeping_stays_exact(
    service: Service, account: Account, acme: httpx2.AsyncClient, engine: FakeEngine, tmp_path: Path
) -> None:
    await acme.post("/v1/images/generations", json=BODY)
    ledger = rows(tmp_path, "SELECT * FROM ledger ORDER BY id")
    sums = rows(tmp_path, "SELECT * FROM usage_buckets")
    found = (await erase(service, account.id)).json()
    assert (found["ledger_entries"], found["usage_sums"]) == (len(ledger), len(sums)) == (2, 1)
    assert rows(tmp_path, "SELECT * FROM ledger ORDER BY id") == ledger
    assert rows(tmp_path, "SELECT * FROM usage_buckets") == sums
    after = await service.accounts.get(account.id)
    assert (after.name, after.held, after.balance) == ("acme", 0, found["account"]["balance"])
    assert rows(tmp_path, "SELECT image_bytes FROM accounts WHERE name = 'acme'") == [(0,)]
    _, key = await service.keys.create(KeySpec(), account.id)
    async with client_of(service, key=key) as later:
        logs = (await later.get("/v2/logs?period=7d")).json()
        assert (logs["data"], logs["pagination"]["has_more"]) == ([], False)
        assert (await later.get("/v1/images")).json()["data"] == []


async def test_keys_are_disabled_and_other_accounts_lose_nothing(
    service: Service, account: Account, acme: httpx2.AsyncClient, tmp_path: Path
) -> None:
    _, key = await service.keys.create(KeySpec(), (other := await service.operator.accounts.create("other")).id)
    await service.operator.accounts.credit(other.id, 10**9)
    async with client_of(service, key=key) as stranger:
        [image] = (await stranger.post("/v1/images/generations", json=BODY)).json()["images"]
        await acme.post("/v1/images/generations", json=BODY)
        await erase(service, "acme")
        assert (await acme.get("/v1/images")).status_code == 401
        assert [entry["id"] for entry in (await stranger.get("/v1/images")).json()["data"]] == [image["id"]]
        assert (await stranger.get(image["url"])).status_code == 200
        assert len((await stranger.get("/v1/jobs")).json()["data"]) == 1
    assert WORDS[0].encode() in stored_bytes(tmp_path)


async def test_queued_and_running_jobs_are_cancelled_first(
    service: Service, account: Account, acme: httpx2.AsyncClient, engine: FakeEngine, tmp_path: Path
) -> None:
    engine.hold()
    for _ in range(5):
        await acme.post("/v1/jobs", json=BODY)
    await engine.until_held()
    found = (await erase(service, "acme")).json()
    assert (found["jobs"], rows(tmp_path, "SELECT count(*) FROM jobs")) == (5, [(0,)])
    assert (await service.accounts.get(account.id)).held == 0
    assert WORDS[0].encode() not in stored_bytes(tmp_path)


async def test_erasure_is_refused_while_the_engine_has_not_stopped_a_job(
    service: Service, account: Account, acme: httpx2.AsyncClient, engine: FakeEngine, tmp_path: Path
) -> None:
    await acme.post("/v1/images/generations", json=BODY)
    engine.hold()
    engine.ignores_cancel = True
    job_id = (await acme.post("/v1/jobs", json=BODY)).json()["id"]
    await engine.until_held()
    answer = await erase(service, "acme")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert answer.json()["message"] == (
        "a cancelled job has not ended yet, so the account acme is not erased; its keys are disabled, so repeat the "
        "command in a few seconds, while a server runs that ends them"
    )
    assert rows(tmp_path, "SELECT count(*) FROM jobs") == [(2,)]
    assert (await acme.get("/v1/images")).status_code == 401
    engine.release()
    await ended(service, job_id)
    assert (await erase(service, "acme")).json()["jobs"] == 2


async def test_unknown_account_is_refused(service: Service) -> None:
    answer = await erase(service, "absent")
    assert (answer.status_code, answer.json()["code"]) == (404, "account_not_found")


class InterruptedRecords(ErasureRepository):
    """Fails once when the jobs are removed."""

    is_failing = True

    async def remove_rest(self, account_id: str) -> None:  # type: ignore[override]
        if self.is_failing:
            self.is_failing = False
            raise StoreError("power failure")
        await super().remove_rest(account_id)


async def test_interrupted_erasure_is_continued_by_the_next(
    service: Service, account: Account, acme: httpx2.AsyncClient, clock: FakeClock, tmp_path: Path
) -> None:
    await acme.post("/v1/images/generations", json=BODY)
    database = service.usage._database
    records = InterruptedRecords(database)
    images = ImageRepository(database, LocalObjectStore(tmp_path / IMAGES_FOLDER))
    erasure = Erasure(records, images, service.cancellation.cancel_account, clock)
    with pytest.raises(StoreError):
        await erasure.erase(account)
    found = await erasure.erase(account)
    assert (found.jobs, found.logged_requests) == (0, 1)
    assert WORDS[0].encode() not in stored_bytes(tmp_path)


async def test_request_that_was_authenticated_before_is_refused(service: Service, account: Account) -> None:
    _, key = await service.keys.create(KeySpec(), account.id)
    owner = await service.keys.authenticate(str(key))
    await service.operator.erase(account)
    with pytest.raises(Unauthorized):
        await submit(service, owner)

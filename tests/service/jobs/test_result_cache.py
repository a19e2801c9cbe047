"""The result cache: images of an equal request of the same account, and only if the same bytes would be generated."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from allaprima.domain.accounts import ApiKey, KeySpec
from allaprima.domain.generation import ImageFormat
from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.domain.jobs import JobState
from allaprima.domain.models import Precision
from allaprima.errors import OutOfCredits
from allaprima.service.app import Service
from allaprima.service.jobs.result_cache import fingerprint
from tests.fakes import SKETCH, FakeClock, FakeEngine, open_service
from tests.service.jobs.submitting import REQUEST, finish, rows, submission, submit

CREDITS = 8192
PRICED: dict[str, Any] = {"billing": {"prices": {"allaprima/sketch": {"megapixel": 1.0, "cached_share": 0.5}}}}


async def test_equal_request_is_answered_from_cache(
    service: Service, owner: ApiKey, engine: FakeEngine, clock: FakeClock, tmp_path: Path
) -> None:
    engine.warnings = ("the prompt was cut",)
    first = await finish(service, await submit(service, owner, warnings=("style has no effect",)))
    clock.now += 5
    again = await submit(service, owner, use_cache=True, warnings=("size has no effect",))
    assert (again.state, again.finished_at, list(engine.requests)) == (JobState.SUCCEEDED, clock.now, [first.id])
    assert again.result is not None
    assert again.result.is_cached
    assert sum(again.result.timings.steps) == again.result.timings.inference == 0
    assert again.result.warnings == ("size has no effect", "the prompt was cut")
    found = await service.images.of_all([first, again])
    [old], [new] = found[first.id].stored, found[again.id].stored
    assert (new.sha256, new.seed, new.size_bytes) == (old.sha256, old.seed, old.size_bytes)
    assert new.object_name != old.object_name
    assert new.expires_at == old.expires_at + 5
    files = [(tmp_path / "images" / image.object_name).read_bytes() for image in (old, new)]
    assert files[0] == files[1]


async def test_equal_request_without_use_cache_is_generated(
    service: Service, owner: ApiKey, engine: FakeEngine
) -> None:
    for _ in range(2):
        await finish(service, await submit(service, owner))
    assert len(engine.requests) == 2


async def test_other_account_is_not_answered_from_cache(service: Service, owner: ApiKey, engine: FakeEngine) -> None:
    await finish(service, await submit(service, owner))
    account = await service.operator.accounts.create("other")
    other, _ = await service.keys.create(KeySpec(), account.id)
    done = await finish(service, await submit(service, other, use_cache=True))
    assert done.result is not None
    assert (done.result.is_cached, len(engine.requests)) == (False, 2)


@pytest.mark.parametrize("kind", ["expired", "removed", "file lost"])
async def test_request_with_deleted_cached_images_is_generated(
    service: Service, owner: ApiKey, engine: FakeEngine, clock: FakeClock, tmp_path: Path, kind: str
) -> None:
    first = await finish(service, await submit(service, owner))
    [image] = (await service.images.of(first)).stored
    if kind == "expired":
        clock.now = image.expires_at
    elif kind == "removed":
        await service.images.remove(owner.account_id, image.id)
    else:
        (tmp_path / "images" / image.object_name).unlink()
    done = await finish(service, await submit(service, owner, use_cache=True))
    assert done.state is JobState.SUCCEEDED
    assert len(engine.requests) == 2


async def test_images_that_were_not_stored_are_not_cached(service: Service, owner: ApiKey, engine: FakeEngine) -> None:
    delivery = service.ephemeral.delivery((job := await submit(service, owner, store=False)).id)
    await delivery.result
    await delivery.confirm()
    assert (await finish(service, job)).state is JobState.SUCCEEDED
    await finish(service, await submit(service, owner, use_cache=True))
    assert len(engine.requests) == 2


async def test_cached_answer_costs_its_share_once(tmp_path: Path, engine: FakeEngine, clock: FakeClock) -> None:
    async with open_service(tmp_path, engine, clock, **PRICED) as service:
        owner = (await service.keys.all())[0]
        await service.operator.accounts.credit(owner.account_id, CREDITS + CREDITS // 2)
        await finish(service, await submit(service, owner))
        claimed = replace(submission(owner, use_cache=True), claim=IdempotencyClaim("key", "fingerprint"))
        done = await service.admission.submit(claimed)
        again = replace(submission(owner, use_cache=True), claim=claimed.claim)
        assert await service.admission.submit(again) == done
        assert (await service.accounts.get(owner.account_id)).balance == 0
        with pytest.raises(OutOfCredits):
            await submit(service, owner, use_cache=True)
    assert rows(tmp_path, "SELECT credits FROM usage ORDER BY created_at, job_id") == [(CREDITS,), (CREDITS // 2,)]


def test_fingerprint_covers_everything_that_affects_bytes() -> None:
    requests = [
        REQUEST,
        REQUEST.changed(prompt="a cat"),
        REQUEST.changed(seed=8),
        REQUEST.changed(width=128),
        REQUEST.changed(steps=5),
        REQUEST.changed(count=2),
        REQUEST.changed(image_format=ImageFormat.JPEG),
        REQUEST.changed(check_safety=False),
        REQUEST.changed(safety_threshold=0.5),
    ]
    models = [
        replace(SKETCH, revision="6" * 40),
        replace(SKETCH, precision=Precision.BF16),
        replace(SKETCH, kernels="native 1"),
    ]
    found = [fingerprint(request, SKETCH) for request in requests] + [fingerprint(REQUEST, model) for model in models]
    assert len(set(found)) == len(found)
    assert fingerprint(REQUEST.changed(), SKETCH) == found[0]

"""Results of jobs with `store=false`: delivered once and never stored."""

from pathlib import Path

import pytest

from allaprima.domain.accounts import ApiKey
from allaprima.errors import ImageNotFound
from allaprima.service.app import Service
from allaprima.service.jobs.ephemeral import MAX_RESULTS, MemoryEphemeralResults
from allaprima.store.job_transitions import NOT_STORED
from tests.fakes import FakeEngine
from tests.service.jobs.submitting import REQUEST, finish, rows, submit


def test_ephemeral_result_is_delivered_once() -> None:
    results, result = MemoryEphemeralResults(), FakeEngine().generate(REQUEST)
    results.put("job", result)
    assert [results.take("job"), results.take("job"), results.take("other")] == [result, None, None]


def test_ephemeral_results_are_bounded() -> None:
    results, result = MemoryEphemeralResults(), FakeEngine().generate(REQUEST)
    for number in range(MAX_RESULTS + 2):
        results.put(str(number), result)
    assert [results.take(str(number)) is None for number in (0, 1, 2, MAX_RESULTS + 1)] == [True, True, False, False]


async def test_images_that_are_not_stored_are_delivered_once(
    service: Service, owner: ApiKey, engine: FakeEngine, tmp_path: Path
) -> None:
    done = await finish(service, await submit(service, owner, store=False))
    delivered = await service.images.deliver(done)
    assert delivered.ephemeral == engine.generate(REQUEST)
    with pytest.raises(ImageNotFound):
        await service.images.deliver(done)
    assert list((tmp_path / "images").iterdir()) == []
    assert rows(tmp_path, "SELECT count(*) FROM images") == [(0,)]
    assert done.request.prompt == NOT_STORED
    assert rows(tmp_path, "SELECT images FROM usage") == [(1,)]


async def test_images_that_are_stored_are_delivered_each_time(service: Service, owner: ApiKey) -> None:
    done = await finish(service, await submit(service, owner))
    first, again = [await service.images.deliver(done) for _ in range(2)]
    assert first == again
    assert (first.ephemeral, len(first.stored)) == (None, 1)

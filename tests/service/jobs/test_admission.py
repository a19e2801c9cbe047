"""Admission of jobs: stored, once per idempotency key, within the credits; and estimates."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from allaprima.domain.accounts import ApiKey, KeySpec
from allaprima.domain.generation import GenerationRequest, LongPromptPolicy
from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.domain.jobs import JobOptions, JobState
from allaprima.errors import Draining, IdempotencyMismatch, InvalidRequest, OutOfCredits, ScopeMissing
from allaprima.service.app import Service
from allaprima.service.jobs.throughput import INITIAL_ESTIMATE_S
from tests.fakes import FakeClock, FakeEngine, open_service
from tests.service.jobs.submitting import REQUEST, finish, rows, states, submission, submit

#: 4096 pixels cost 0.004096 US dollars.
PRICED: dict[str, Any] = {"billing": {"prices": {"allaprima/sketch": {"megapixel": 1.0}}}}
CREDITS = 8192
LONG_PROMPT = " ".join(["boat"] * 12)


async def test_job_is_stored_before_it_is_acknowledged(
    service: Service, owner: ApiKey, engine: FakeEngine, tmp_path: Path
) -> None:
    engine.hold()
    job = await submit(service, owner, group_id="g")
    [(job_id, account_id, key_id, request, options)] = rows(
        tmp_path, "SELECT id, account_id, key_id, request, options FROM jobs"
    )
    assert (job_id, account_id, key_id) == (job.id, owner.account_id, owner.id)
    assert GenerationRequest.model_validate(json.loads(request)) == REQUEST
    assert JobOptions.model_validate(json.loads(options)) == JobOptions(model=REQUEST.model, group_id="g")
    assert states(tmp_path)[0] in ("queued", "running")
    engine.release()


async def test_stopping_server_refuses_jobs(tmp_path: Path, engine: FakeEngine, clock: FakeClock) -> None:
    async with open_service(tmp_path, engine, clock) as service:
        owner = (await service.keys.all())[0]
        service.lifecycle.drain()
        with pytest.raises(Draining) as refused:
            await submit(service, owner)
        assert refused.value.job_id is None
        assert (refused.value.retry_after_s or 0) > 0
        assert b'allaprima_refusals_total{reason="draining"} 1.0' in service.metrics.text(0)
    with pytest.raises(Draining):
        await submit(service, owner)
    assert states(tmp_path) == []


@pytest.mark.parametrize("spec", [KeySpec(is_management=True), KeySpec(scopes=())])
async def test_key_without_image_scope_cannot_submit_or_estimate(service: Service, spec: KeySpec) -> None:
    key, _ = await service.keys.create(spec)
    for ask in (service.admission.submit, service.admission.estimate):
        with pytest.raises(ScopeMissing):
            await ask(submission(key))


async def test_long_prompt_is_refused_if_requested(service: Service, owner: ApiKey, engine: FakeEngine) -> None:
    request = REQUEST.changed(prompt=LONG_PROMPT, on_long_prompt=LongPromptPolicy.REFUSE)
    for ask in (service.admission.submit, service.admission.estimate):
        with pytest.raises(InvalidRequest, match="prompt: has 2 tokens more than the model reads"):
            await ask(submission(owner, request))
    assert engine.requests == {}
    assert await submit(service, owner, REQUEST.changed(prompt=LONG_PROMPT))


# Idempotency --------------------------------------------------------------------------------------------------------


async def test_concurrent_equal_requests_create_one_job(
    service: Service, owner: ApiKey, engine: FakeEngine, tmp_path: Path
) -> None:
    claim = IdempotencyClaim("key", "fingerprint")
    jobs = await asyncio.gather(*(service.admission.submit(replace(submission(owner), claim=claim)) for _ in range(20)))
    assert len({job.id for job in jobs}) == 1
    done = await finish(service, jobs[0])
    assert await service.admission.submit(replace(submission(owner), claim=claim)) == done
    assert (len(engine.requests), len(states(tmp_path))) == (1, 1)


async def test_idempotency_key_of_other_request_is_refused(service: Service, owner: ApiKey) -> None:
    await service.admission.submit(replace(submission(owner), claim=IdempotencyClaim("key", "one")))
    with pytest.raises(IdempotencyMismatch):
        await service.admission.submit(replace(submission(owner), claim=IdempotencyClaim("key", "other")))


# Credits ------------------------------------------------------------------------------------------------------------


async def test_price_is_held_at_admission_and_charged_at_end(
    tmp_path: Path, engine: FakeEngine, clock: FakeClock
) -> None:
    engine.hold()
    async with open_service(tmp_path, engine, clock, **PRICED) as service:
        owner = (await service.keys.all())[0]
        await service.operator.accounts.credit(owner.account_id, 2 * CREDITS)
        job = await submit(service, owner)
        account = await service.accounts.get(owner.account_id)
        assert (job.held, account.balance, account.held) == (CREDITS, 2 * CREDITS, CREDITS)
        engine.release()
        done = await finish(service, job)
        account = await service.accounts.get(owner.account_id)
        assert done.result is not None
        assert (done.result.credits, account.balance, account.held) == (CREDITS, CREDITS, 0)


@pytest.mark.parametrize("end", ["failed", "cancelled"])
async def test_job_without_images_releases_its_hold(
    tmp_path: Path, engine: FakeEngine, clock: FakeClock, end: str
) -> None:
    engine.hold()
    async with open_service(tmp_path, engine, clock, **PRICED) as service:
        owner = (await service.keys.all())[0]
        await service.operator.accounts.credit(owner.account_id, CREDITS)
        job = await submit(service, owner, start_within_s=30)
        await engine.until_held()
        if end == "cancelled":
            await service.cancellation.cancel(owner.account_id, job.id)
        else:
            engine.failure = InvalidRequest()
            engine.release()
        assert (await finish(service, job)).state.value == end
        account = await service.accounts.get(owner.account_id)
        assert (account.balance, account.held) == (CREDITS, 0)


async def test_concurrent_submissions_never_overdraw(tmp_path: Path, engine: FakeEngine, clock: FakeClock) -> None:
    async with open_service(tmp_path, engine, clock, **PRICED) as service:
        owner = (await service.keys.all())[0]
        await service.operator.accounts.credit(owner.account_id, CREDITS)
        ends = await asyncio.gather(*(submit(service, owner) for _ in range(10)), return_exceptions=True)
        assert sorted(type(end).__name__ for end in ends) == ["Job", *["OutOfCredits"] * 9]
        assert b'allaprima_refusals_total{reason="out_of_credits"} 9.0' in service.metrics.text(0)
        [accepted] = [end for end in ends if not isinstance(end, OutOfCredits)]
        assert (await finish(service, accepted)).state is JobState.SUCCEEDED
        assert (await service.accounts.get(owner.account_id)).balance == 0


# Estimates ----------------------------------------------------------------------------------------------------------


async def test_estimate_has_cost_and_time_without_job(tmp_path: Path, engine: FakeEngine, clock: FakeClock) -> None:
    async with open_service(tmp_path, engine, clock, **PRICED) as service:
        owner = (await service.keys.all())[0]
        found = await service.admission.estimate(submission(owner, REQUEST.changed(count=3, prompt=LONG_PROMPT)))
        assert (found.tokens, found.max_tokens, found.credits) == (12, 10, 3 * CREDITS)
        assert (found.seconds, found.predicted_start) == (INITIAL_ESTIMATE_S, clock.now)
    assert (states(tmp_path), engine.requests) == ([], {})


async def test_estimate_includes_jobs_in_queue(
    service: Service, owner: ApiKey, engine: FakeEngine, clock: FakeClock
) -> None:
    engine.hold()
    for _ in range(5):
        await submit(service, owner)
    await engine.until_held(2)
    found = await service.admission.estimate(submission(owner))
    start_in_s = found.predicted_start - clock.now
    assert 4 * INITIAL_ESTIMATE_S < start_in_s <= 5 * INITIAL_ESTIMATE_S
    engine.release()

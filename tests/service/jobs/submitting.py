"""Submits jobs to a service, and reads its database."""

from pathlib import Path
from typing import Any

from uuid_utils import uuid7

from allaprima.domain.accounts import ApiKey
from allaprima.domain.generation import GenerationRequest
from allaprima.domain.jobs import Job, JobOptions, Submission
from allaprima.service.app import Service
from tests.databases import ask, change

REQUEST = GenerationRequest(prompt="a boat", seed=7, model="allaprima/sketch", width=64, height=64)
#: Jobs leased to an engine with `max_concurrency` 1: the running one and the next.
LEASED = 2
#: Longest wait for an event, in seconds. It allows for a busy machine.
LIMIT_S = 60


def rows(folder: Path, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Read from the database of a data folder."""
    return ask(folder, statement, *values)


def write(folder: Path, statement: str, *values: object) -> None:
    """Write to the database of a data folder."""
    change(folder, statement, *values)


def states(folder: Path) -> list[str]:
    """Return the states of all jobs, oldest first."""
    return [state for (state,) in rows(folder, "SELECT state FROM jobs ORDER BY created_at, id")]


def submission(
    owner: ApiKey, request: GenerationRequest = REQUEST, *, start_within_s: float | None = None, **options: Any
) -> Submission:
    """Return a submission. options: members of `JobOptions`."""
    return Submission(
        key=owner,
        request=request,
        options=JobOptions(**{"model": request.model} | options),
        job_id=str(uuid7()),
        start_within_s=start_within_s,
    )


async def submit(
    service: Service, owner: ApiKey | None = None, request: GenerationRequest = REQUEST, **options: Any
) -> Job:
    """Submit a job with a key, by default the first."""
    owner = owner or (await service.keys.all())[0]
    return await service.admission.submit(submission(owner, request, **options))


async def finish(service: Service, job: Job) -> Job:
    """Wait for a job's end."""
    return await service.jobs.wait(job, LIMIT_S)

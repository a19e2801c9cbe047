"""Submits jobs to a service, and looks into its database."""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from uuid_utils import uuid7

from allaprima.domain.accounts import ApiKey
from allaprima.domain.generation import GenerationRequest
from allaprima.domain.jobs import Job, JobOptions, Submission
from allaprima.service.app import Service
from allaprima.store.sqlite import DATABASE_FILE

REQUEST = GenerationRequest(prompt="a boat", seed=7, model="allaprima/sketch", width=64, height=64)
#: Jobs that an engine with one at a time is given: that one and the next.
LEASED = 2
#: Seconds within which everything that will happen has happened, on a slow machine too.
LIMIT_S = 60


def rows(folder: Path, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Read from the database file itself."""
    with closing(sqlite3.connect(folder / DATABASE_FILE, timeout=LIMIT_S)) as raw:
        return raw.execute(statement, values).fetchall()


def write(folder: Path, statement: str, *values: object) -> None:
    """Write to the database file itself."""
    with closing(sqlite3.connect(folder / DATABASE_FILE, timeout=LIMIT_S)) as raw, raw:
        raw.execute(statement, values)


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
    """Submit a job; of the first key, unless another is named."""
    owner = owner or (await service.keys.all())[0]
    return await service.admission.submit(submission(owner, request, **options))


async def finish(service: Service, job: Job) -> Job:
    """Wait for a job's end."""
    return await service.jobs.wait(job, LIMIT_S)


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds that no event reports: one of a file, or of another thread."""
    async with asyncio.timeout(LIMIT_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)

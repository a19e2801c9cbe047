"""Rows for the tests of the store."""

import itertools
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from allaprima.domain.accounts import ApiKey
from allaprima.domain.generation import GenerationRequest
from allaprima.domain.jobs import Job, JobOptions, JobOutcome, JobState, StoredImage
from allaprima.store.database import DATABASE_FILE
from fakes import NOON

RESULT = {"model": "allaprima/sketch", "revision": "5" * 40, "warnings": [], "timings": {"inference": 0.5}}
REQUEST = GenerationRequest(prompt="a boat", seed=2**63 - 1, model="allaprima/sketch")
_numbers = itertools.count()


def new_job(owner: ApiKey, request: GenerationRequest = REQUEST, created_at: float = NOON, **fields: Any) -> Job:
    """A queued job with the next id. Fields of its terms may be among the job's own."""
    terms = {name: fields.pop(name) for name in tuple(fields) if name in JobOptions.__dataclass_fields__}
    return Job(
        id=f"job-{next(_numbers):06}",
        account_id=owner.account_id,
        key_id=owner.id,
        state=JobState.QUEUED,
        request=request,
        created_at=created_at,
        terms=JobOptions(**{"model": request.model} | terms),
        **fields,
    )


def picture(job: Job, place: int = 0, **fields: Any) -> StoredImage:
    row = StoredImage(
        id=f"{job.id}-{place}-{next(_numbers)}",
        job_id=job.id,
        place=place,
        object_name=f"{job.id}-{place}.png",
        content_type="image/png",
        size_bytes=100,
        sha256="0" * 64,
        seed=2**63 - 1,
        nsfw_score=0.5,
        is_flagged=False,
        created_at=NOON,
        expires_at=NOON + 60,
    )
    return replace(row, **fields)


def outcome(*pictures: StoredImage, **fields: Any) -> JobOutcome:
    """A painting that is charged with one image and costs nothing."""
    return JobOutcome(
        **{"result": RESULT, "pictures": pictures, "images": 1, "megapixels": 0.25, "credits": 0} | fields
    )


def ask(folder: Path, statement: str) -> list[tuple[Any, ...]]:
    """Ask the database file itself."""
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as raw:
        return raw.execute(statement).fetchall()


def count(folder: Path, table: str) -> int:
    """Return the number of a table's rows."""
    return int(ask(folder, f"SELECT count(*) FROM {table}")[0][0])  # noqa: S608 - a name of ours


def dump(folder: Path) -> str:
    """Return everything that the database holds, as text."""
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as raw:
        return "\n".join(raw.iterdump())

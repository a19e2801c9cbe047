"""SQLite's plans: statements of the queue read an index of unfinished jobs or one job, pages of images an index."""

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from allaprima.domain.accounts import ApiKey
from allaprima.domain.jobs import ImageFilter, Priority
from allaprima.store.data_folder import DATABASE_FILE
from allaprima.store.database import Database
from allaprima.store.images import ImageRepository
from allaprima.store.job_transitions import JobTransitions
from allaprima.store.jobs import JobRepository
from allaprima.store.objects.local import LocalObjectStore
from allaprima.store.sqlite import open_sqlite
from allaprima.store.workers import WorkerRepository
from tests.clock import NOW
from tests.store.factories import new_job, new_outcome
from tests.store.reaping import WORKER, reap

#: Matches the plan steps on the jobs table that read no finished job.
READS_FEW = re.compile(
    r"SEARCH jobs USING (COVERING )?INDEX "
    r"(ix_jobs_(order|urgency|order_of_key|start_by|running|waits_at)|sqlite_autoindex_\w+) "
    r"|SCAN jobs USING (COVERING )?INDEX ix_jobs_running "
)


@pytest.fixture(params=["in order", "reversed"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    await (await open_sqlite(tmp_path)).close()
    if request.param == "reversed":
        reverse_indexes(tmp_path / DATABASE_FILE)
    opened = await open_sqlite(tmp_path)
    yield opened
    await opened.close()


@pytest.fixture
def statements() -> Iterator[list[tuple[str, Any]]]:
    """The statements that are executed during the test, with their parameters."""
    found: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        found.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", note)
    yield found
    event.remove(Engine, "before_cursor_execute", note)


def reverse_indexes(path: Path) -> None:
    """Recreate the indexes of the jobs in reverse order; of equally good indexes SQLite chooses the latest one."""
    with closing(sqlite3.connect(path)) as raw, raw:
        found = raw.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'jobs' AND sql IS NOT NULL"
            " ORDER BY rowid DESC"
        ).fetchall()
        assert len(found) > 5
        for name, sql in found:
            raw.execute(f"DROP INDEX {name}")
            raw.execute(sql)


def plan_of(statements: list[tuple[str, Any]], folder: Path) -> set[str]:
    """Return the steps of all statements."""
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as raw:
        return {
            step
            for statement, parameters in statements
            if re.match("SELECT|UPDATE|DELETE", statement)
            for *_, step in raw.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
        }


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (ImageFilter(), "ix_images_account_id_id (account_id=?)"),
        (ImageFilter(before="x"), "ix_images_account_id_id (account_id=? AND id<?)"),
        (ImageFilter(words="a boat", before="x"), "ix_images_account_id_id (account_id=? AND id<?)"),
        (ImageFilter(is_starred=True, before="x"), "ix_images_starred (account_id=? AND id<?)"),
        (ImageFilter(key_id="key", before="x"), "ix_images_key_id_id (key_id=? AND id<?)"),
    ],
)
async def test_page_of_images_follows_an_index_and_is_not_sorted(
    database: Database, statements: list[tuple[str, Any]], tmp_path: Path, wanted: ImageFilter, index: str
) -> None:
    await ImageRepository(database, LocalObjectStore(tmp_path / "images")).page("account", wanted, 20, NOW)
    steps = plan_of(statements, tmp_path)
    assert f"SEARCH images USING INDEX {index}" in steps
    assert not any("TEMP B-TREE" in step or "SCAN images" in step for step in steps)


async def test_queue_statements_read_no_finished_jobs(
    database: Database, owner: ApiKey, statements: list[tuple[str, Any]], tmp_path: Path
) -> None:
    transitions, found = JobTransitions(database), JobRepository(database)
    for priority in Priority:
        job = await transitions.admit(new_job(owner, priority=priority), queue_size=10)
        await found.ahead_of(job.id)
        await found.ahead_of_new(owner.id, priority, 1.0)
    await found.load()
    await transitions.fail_missed_starts(NOW)
    leased = (await transitions.lease(WORKER, NOW)).job
    assert leased
    await asyncio.to_thread(WorkerRepository(database).renew, WORKER)
    await transitions.requeue_lost(WORKER, ["unknown"])
    assert await transitions.succeed(leased, NOW, new_outcome())
    await transitions.lease(WORKER, NOW)
    await reap(database, 3, NOW)
    steps = plan_of(statements, tmp_path)
    assert {step for step in steps if re.search(r"\bjobs\b", step) and not READS_FEW.match(f"{step} ")} == set()
    assert any("ix_jobs_start_by" in step for step in steps)

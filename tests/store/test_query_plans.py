"""SQLite's plans for the queue: each statement reads an index of queued or running jobs, or one job by its id."""

import re
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from allaprima.domain.accounts import ApiKey
from allaprima.domain.jobs import Priority
from allaprima.store.data_folder import DATABASE_FILE
from allaprima.store.database import Database
from allaprima.store.job_transitions import JobTransitions
from allaprima.store.jobs import JobRepository
from allaprima.store.sqlite import open_sqlite
from tests.clock import NOW
from tests.store.factories import new_job, new_outcome

#: Matches the plan steps on the jobs table that read no finished job.
READS_FEW = re.compile(
    r"SEARCH jobs USING (COVERING )?INDEX (ix_jobs_(order|urgency|order_of_key|start_by|running)|sqlite_autoindex_\w+) "
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
    leased = (await transitions.lease(NOW, NOW + 60)).job
    assert leased
    await transitions.renew([leased], NOW + 90)
    await transitions.requeue_expired(NOW)
    assert await transitions.succeed(leased, NOW, new_outcome())
    await transitions.recover(3, NOW)
    with closing(sqlite3.connect(tmp_path / DATABASE_FILE)) as raw:
        steps = {
            step
            for statement, parameters in statements
            if re.match("SELECT|UPDATE|DELETE", statement)
            for *_, step in raw.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
        }
    assert {step for step in steps if re.search(r"\bjobs\b", step) and not READS_FEW.match(f"{step} ")} == set()
    assert any("ix_jobs_start_by" in step for step in steps)

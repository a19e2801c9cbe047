"""Jobs, read."""

from allaprima.domain.accounts import ApiKey
from allaprima.domain.jobs import JobFilter, JobProgress, JobState
from allaprima.store.database import Database
from allaprima.store.job_transitions import JobTransitions
from allaprima.store.jobs import JobRepository
from tests.clock import NOW
from tests.store.backends import run
from tests.store.factories import new_job
from tests.store.reaping import WORKER


async def test_unreadable_row_does_not_shorten_a_page(database: Database, owner: ApiKey) -> None:
    transitions = JobTransitions(database)
    ids = [(await transitions.admit(new_job(owner), queue_size=10)).id for _ in range(5)]
    await run(database, "UPDATE jobs SET request = :request WHERE id = :id", request='{"colour": "mauve"}', id=ids[3])
    found = JobRepository(database)

    first = await found.page("account", JobFilter(), limit=3)
    assert [job.id for job in first] == [ids[4], ids[2], ids[1]]
    rest = await found.page("account", JobFilter(before=ids[1]), limit=3)
    assert [job.id for job in rest] == [ids[0]]


async def test_progress_is_read_for_all_known_ids(database: Database, owner: ApiKey) -> None:
    transitions, found = JobTransitions(database), JobRepository(database)
    ids = [(await transitions.admit(new_job(owner), queue_size=10)).id for _ in range(3)]
    await transitions.lease(WORKER, NOW)
    await transitions.request_cancel(ids[0], NOW)
    await run(database, "UPDATE jobs SET request = :request WHERE id = :id", request='{"colour": "mauve"}', id=ids[1])
    progress = {one.id: one for one in await found.progress([*ids[:2], "unknown"])}
    assert progress == {
        ids[0]: JobProgress(ids[0], JobState.RUNNING, 1, is_cancel_requested=True),
        ids[1]: JobProgress(ids[1], JobState.QUEUED, 0, is_cancel_requested=False),
    }
    assert await found.progress([]) == []

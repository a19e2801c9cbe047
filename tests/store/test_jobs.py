"""Jobs, read."""

from allaprima.domain.accounts import ApiKey
from allaprima.domain.jobs import JobFilter
from allaprima.store.database import Database
from allaprima.store.job_transitions import JobTransitions
from allaprima.store.jobs import JobRepository
from tests.store.backends import run
from tests.store.factories import new_job


async def test_unreadable_row_does_not_shorten_a_page(database: Database, owner: ApiKey) -> None:
    transitions = JobTransitions(database)
    ids = [(await transitions.admit(new_job(owner), queue_size=10)).id for _ in range(5)]
    await run(database, "UPDATE jobs SET request = :request WHERE id = :id", request='{"colour": "mauve"}', id=ids[3])
    found = JobRepository(database)

    first = await found.page("account", JobFilter(), limit=3)
    assert [job.id for job in first] == [ids[4], ids[2], ids[1]]
    rest = await found.page("account", JobFilter(before=ids[1]), limit=3)
    assert [job.id for job in rest] == [ids[0]]

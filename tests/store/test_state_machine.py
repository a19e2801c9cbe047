"""The state machine of jobs under random transitions, against a model.

Callers with an expired lease change nothing, and balance, holds, charges and usage agree after every transition.
"""

import asyncio
import tempfile
from collections.abc import Coroutine, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from allaprima.domain.accounts import Account, ApiKey
from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.domain.jobs import UNFINISHED, Job, JobState, StoredImage
from allaprima.errors import GenerationFailed, JobFinished, JobNotFound, JobUnfinished, OutOfCredits
from allaprima.store.accounts import AccountRepository
from allaprima.store.job_transitions import JobTransitions
from allaprima.store.keys import KeyRepository
from tests.clock import NOW
from tests.store.backends import BACKENDS, open_repeating_sqlite, query
from tests.store.factories import new_entry, new_image, new_job, new_outcome
from tests.store.reaping import WORKER, reap, register

PAID = 60
MAX_CRASHES = 3
#: Balance and held credits of the account; spent and held credits of the key; charged credits of the ledger;
#: credits and rows of the usage; credits of the usage buckets.
SUMS = """
SELECT accounts.balance, accounts.held, api_keys.spent, api_keys.held,
    (SELECT coalesce(sum(credits), 0) FROM ledger WHERE direction = 'CHARGE'),
    (SELECT coalesce(sum(credits), 0) FROM usage),
    (SELECT count(*) FROM usage),
    (SELECT coalesce(sum(credits), 0) FROM usage_buckets)
FROM accounts, api_keys
"""


class JobMachine(RuleBasedStateMachine):
    """Jobs of up to ten credits each, of an account with `PAID` credits."""

    #: A function of `tests.store.backends`.
    open_database: ClassVar[Any]
    jobs = Bundle("jobs")
    #: Jobs at the time of their lease; the lease may have expired since.
    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.now = NOW
        #: The expected state, attempt, held and charged credits of each job by id.
        self.states: dict[str, JobState] = {}
        self.attempts: dict[str, int] = {}
        self.held: dict[str, int] = {}
        self.charged: dict[str, int] = {}
        self.claims: dict[str, str] = {}
        #: The attempt, the state and the images with which each job ended by id.
        self.ends: dict[str, tuple[int, JobState, set[str]]] = {}

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    @initialize()
    def open(self) -> None:
        self.database = self.do(self.open_database(Path(self.folder.name)))
        self.owner = ApiKey(id="key", account_id="account", prefix="abcd1234", created_at=NOW, updated_at=NOW)
        self.do(AccountRepository(self.database).add(Account("account", "default", NOW)))
        self.do(KeyRepository(self.database).add(self.owner, "hash"))
        self.do(AccountRepository(self.database).post("account", new_entry(PAID)))
        self.do(register(self.database))
        self.transitions = JobTransitions(self.database)

    def teardown(self) -> None:
        self.do(self.database.close())
        self.runner.close()
        self.folder.cleanup()

    def is_current(self, lease: Job) -> bool:
        return self.states.get(lease.id) == JobState.RUNNING and self.attempts[lease.id] == lease.attempt

    def is_repeated(self, lease: Job, state: JobState, images: Iterable[StoredImage] = ()) -> bool:
        """Return whether the same end was stored before, which counts as stored."""
        end = lease.attempt, state, {image.id for image in images}
        return lease.id in self.states and self.ends.get(lease.id) == end

    def end(self, job_id: str, state: JobState, charge: int = 0, images: Iterable[StoredImage] = ()) -> None:
        self.states[job_id] = state
        self.ends[job_id] = self.attempts[job_id], state, {image.id for image in images}
        self.held.pop(job_id)
        if state == JobState.SUCCEEDED:
            self.charged[job_id] = charge

    @rule(target=jobs, price=st.integers(0, 10), claim=st.sampled_from([None, "a", "b"]))
    def admit(self, price: int, claim: str | None) -> Any:
        job = new_job(self.owner, created_at=self.now, held=price, predicted_s=1.0)
        claimed = IdempotencyClaim(claim, "same") if claim else None
        is_repeated = claim in self.claims
        if not is_repeated and price > PAID - sum(self.charged.values()) - sum(self.held.values()):
            try:
                self.do(self.transitions.admit(job, 1000, claimed))
            except OutOfCredits:
                return multiple()
            raise AssertionError("a job was admitted without credits")
        try:
            admitted = self.do(self.transitions.admit(job, 1000, claimed))
        except JobNotFound:
            # The job of the replayed request has been removed.
            assert is_repeated
            assert self.claims[str(claim)] not in self.states
            return multiple()
        if is_repeated:
            assert admitted.id == self.claims[str(claim)]
            return multiple()
        if claim:
            self.claims[claim] = job.id
        self.states[job.id], self.attempts[job.id], self.held[job.id] = JobState.QUEUED, 0, price
        return admitted.id

    @rule(target=leases)
    def lease(self) -> Any:
        lease = self.do(self.transitions.lease(WORKER, self.now)).job
        if lease is None:
            assert JobState.QUEUED not in self.states.values()
            return multiple()
        assert self.states[lease.id] == JobState.QUEUED
        assert lease.attempt == self.attempts[lease.id] + 1
        self.states[lease.id], self.attempts[lease.id] = JobState.RUNNING, lease.attempt
        return lease

    @rule(lease=leases, charged=st.integers(0, 2), share=st.floats(0, 1))
    def succeed(self, lease: Job, charged: int, share: float) -> None:
        credits_ = int(lease.held * share) if charged else 0
        images = [new_image(lease, position) for position in range(charged)]
        outcome = new_outcome(*images, charged=charged, credits_=credits_)
        is_current, is_repeated = self.is_current(lease), self.is_repeated(lease, JobState.SUCCEEDED, images)
        assert self.do(self.transitions.succeed(lease, self.now, outcome)) == (is_current or is_repeated)
        if is_current:
            self.end(lease.id, JobState.SUCCEEDED, credits_, images)

    @rule(lease=leases)
    def fail(self, lease: Job) -> None:
        is_current, is_repeated = self.is_current(lease), self.is_repeated(lease, JobState.FAILED)
        done = self.do(self.transitions.fail(lease, self.now, GenerationFailed("no")))
        assert done == (is_current or is_repeated)
        if is_current:
            self.end(lease.id, JobState.FAILED)

    @rule(lease=leases)
    def cancel_running(self, lease: Job) -> None:
        is_current, is_repeated = self.is_current(lease), self.is_repeated(lease, JobState.CANCELLED)
        assert self.do(self.transitions.cancel(lease, self.now)) == (is_current or is_repeated)
        if is_current:
            self.end(lease.id, JobState.CANCELLED)

    @rule(lease=leases)
    def requeue(self, lease: Job) -> None:
        self.do(self.transitions.requeue(lease))
        if self.is_current(lease):
            self.states[lease.id] = JobState.QUEUED

    @rule(job_id=jobs)
    def request_cancel(self, job_id: str) -> None:
        before = self.states.get(job_id)
        if before in UNFINISHED:
            job = self.do(self.transitions.request_cancel(job_id, self.now))
            if before == JobState.QUEUED:
                self.end(job_id, JobState.CANCELLED)
            else:
                # The worker handles the cancel request immediately.
                self.do(self.transitions.cancel(replace(job, attempt=self.attempts[job_id]), self.now))
                self.end(job_id, JobState.CANCELLED)
            return
        try:
            self.do(self.transitions.request_cancel(job_id, self.now))
        except (JobFinished, JobNotFound):
            return
        raise AssertionError("a finished job was cancelled")

    @rule(job_id=jobs)
    def remove(self, job_id: str) -> None:
        try:
            self.do(self.transitions.remove(job_id))
        except JobUnfinished:
            assert self.states[job_id] in UNFINISHED
        except JobNotFound:
            assert job_id not in self.states
        else:
            assert self.states.pop(job_id) not in UNFINISHED

    @rule()
    def crash(self) -> None:
        """Recover after a crash: a running job is queued again, or fails after too many crashes."""
        self.do(reap(self.database, MAX_CRASHES, self.now))
        failed = dict(self.rows("SELECT id, state FROM jobs WHERE crashes >= 3"))
        for job_id, state in self.states.items():
            if state == JobState.RUNNING and job_id not in failed:
                self.states[job_id] = JobState.QUEUED
        for job_id in failed:
            if self.states.get(job_id) == JobState.RUNNING:
                self.end(job_id, JobState.FAILED)

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        return self.do(query(self.database, statement))

    @invariant()
    def every_job_has_the_state_of_the_model(self) -> None:
        if hasattr(self, "database"):
            assert dict(self.rows("SELECT id, state FROM jobs")) == self.states

    @invariant()
    def the_money_adds_up(self) -> None:
        if not hasattr(self, "database"):
            return
        [(balance, held, spent, key_held, ledger, usage, count, buckets)] = self.rows(SUMS)
        charged = sum(self.charged.values())
        assert (balance, held) == (PAID - charged, sum(self.held.values()))
        assert (spent, key_held) == (charged, held)
        assert balance - held >= 0
        assert ledger == usage == buckets == charged
        assert count == len(self.attempts) - len(self.held)


SETTINGS = settings(max_examples=15, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("backend", BACKENDS)
def test_jobs_follow_state_machine(backend: str) -> None:
    run_state_machine(BACKENDS[backend])


def test_repeated_transactions_change_nothing_twice() -> None:
    run_state_machine(open_repeating_sqlite)


def run_state_machine(open_database: Any) -> None:
    machine = type("JobMachine", (JobMachine,), {"open_database": staticmethod(open_database)})
    run_state_machine_as_test(machine, settings=SETTINGS)

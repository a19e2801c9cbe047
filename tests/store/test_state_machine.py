"""The job's state machine, played at random against a model of it: whoever comes late changes nothing, and the money
adds up after every move.
"""

import asyncio
import tempfile
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from allaprima.domain.accounts import Account, ApiKey
from allaprima.domain.billing import EntryType
from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.domain.jobs import UNFINISHED, Job, JobState
from allaprima.errors import GenerationFailed, JobFinished, JobNotFound, JobUnfinished, OutOfCredits
from allaprima.store.database import open_database
from allaprima.store.job_transitions import JobTransitions
from allaprima.store.keys import AccountRepository, KeyRepository
from fakes import NOON
from store.made import ask, new_job, outcome, picture

PAID = 60
MAX_CRASHES = 3


class JobMachine(RuleBasedStateMachine):
    """Jobs that cost up to ten credits, of an account that can pay for some of them."""

    jobs = Bundle("jobs")
    #: Jobs as somebody once leased them, current or long overtaken.
    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.now = NOON
        #: What each job's state, attempt and price should be.
        self.states: dict[str, JobState] = {}
        self.attempts: dict[str, int] = {}
        self.held: dict[str, int] = {}
        self.charged: dict[str, int] = {}
        self.claims: dict[str, str] = {}

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    @initialize()
    def open(self) -> None:
        self.database = self.do(open_database(Path(self.folder.name)))
        self.owner = ApiKey("key", "account", None, "abcd1234", NOON, updated_at=NOON)
        self.do(AccountRepository(self.database).add(Account("account", "default", NOON)))
        self.do(KeyRepository(self.database).add(self.owner, "hash"))
        self.do(AccountRepository(self.database).credit("account", EntryType.PAYMENT, PAID, None, NOON))
        self.moves = JobTransitions(self.database)

    def teardown(self) -> None:
        self.do(self.database.close())
        self.runner.close()
        self.folder.cleanup()

    def is_current(self, lease: Job) -> bool:
        return self.states.get(lease.id) == JobState.RUNNING and self.attempts[lease.id] == lease.attempt

    def end(self, job_id: str, state: JobState, charge: int = 0) -> None:
        self.states[job_id] = state
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
                self.do(self.moves.admit(job, 1000, claimed))
            except OutOfCredits:
                return multiple()
            raise AssertionError("it was let in without credits")
        try:
            admitted = self.do(self.moves.admit(job, 1000, claimed))
        except JobNotFound:
            # What an equal request made was removed since.
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
        lease = self.do(self.moves.lease(self.now, self.now + 60))
        if lease is None:
            assert JobState.QUEUED not in self.states.values()
            return multiple()
        assert self.states[lease.id] == JobState.QUEUED
        assert lease.attempt == self.attempts[lease.id] + 1
        self.states[lease.id], self.attempts[lease.id] = JobState.RUNNING, lease.attempt
        return lease

    @rule(lease=leases, images=st.integers(0, 2), share=st.floats(0, 1))
    def succeed(self, lease: Job, images: int, share: float) -> None:
        credits_ = int(lease.held * share) if images else 0
        pictures = [picture(lease, place) for place in range(images)]
        done = self.do(self.moves.succeed(lease, self.now, outcome(*pictures, images=images, credits=credits_)))
        assert done == self.is_current(lease)
        if done:
            self.end(lease.id, JobState.SUCCEEDED, credits_)

    @rule(lease=leases)
    def fail(self, lease: Job) -> None:
        done = self.do(self.moves.fail(lease, self.now, GenerationFailed("no")))
        assert done == self.is_current(lease)
        if done:
            self.end(lease.id, JobState.FAILED)

    @rule(lease=leases)
    def cancel_running(self, lease: Job) -> None:
        done = self.do(self.moves.cancel(lease, self.now))
        assert done == self.is_current(lease)
        if done:
            self.end(lease.id, JobState.CANCELLED)

    @rule(lease=leases)
    def requeue(self, lease: Job) -> None:
        self.do(self.moves.requeue(lease))
        if self.is_current(lease):
            self.states[lease.id] = JobState.QUEUED

    @rule(job_id=jobs)
    def ask_cancel(self, job_id: str) -> None:
        before = self.states.get(job_id)
        if before in UNFINISHED:
            job = self.do(self.moves.ask_cancel(job_id, self.now))
            if before == JobState.QUEUED:
                self.end(job_id, JobState.CANCELLED)
            else:
                # A server that dies now must not paint it again: here the cancel comes through at once.
                self.do(self.moves.cancel(replace(job, attempt=self.attempts[job_id]), self.now))
                self.end(job_id, JobState.CANCELLED)
            return
        try:
            self.do(self.moves.ask_cancel(job_id, self.now))
        except (JobFinished, JobNotFound):
            return
        raise AssertionError("a finished job was cancelled")

    @rule(job_id=jobs)
    def remove(self, job_id: str) -> None:
        try:
            self.do(self.moves.remove(job_id))
        except JobUnfinished:
            assert self.states[job_id] in UNFINISHED
        except JobNotFound:
            assert job_id not in self.states
        else:
            assert self.states.pop(job_id) not in UNFINISHED

    @rule()
    def lapse(self) -> None:
        """Let every lease run out."""
        self.now += 61
        self.do(self.moves.requeue_lapsed(self.now))
        for job_id, state in self.states.items():
            if state == JobState.RUNNING:
                self.states[job_id] = JobState.QUEUED

    @rule()
    def crash(self) -> None:
        """Start anew: what ran waits again, unless it took too many servers down."""
        self.do(self.moves.requeue_all(MAX_CRASHES, self.now))
        failed = dict(self.rows("SELECT id, state FROM jobs WHERE crashes >= 3"))
        for job_id, state in self.states.items():
            if state == JobState.RUNNING and job_id not in failed:
                self.states[job_id] = JobState.QUEUED
        for job_id in failed:
            if self.states.get(job_id) == JobState.RUNNING:
                self.end(job_id, JobState.FAILED)

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        return ask(Path(self.folder.name), statement)

    @invariant()
    def every_job_is_where_the_model_says(self) -> None:
        if hasattr(self, "database"):
            assert dict(self.rows("SELECT id, state FROM jobs")) == self.states

    @invariant()
    def the_money_adds_up(self) -> None:
        if not hasattr(self, "database"):
            return
        [(balance, held)] = self.rows("SELECT balance, held FROM accounts")
        [(spent, key_held)] = self.rows("SELECT spent, held FROM keys")
        charged = sum(self.charged.values())
        assert (balance, held) == (PAID - charged, sum(self.held.values()))
        assert (spent, key_held) == (charged, held)
        assert balance - held >= 0
        [(ledger,)] = self.rows("SELECT coalesce(sum(credits), 0) FROM ledger WHERE direction = 'CHARGE'")
        [(usage, count)] = self.rows("SELECT coalesce(sum(credits), 0), count(*) FROM usage")
        [(slots,)] = self.rows("SELECT coalesce(sum(credits), 0) FROM usage_slots")
        assert ledger == usage == slots == charged
        assert count == len(self.attempts) - len(self.held)


TestJobMachine = JobMachine.TestCase
TestJobMachine.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)

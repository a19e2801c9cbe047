"""The state transitions of a job. Each is one transaction, with the job's images, usage, charge and webhook.

`domain.jobs.JobState` draws the states. Every update is conditional on the state and the attempt that it starts from
(a fencing token), so a late caller such as a paused worker or a second cancel changes nothing.
"""

import logging
from collections.abc import Awaitable, Collection
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Executable, Row, bindparam, delete, exists, insert, select, update
from sqlalchemy.exc import IntegrityError

from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.domain.jobs import UNFINISHED, Job, JobOutcome, JobState
from allaprima.errors import (
    Error,
    GenerationFailed,
    JobFinished,
    JobNotFound,
    JobUnfinished,
    KeyLimitReached,
    OutOfCredits,
    QueueFull,
    StartDeadlineMissed,
    Unauthorized,
)
from allaprima.store import charges, dialect, fair_queue, outbox, workers
from allaprima.store.database import Repository, reads, writes, writes_hot
from allaprima.store.idempotency import claim_resource
from allaprima.store.image_rows import insert_images, remove_images
from allaprima.store.rows import FIND_JOB, JOB_COLUMNS, UNREADABLE, job_from_row, job_values
from allaprima.store.schema import api_keys, cached_results, images, jobs, webhook_deliveries

logger = logging.getLogger(__name__)

# Statements that run for every job are built once. Parameters that are not columns start with an underscore.
_INSERT = insert(jobs)
# The lock makes a transaction that disables or revokes the key wait until the job is stored.
_FIND_VALID_KEY = (
    select(api_keys.c.id)
    .where(api_keys.c.id == bindparam("id"), api_keys.c.revoked_at.is_(None), api_keys.c.is_disabled == 0)
    .with_for_update(read=True, key_share=True)
)
_LOCK_JOB = FIND_JOB.with_for_update()
_TRANSITION = update(jobs).where(*(jobs.c[name] == bindparam(f"_{name}") for name in ("id", "attempt", "state")))


_FIND_END = select(jobs.c.id).where(*(jobs.c[name] == bindparam(name) for name in ("id", "attempt", "state")))


def _build_cached_result(insert_: dialect.Insert) -> Executable:
    newest = {"job_id": insert_.excluded.job_id}
    return insert_.on_conflict_do_update(index_elements=("account_id", "fingerprint"), set_=newest)


_set_cached_result = dialect.upsert(cached_results, _build_cached_result)
_REQUEUED: dict[str, Any] = {"state": JobState.QUEUED.value, "started_at": None, "worker_id": None}

#: Replaces the prompt of a finished job with `store=false`.
NOT_STORED = "(not stored)"


@dataclass(frozen=True, slots=True)
class LeaseOutcome:
    """The result of `JobTransitions.lease`. Without a job and without an ended one, no job is queued for the worker."""

    #: The leased job.
    job: Job | None = None
    #: The job at the head of the queue that could not run and was ended instead, with its final state: cancelled
    #: (client asked) or failed (start deadline missed, row not readable).
    ended: tuple[str, JobState] | None = None
    #: False: the worker was taken for dead, and must register again.
    is_registered: bool = True


class JobTransitions(Repository):
    """Changes the states of jobs. The jobs table is also the queue."""

    async def admit(
        self, job: Job, queue_size: int, claim: IdempotencyClaim | None = None, waits_at: str | None = None
    ) -> Job:
        """Store a new queued job, or return the job that an earlier request with the same idempotency key created.

        waits_at: the worker that alone may run the job; None: any.

        Raises `Unauthorized` if the key is not valid any more, `QueueFull` (its `retry_after_s` is 0; the caller
        estimates it), `OutOfCredits`, `KeyLimitReached` or `IdempotencyMismatch`; then nothing is stored.
        """
        return await self._noticing(job.id, self._store_queued(job, queue_size, claim, waits_at))

    async def admit_finished(self, job: Job, outcome: JobOutcome, claim: IdempotencyClaim | None = None) -> Job:
        """Store a job whose result is cached: queued -> succeeded in one transaction, even if the queue is full.

        Raises the errors of `admit` except `QueueFull`.
        """
        return await self._noticing(job.id, self._store_finished(job, outcome, claim))

    async def _noticing(self, job_id: str, storing: Awaitable[Job]) -> Job:
        """Store a job; return the stored one if the answer to the first commit was lost and the repetition failed.

        The repetition violates the primary key, or finds the queue full or the credits spent by its own first commit.
        """
        try:
            return await storing
        except (IntegrityError, QueueFull, OutOfCredits, KeyLimitReached, Unauthorized) as exc:
            may_be_stored = self._database.is_shared or isinstance(exc, IntegrityError)
            if may_be_stored and (stored := await self._find_stored(job_id)) is not None:
                return stored
            raise

    @writes_hot
    def _store_queued(
        self, connection: Connection, job: Job, queue_size: int, claim: IdempotencyClaim | None, waits_at: str | None
    ) -> Job:
        job_id = _admit(connection, job, claim, queue_size, waits_at)
        return job if job_id == job.id else _find(connection, job_id)

    @reads
    def _find_stored(self, connection: Connection, job_id: str) -> Job | None:
        row = connection.execute(FIND_JOB, {"id": job_id}).first()
        return None if row is None else job_from_row(row)

    @writes_hot
    def _store_finished(
        self, connection: Connection, job: Job, outcome: JobOutcome, claim: IdempotencyClaim | None
    ) -> Job:
        job_id = _admit(connection, job, claim, None)
        if job_id == job.id:
            _succeed(connection, job, job.created_at, outcome)
        return _find(connection, job_id)

    @writes
    def lease(self, connection: Connection, worker_id: str, now: float) -> LeaseOutcome:
        """queued -> running: lease the next job of the queue to a worker and increment its attempt.

        A job at the head of the queue that can't run is ended instead: one past its start deadline or unreadable as
        failed; one that a client cancelled, or an interrupted one with `store=false`, as cancelled. Each is a
        transaction of its own, so that no other lease waits for its key.
        """
        if not workers.lock_registered(connection, worker_id):
            return LeaseOutcome(is_registered=False)
        row = fair_queue.take_next(connection, worker_id)
        if row is None:
            return LeaseOutcome()
        try:
            job = job_from_row(row)
        except UNREADABLE as exc:
            logger.warning("job %s fails: its stored request is not readable: %s", row.id, exc)
            fail_unreadable(connection, row, now)
            return LeaseOutcome(ended=(row.id, JobState.FAILED))
        if job.cancel_asked_at is not None or (job.attempt > 0 and not job.options.store):
            end_job(connection, job, JobState.CANCELLED, now)
            return LeaseOutcome(ended=(job.id, JobState.CANCELLED))
        if job.start_by is not None and job.start_by < now:
            end_job(connection, job, JobState.FAILED, now, error=StartDeadlineMissed())
            return LeaseOutcome(ended=(job.id, JobState.FAILED))
        return LeaseOutcome(_lease(connection, job, worker_id, now))

    @writes
    def requeue(self, connection: Connection, job: Job) -> None:
        """running -> queued, for a job that the server interrupted."""
        requeue_job(connection, job)

    @writes
    def requeue_lost(self, connection: Connection, worker_id: str, job_ids: Collection[str]) -> int:
        """running -> queued for jobs that are leased to a worker without its knowledge; return their number.

        That is so when the answer to a lease was lost.
        """
        lost = (fair_queue.RUNNING, jobs.c.worker_id == worker_id, jobs.c.id.in_(job_ids))
        return connection.execute(update(jobs).where(*lost).values(**_REQUEUED)).rowcount

    @writes_hot
    def succeed(self, connection: Connection, job: Job, now: float, outcome: JobOutcome) -> bool:
        """running -> succeeded, with the images, the usage, the charge and the webhook, in one transaction.

        Returns False, and changes nothing, when `job.attempt` is not the current attempt.
        """
        return job.state == JobState.RUNNING and _succeed(connection, job, now, outcome)

    @writes_hot
    def fail(self, connection: Connection, job: Job, now: float, error: Error, compute_s: float = 0.0) -> bool:
        """running -> failed, with the error. Returns False, and changes nothing, when the attempt is not current.

        compute_s: seconds that the engine generated.
        """
        is_running = job.state == JobState.RUNNING
        return is_running and end_job(connection, job, JobState.FAILED, now, error=error, compute_s=compute_s)

    @writes_hot
    def cancel(self, connection: Connection, job: Job, now: float, compute_s: float = 0.0) -> bool:
        """running -> cancelled. Returns False, and changes nothing, when the attempt is not current.

        compute_s: seconds that the engine generated.
        """
        is_running = job.state == JobState.RUNNING
        return is_running and end_job(connection, job, JobState.CANCELLED, now, compute_s=compute_s)

    @writes
    def request_cancel(self, connection: Connection, job_id: str, now: float) -> Job:
        """Cancel a queued job, or mark a running one, which is then not requeued after a crash; return the updated job.

        Raises `JobFinished` for a finished job and `JobNotFound` for an unknown one.
        """
        job = _find(connection, job_id, is_locked=True)
        if job.is_finished:
            raise JobFinished(job.state.value)
        connection.execute(update(jobs).where(jobs.c.id == job_id).values(cancel_asked_at=now))
        if job.state == JobState.QUEUED:
            end_job(connection, job, JobState.CANCELLED, now)
        return _find(connection, job_id)

    @writes
    def cancel_all(self, connection: Connection, account_id: str, now: float) -> None:
        """queued, running -> cancelled for all jobs of an account, while no server runs them."""
        unfinished = jobs.c.account_id == account_id, jobs.c.state.in_(UNFINISHED)
        locked = select(*JOB_COLUMNS).where(*unfinished).order_by(jobs.c.id).with_for_update()
        for row in connection.execute(locked).all():
            try:
                job = job_from_row(row)
            except UNREADABLE:
                fail_unreadable(connection, row, now)
            else:
                end_job(connection, job, JobState.CANCELLED, now)

    async def fail_missed_starts(self, now: float) -> list[str]:
        """queued -> failed for jobs whose start deadline has passed; return their ids."""
        # This runs often, so a read decides whether a writing transaction is needed.
        if not await self._has_missed_starts(now):
            return []
        failed = ended = await self._fail_missed_starts(now)
        while ended and self._database.is_shared:
            ended = await self._fail_missed_starts(now)
            failed += ended
        return failed

    @reads
    def _has_missed_starts(self, connection: Connection, now: float) -> bool:
        late = select(jobs.c.id).where(fair_queue.QUEUED, jobs.c.start_by.is_not(None), jobs.c.start_by <= now)
        return connection.execute(late.limit(1)).first() is not None

    @writes
    def _fail_missed_starts(self, connection: Connection, now: float) -> list[str]:
        late = select(*JOB_COLUMNS).where(fair_queue.QUEUED, jobs.c.start_by.is_not(None), jobs.c.start_by <= now)
        if not dialect.has_one_writer(connection):
            # One at a time: a transaction that ends jobs of two keys could meet one that ends them in the other order.
            late = late.limit(1).with_for_update(skip_locked=True)
        failed = []
        for row in connection.execute(late).all():
            try:
                job = job_from_row(row)
            except UNREADABLE:
                fail_unreadable(connection, row, now)
            else:
                end_job(connection, job, JobState.FAILED, now, error=StartDeadlineMissed())
            failed.append(row.id)
        return failed

    @writes
    def remove(self, connection: Connection, job_id: str) -> list[str]:
        """Remove a finished job and the rows of its images; return the names of the files, which the caller removes.

        The usage and ledger rows of the job remain. Raises `JobUnfinished` for a job that is queued or running.
        """
        job = _find(connection, job_id, is_locked=True)
        if not job.is_finished:
            raise JobUnfinished(job.state.value)
        return remove_jobs(connection, [job_id])

    @writes
    def remove_old(self, connection: Connection, before: float, limit: int) -> tuple[int, list[str]]:
        """Remove at most `limit` jobs that finished before a time, unix seconds, as `remove` does.

        A job with a starred image stays. Returns their number and the names of the files.
        """
        # In the order of ids, which is that of creation, so that no index over the times is needed.
        has_star = exists().where(images.c.job_id == jobs.c.id, images.c.is_starred != 0)
        is_old = jobs.c.state.not_in(UNFINISHED), jobs.c.finished_at < before, ~has_star
        found = select(jobs.c.id).where(*is_old).order_by(jobs.c.id).limit(limit).with_for_update(skip_locked=True)
        old = list(connection.execute(found).scalars())
        if not dialect.has_one_writer(connection):
            # An image may have been starred before its row was locked.
            own = select(images.c.job_id, images.c.is_starred).where(images.c.job_id.in_(old)).order_by(images.c.id)
            starred = {job_id for job_id, is_starred in connection.execute(own.with_for_update()) if is_starred}
            old = [job_id for job_id in old if job_id not in starred]
        return len(old), remove_jobs(connection, old)


def remove_jobs(connection: Connection, job_ids: list[str]) -> list[str]:
    """Remove finished jobs with their images, cached results and webhooks; return the names of the images' files."""
    found = remove_images(connection, images.c.job_id.in_(job_ids))
    for table in (cached_results, webhook_deliveries):
        connection.execute(delete(table).where(table.c.job_id.in_(job_ids)))
    connection.execute(delete(jobs).where(jobs.c.id.in_(job_ids)))
    return found


def _admit(
    connection: Connection,
    job: Job,
    claim: IdempotencyClaim | None,
    queue_size: int | None,
    waits_at: str | None = None,
) -> str:
    """Store a new job, its credit hold and its idempotency record; return its id.

    If an earlier request with the same idempotency key created a job, nothing is stored and that job's id is returned.
    """
    if claim and (job_id := claim_resource(connection, job.account_id, claim, job.id, job.created_at)):
        return job_id
    _check_queue(connection, queue_size)
    # The key may have been disabled or revoked since the request was authenticated, while its body was received.
    if connection.execute(_FIND_VALID_KEY, {"id": job.key_id}).first() is None:
        raise Unauthorized
    charges.hold(connection, job.account_id, job.key_id, job.held, job.created_at)
    if job.options.webhook_url:
        outbox.add_endpoint(connection, job.account_id, job.options.webhook_url, job.created_at)
    # The last lock, which all admissions share. A finished job needs none: no other transaction sees it in the queue.
    if queue_size is not None and dialect.lock(connection, "admission"):
        _check_queue(connection, queue_size)
    queue, priority = fair_queue.lane(job.options.priority)
    in_queue = {
        "group_id": job.options.group_id,
        "queue": queue,
        "priority": priority,
        "waits_at": waits_at,
        "turn": fair_queue.next_turn(connection, job.key_id, queue, job.predicted_s),
    }
    connection.execute(_INSERT, job_values(job) | in_queue)
    return job.id


def _check_queue(connection: Connection, queue_size: int | None) -> None:
    if queue_size is not None and fair_queue.has_unfinished(connection, queue_size):
        raise QueueFull(retry_after_s=0)


def _lease(connection: Connection, job: Job, worker_id: str, now: float) -> Job:
    # The deadline applies to the first attempt only.
    leased = replace(job, state=JobState.RUNNING, started_at=now, attempt=job.attempt + 1, start_by=None)
    values = {name: getattr(leased, name) for name in ("started_at", "attempt", "start_by")}
    values |= {"state": leased.state.value, "worker_id": worker_id}
    connection.execute(_TRANSITION, _fence(job) | values)
    return leased


def requeue_job(connection: Connection, job: Job) -> None:
    """Put a running job back into the queue, at its turn."""
    connection.execute(_TRANSITION, _fence(job) | _REQUEUED)


def _succeed(connection: Connection, job: Job, now: float, outcome: JobOutcome) -> bool:
    if not end_job(connection, job, JobState.SUCCEEDED, now, outcome=outcome):
        return False
    if outcome.fingerprint:
        newest = {"account_id": job.account_id, "fingerprint": outcome.fingerprint, "job_id": job.id}
        connection.execute(_set_cached_result(connection), newest)
    return True


def end_job(
    connection: Connection,
    job: Job,
    state: JobState,
    now: float,
    *,
    outcome: JobOutcome | None = None,
    error: Error | None = None,
    compute_s: float = 0.0,
) -> bool:
    """Move a job into a final state, settle its charge, insert its images and queue its webhook.

    compute_s: seconds that the engine generated, for a job without an outcome, whose timings have them. Returns False,
    and changes nothing, when the job's state or attempt has changed, unless this very change was made before and the
    answer to its commit was lost.
    """
    values: dict[str, Any] = {
        "state": state.value,
        "finished_at": now,
        "held": 0,
        "error_code": error.code if error else None,
        "error_message": error.message if error else None,
    }
    if outcome:
        values["result"] = outcome.result.model_dump(mode="json")
    if not job.options.store:
        values["request"] = job.request.changed(prompt=NOT_STORED).model_dump(mode="json")
    if connection.execute(_TRANSITION, _fence(job) | values).rowcount != 1:
        return _has_ended(connection, job, state, outcome)
    if outcome:
        compute_s = outcome.result.timings.total
    charge = replace(_charge(job, state, now, outcome), compute_s=compute_s)
    charges.capture(connection, charge, now)
    if outcome:
        insert_images(connection, job, outcome.images)
    charges.record_usage(connection, charge, now)
    if job.options.webhook_url:
        outbox.enqueue(connection, job, state, now)
    return True


def _has_ended(connection: Connection, job: Job, state: JobState, outcome: JobOutcome | None) -> bool:
    """Return whether this attempt has already ended in this way. Only the holder of an attempt ends a job in it."""
    own = {"id": job.id, "attempt": job.attempt, "state": state.value}
    if connection.execute(_FIND_END, own).first() is None:
        return False
    stored = set(connection.execute(select(images.c.id).where(images.c.job_id == job.id)).scalars())
    return outcome is None or stored == {image.id for image in outcome.images}


def fail_unreadable(connection: Connection, row: Row[Any], now: float) -> None:
    """Fail a job whose row can't be parsed, and release its hold. No webhook is sent: its options are not readable.

    The caller has locked the row.
    """
    connection.execute(
        update(jobs)
        .where(jobs.c.id == row.id)
        .values(
            state=JobState.FAILED.value,
            finished_at=now,
            held=0,
            error_code=GenerationFailed.code,
            error_message="this version of the server can't read the stored request",
        )
    )
    model = row.request.get("model") if isinstance(row.request, dict) else None
    charge = charges.Charge(
        job_id=row.id,
        account_id=row.account_id,
        key_id=row.key_id,
        model=str(model),
        state=JobState.FAILED,
        images=0,
        megapixels=0.0,
        credits=0,
        held=row.held,
        source="api",
        client_request_id=None,
        duration_s=max(0.0, now - row.created_at),
    )
    charges.capture(connection, charge, now)
    charges.record_usage(connection, charge, now)


def _find(connection: Connection, job_id: str, *, is_locked: bool = False) -> Job:
    row = connection.execute(_LOCK_JOB if is_locked else FIND_JOB, {"id": job_id}).first()
    if row is None:
        raise JobNotFound
    return job_from_row(row)


def _fence(job: Job) -> dict[str, Any]:
    """Return the parameters of `_TRANSITION` that match the job only in its current state and attempt."""
    return {"_id": job.id, "_attempt": job.attempt, "_state": job.state.value}


def _charge(job: Job, state: JobState, now: float, outcome: JobOutcome | None) -> charges.Charge:
    return charges.Charge(
        job_id=job.id,
        account_id=job.account_id,
        key_id=job.key_id,
        model=job.options.model,
        state=state,
        images=outcome.charged if outcome else 0,
        megapixels=outcome.megapixels if outcome else 0.0,
        credits=outcome.result.credits if outcome else 0,
        held=job.held,
        source=job.options.source,
        client_request_id=job.options.client_request_id,
        duration_s=max(0.0, now - job.created_at),
    )

"""Every change of a job's state, each in one transaction with all that belongs to it: images, usage, charge, webhook.

The states are drawn at `domain.jobs.JobState`. A change names the state and the attempt that it starts from, so that a
late caller (a paused worker, a second cancel) changes nothing.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.domain.jobs import Job, JobOutcome, JobState
from allaprima.errors import (
    Error,
    GenerationFailed,
    JobFinished,
    JobNotFound,
    JobUnfinished,
    QueueFull,
    StartDeadlineMissed,
)
from allaprima.store import charges, fair_queue, outbox
from allaprima.store.database import Repository, reads, writes
from allaprima.store.idempotency import find_resource, keep_resource
from allaprima.store.rows import FIND_JOB, JOB_COLUMNS, UNREADABLE, image_values, job_from_row, job_values
from allaprima.store.schema import cached_results, images, jobs, webhook_deliveries

logger = logging.getLogger(__name__)

# Built once, since they run at every job; parameters that are not columns start with an underscore.
_INSERT = insert(jobs)
_MOVE = update(jobs).where(*(jobs.c[name] == bindparam(f"_{name}") for name in ("id", "attempt", "state")))
_INSERT_IMAGES = insert(images)
_FORGET_RESULT = delete(cached_results).where(
    *(cached_results.c[name] == bindparam(name) for name in ("account_id", "fingerprint"))
)
_KEEP_RESULT = insert(cached_results)
_BACK_IN_QUEUE: dict[str, Any] = {"state": JobState.QUEUED.value, "started_at": None, "leased_until": None}

#: In place of the prompt of a job with `store=false` that has ended.
NOT_STORED = "(not stored)"


@dataclass(frozen=True, slots=True)
class LeaseOutcome:
    """What a lease found."""

    #: The job that was leased; None where none waits.
    job: Job | None
    #: Jobs that ended on the way, and how: cancelled, past their start deadline, or not readable.
    ended: tuple[tuple[str, JobState], ...] = ()


class JobTransitions(Repository):
    """Moves jobs from state to state. The database is the queue."""

    @writes
    def admit(self, connection: Connection, job: Job, queue_size: int, claim: IdempotencyClaim | None = None) -> Job:
        """Store a new queued job, or return the one that an equal request created before.

        Raises `QueueFull` (the caller knows the time to wait), `OutOfCredits`, `KeyLimitReached` or
        `IdempotencyMismatch`; then nothing is stored.
        """
        made = _admit(connection, job, claim, queue_size)
        return job if made == job.id else _find(connection, made)

    @writes
    def admit_finished(
        self, connection: Connection, job: Job, outcome: JobOutcome, claim: IdempotencyClaim | None = None
    ) -> Job:
        """Store a job that the result cache answers: queued -> succeeded at once, whatever the queue holds.

        Raises what `admit` does except `QueueFull`.
        """
        made = _admit(connection, job, claim, None)
        if made == job.id:
            _succeed(connection, job, job.created_at, outcome)
        return _find(connection, made)

    @writes
    def lease(self, connection: Connection, now: float, leased_until: float) -> LeaseOutcome:
        """queued -> running: lease the job whose turn it is, if one waits, and count the attempt.

        Jobs that can't run end on the way: past their start deadline or not readable, failed; cancelled, if asked.
        """
        ended: list[tuple[str, JobState]] = []
        while (row := fair_queue.take_next(connection)) is not None:
            try:
                job = job_from_row(row)
            except UNREADABLE as exc:
                logger.warning("job %s: its stored request can't be read: %s", row.id, exc)
                _fail_unreadable(connection, row, now)
                ended.append((row.id, JobState.FAILED))
                continue
            if job.cancel_asked_at is not None or (job.attempt > 0 and not job.options.store):
                _end(connection, job, JobState.CANCELLED, now)
                ended.append((job.id, JobState.CANCELLED))
            elif job.start_by is not None and job.start_by < now:
                _end(connection, job, JobState.FAILED, now, error=StartDeadlineMissed())
                ended.append((job.id, JobState.FAILED))
            else:
                return LeaseOutcome(_lease(connection, job, now, leased_until), tuple(ended))
        return LeaseOutcome(None, tuple(ended))

    @writes
    def renew(self, connection: Connection, leased: Iterable[Job], leased_until: float) -> None:
        """Extend the leases of these jobs."""
        for job in leased:
            connection.execute(_MOVE, _fence(job) | {"leased_until": leased_until})

    @writes
    def requeue(self, connection: Connection, job: Job) -> None:
        """running -> queued, for a job whose attempt the server itself interrupted."""
        connection.execute(_MOVE, _fence(job) | _BACK_IN_QUEUE)

    @writes
    def requeue_expired(self, connection: Connection, now: float) -> int:
        """running -> queued for jobs whose lease has expired; return how many."""
        expired = (fair_queue.RUNNING, jobs.c.leased_until < now)
        return connection.execute(update(jobs).where(*expired).values(**_BACK_IN_QUEUE)).rowcount

    @writes
    def recover(self, connection: Connection, max_crashes: int, now: float, max_concurrency: int = 1) -> int:
        """At start: requeue what a dead server left running; fail it after too many crashes, cancel it if asked.

        Jobs with `store=false` are cancelled, queued ones too: their clients' connections ended with that server.
        max_concurrency: how many jobs that server generated at a time. Returns how many jobs were requeued.
        """
        # The engine works in the order of the leases; the others only waited there.
        in_order = select(jobs.c.id).order_by(jobs.c.started_at, jobs.c.turn, jobs.c.id)
        begun = in_order.where(fair_queue.RUNNING).limit(max_concurrency)
        connection.execute(update(jobs).where(jobs.c.id.in_(begun)).values(crashes=jobs.c.crashes + 1))
        requeued = 0
        is_ephemeral = jobs.c.options["store"].as_boolean().is_(False)
        # Two queries, each by its index.
        left = [
            row
            for condition in (fair_queue.RUNNING, fair_queue.QUEUED & is_ephemeral)
            for row in connection.execute(select(*JOB_COLUMNS).where(condition, jobs.c.queue.in_(fair_queue.QUEUES)))
        ]
        for row in left:
            try:
                job = job_from_row(row)
            except UNREADABLE:
                _fail_unreadable(connection, row, now)
                continue
            if job.cancel_asked_at is not None or not job.options.store:
                _end(connection, job, JobState.CANCELLED, now)
            elif job.crashes >= max_crashes:
                error = GenerationFailed(f"the server died {max_crashes} times while it generated this")
                _end(connection, job, JobState.FAILED, now, error=error)
            else:
                connection.execute(_MOVE, _fence(job) | _BACK_IN_QUEUE)
                requeued += 1
        return requeued

    @writes
    def succeed(self, connection: Connection, job: Job, now: float, outcome: JobOutcome) -> bool:
        """running -> succeeded, with the images, the usage, the charge and the webhook, in one transaction.

        Returns False, and changes nothing, when the attempt is no longer the current one.
        """
        return job.state == JobState.RUNNING and _succeed(connection, job, now, outcome)

    @writes
    def fail(self, connection: Connection, job: Job, now: float, error: Error) -> bool:
        """running -> failed, with the reason. Returns False when the job has moved on."""
        return job.state == JobState.RUNNING and _end(connection, job, JobState.FAILED, now, error=error)

    @writes
    def cancel(self, connection: Connection, job: Job, now: float) -> bool:
        """running -> cancelled. Returns False when the job has moved on."""
        return job.state == JobState.RUNNING and _end(connection, job, JobState.CANCELLED, now)

    @writes
    def request_cancel(self, connection: Connection, job_id: str, now: float) -> Job:
        """Cancel a queued job, or mark a running one, which then is not resumed after a crash; return it as it then is.

        Raises `JobFinished` for a finished one.
        """
        job = _find(connection, job_id)
        if job.is_finished:
            raise JobFinished(job.state.value)
        connection.execute(update(jobs).where(jobs.c.id == job_id).values(cancel_asked_at=now))
        if job.state == JobState.QUEUED:
            _end(connection, job, JobState.CANCELLED, now)
        return _find(connection, job_id)

    async def fail_missed_starts(self, now: float) -> list[str]:
        """queued -> failed for jobs whose start deadline has passed; return their ids."""
        # Polled often: the writer is only asked for where there is something to write.
        return await self._fail_missed_starts(now) if await self._has_missed_starts(now) else []

    @reads
    def _has_missed_starts(self, connection: Connection, now: float) -> bool:
        late = select(jobs.c.id).where(fair_queue.QUEUED, jobs.c.start_by.is_not(None), jobs.c.start_by <= now)
        return connection.execute(late.limit(1)).first() is not None

    @writes
    def _fail_missed_starts(self, connection: Connection, now: float) -> list[str]:
        late = select(*JOB_COLUMNS).where(fair_queue.QUEUED, jobs.c.start_by.is_not(None), jobs.c.start_by <= now)
        failed = []
        for row in connection.execute(late).all():
            try:
                job = job_from_row(row)
            except UNREADABLE:
                _fail_unreadable(connection, row, now)
            else:
                _end(connection, job, JobState.FAILED, now, error=StartDeadlineMissed())
            failed.append(row.id)
        return failed

    @writes
    def remove(self, connection: Connection, job_id: str) -> list[str]:
        """Remove a finished job and its images' rows; return the names of the files, to be removed next.

        The usage and the ledger keep what it cost. Raises `JobUnfinished` for one that is not finished.
        """
        job = _find(connection, job_id)
        if not job.is_finished:
            raise JobUnfinished(job.state.value)
        names = select(images.c.object_name).where(images.c.job_id == job_id)
        found = list(connection.execute(names).scalars())
        for table in (images, cached_results, webhook_deliveries):
            connection.execute(delete(table).where(table.c.job_id == job_id))
        connection.execute(delete(jobs).where(jobs.c.id == job_id))
        return found


def _admit(connection: Connection, job: Job, claim: IdempotencyClaim | None, queue_size: int | None) -> str:
    """Store a new job, its hold and its claim; return its id, or that of the job which an equal request created."""
    if claim and (made := find_resource(connection, job.account_id, claim, job.created_at)):
        return made
    if queue_size is not None and fair_queue.count_unfinished(connection) >= queue_size:
        raise QueueFull(retry_after_s=0)
    charges.hold(connection, job.account_id, job.key_id, job.held, job.created_at)
    queue, priority = fair_queue.lane(job.options.priority)
    in_queue = {
        "group_id": job.options.group_id,
        "queue": queue,
        "priority": priority,
        "turn": fair_queue.next_turn(connection, job.key_id, queue, job.predicted_s),
    }
    connection.execute(_INSERT, job_values(job) | in_queue)
    if claim:
        keep_resource(connection, job.account_id, claim, job.id, job.created_at)
    return job.id


def _lease(connection: Connection, job: Job, now: float, leased_until: float) -> Job:
    # The start deadline is met: a later attempt has none to miss.
    leased = replace(job, state=JobState.RUNNING, started_at=now, attempt=job.attempt + 1, start_by=None)
    values = {name: getattr(leased, name) for name in ("started_at", "attempt", "start_by")}
    values |= {"state": leased.state.value, "leased_until": leased_until}
    connection.execute(_MOVE, _fence(job) | values)
    return leased


def _succeed(connection: Connection, job: Job, now: float, outcome: JobOutcome) -> bool:
    if not _end(connection, job, JobState.SUCCEEDED, now, outcome=outcome):
        return False
    if outcome.images:
        connection.execute(_INSERT_IMAGES, [image_values(image) for image in outcome.images])
    if outcome.fingerprint:
        key = {"account_id": job.account_id, "fingerprint": outcome.fingerprint}
        connection.execute(_FORGET_RESULT, key)
        connection.execute(_KEEP_RESULT, key | {"job_id": job.id})
    return True


def _end(
    connection: Connection,
    job: Job,
    state: JobState,
    now: float,
    *,
    outcome: JobOutcome | None = None,
    error: Error | None = None,
) -> bool:
    """The one way of a readable job into a final state: the job, its usage and charge, and its webhook."""
    values: dict[str, Any] = {
        "state": state.value,
        "finished_at": now,
        "held": 0,
        "leased_until": None,
        "error_code": error.code if error else None,
        "error_message": error.message if error else None,
    }
    if outcome:
        values["result"] = outcome.result.model_dump(mode="json")
    if not job.options.store:
        values["request"] = job.request.changed(prompt=NOT_STORED).model_dump(mode="json")
    if connection.execute(_MOVE, _fence(job) | values).rowcount != 1:
        return False
    charges.settle(connection, _charge(job, state, now, outcome), now)
    if job.options.webhook_url:
        outbox.enqueue(connection, job, state, now)
    return True


def _fail_unreadable(connection: Connection, row: Row[Any], now: float) -> None:
    """Fail a job by its row alone, and release what is held. No webhook is sent: its options can't be trusted."""
    connection.execute(
        update(jobs)
        .where(jobs.c.id == row.id)
        .values(
            state=JobState.FAILED.value,
            finished_at=now,
            held=0,
            error_code=GenerationFailed.code,
            error_message="the stored request can't be read by this version of the server",
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
    charges.settle(connection, charge, now)


def _find(connection: Connection, job_id: str) -> Job:
    row = connection.execute(FIND_JOB, {"id": job_id}).first()
    if row is None:
        raise JobNotFound
    return job_from_row(row)


def _fence(job: Job) -> dict[str, Any]:
    """Return the parameters by which `_MOVE` finds the job while no other transition has moved it."""
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

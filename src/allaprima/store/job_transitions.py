"""Every change of a job's state, each in one transaction with all that belongs to it: pictures, usage, charge, webhook.

The states are drawn in `schema.JobState`. A change asks for the state and the attempt that it starts from, so that
whoever comes late (a worker that was paused, a second cancel) changes nothing.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
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
from allaprima.store.database import Database, writes
from allaprima.store.idempotency import find_claim, keep_claim
from allaprima.store.rows import FIND_JOB, JOB_COLUMNS, image_values, job_from_row
from allaprima.store.schema import deliveries, images, jobs, results

logger = logging.getLogger(__name__)

# What happens at every job is put together once; parameters that are no column's begin with an underscore.
_INSERT = insert(jobs)
_MOVE = update(jobs).where(*(jobs.c[name] == bindparam(f"_{name}") for name in ("id", "attempt", "state")))
_INSERT_IMAGES = insert(images)
_FORGET_RESULT = delete(results).where(*(results.c[name] == bindparam(name) for name in ("account_id", "fingerprint")))
_KEEP_RESULT = insert(results)

#: Stands where a prompt was that nobody may keep.
NOT_KEPT = "(not kept)"


#: Hears of a job that has ended, and how.
OnEnd = Callable[[str, JobState], None]


def _ignore(_job_id: str, _state: JobState) -> None:
    """Nobody waits for it."""


class Transitions:
    """Moves jobs from state to state. The database is the fair_queue."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # Coming in --------------------------------------------------------------------------------------------------

    @writes
    def admit(self, connection: Connection, job: Job, queue_size: int, claim: IdempotencyClaim | None = None) -> Job:
        """Store a new queued job, or return the one that an equal request made before.

        Raises `QueueFull` (with no time to wait: the caller knows it), `OutOfCredits`, `KeyLimitReached` or
        `IdempotencyMismatch`; then nothing is stored.
        """
        made = self._let_in(connection, job, claim, queue_size)
        return job if made == job.id else _find(connection, made)

    @writes
    def admit_finished(
        self, connection: Connection, job: Job, outcome: JobOutcome, claim: IdempotencyClaim | None = None
    ) -> Job:
        """Store a job that needs no painting, and so no room: queued -> succeeded at once.

        Raises what `admit` does but `QueueFull`.
        """
        made = self._let_in(connection, job, claim, None)
        if made == job.id:
            self._succeed(connection, job, job.created_at, outcome)
        return _find(connection, made)

    def _let_in(self, connection: Connection, job: Job, claim: IdempotencyClaim | None, queue_size: int | None) -> str:
        """Store a new job, its hold and its claim; return its id, or that of the job that the claim stands for."""
        if claim and (made := find_claim(connection, job.account_id, claim, job.created_at)):
            return made
        if queue_size is not None and fair_queue.count_unfinished(connection) >= queue_size:
            raise QueueFull(retry_after_s=0)
        charges.hold(connection, job.account_id, job.key_id, job.held, job.created_at)
        self._insert(connection, job)
        if claim:
            keep_claim(connection, job.account_id, claim, job.id, job.created_at)
        return job.id

    def _insert(self, connection: Connection, job: Job) -> None:
        queue_number, priority = fair_queue.lane(job.terms.priority)
        values = {
            "id": job.id,
            "account_id": job.account_id,
            "key_id": job.key_id,
            "state": job.state.value,
            "request": job.request.to_json(),
            "created_at": job.created_at,
            "terms": job.terms.to_json(),
            "group_id": job.terms.group_id,
            "fair_queue": queue_number,
            "priority": priority,
            "turn": fair_queue.next_turn(connection, job.key_id, queue_number, job.predicted_s),
            "predicted_s": job.predicted_s,
            "start_by": job.start_by,
            "held": job.held,
        }
        connection.execute(_INSERT, values)

    # Being carried ----------------------------------------------------------------------------------------------

    async def lease(self, now: float, leased_until: float, on_end: OnEnd = _ignore) -> Job | None:
        """queued -> running: take the job whose turn it is, if one waits, and count the attempt.

        A job whose time to start is over, or whose request this version can't read, fails on the way, and one that is
        to be cancelled is; on_end hears of those.
        """
        ended: list[tuple[str, JobState]] = []
        job = await self._lease(now, leased_until, ended)
        for job_id, state in ended:
            on_end(job_id, state)
        return job

    @writes
    def _lease(
        self, connection: Connection, now: float, leased_until: float, ended: list[tuple[str, JobState]]
    ) -> Job | None:
        while (row := fair_queue.take_next(connection)) is not None:
            try:
                job = job_from_row(row)
            except (Error, LookupError, TypeError, ValueError) as exc:
                logger.warning("job %s: its stored request can't be read: %s", row.id, exc)
                self._fail_unreadable(connection, row, now)
                ended.append((row.id, JobState.FAILED))
                continue
            if job.cancel_asked_at is not None or (job.attempt > 0 and not job.terms.is_kept):
                self._end(connection, job, JobState.CANCELLED, now)
                ended.append((job.id, JobState.CANCELLED))
                continue
            if job.start_by is not None and job.start_by < now:
                self._end(connection, job, JobState.FAILED, now, error=StartDeadlineMissed())
                ended.append((job.id, JobState.FAILED))
                continue
            # Its time to start is kept: whoever takes it up again has nothing to miss.
            leased = replace(job, state=JobState.RUNNING, started_at=now, attempt=job.attempt + 1, start_by=None)
            values = {name: getattr(leased, name) for name in ("started_at", "attempt", "start_by")}
            values |= {"state": leased.state.value, "leased_until": leased_until}
            connection.execute(_MOVE, _fence(job) | values)
            return leased
        return None

    @writes
    def renew(self, connection: Connection, leased: Iterable[Job], leased_until: float) -> None:
        """Say that the engine still works on these."""
        for job in leased:
            connection.execute(_MOVE, _fence(job) | {"leased_until": leased_until})

    @writes
    def requeue(self, connection: Connection, job: Job) -> None:
        """running -> queued, for a job whose attempt was interrupted by the server itself."""
        connection.execute(_MOVE, _fence(job) | _BACK_IN_QUEUE)

    @writes
    def requeue_lapsed(self, connection: Connection, now: float) -> int:
        """running -> queued for jobs whose lease is over; return how many."""
        lapsed = (jobs.c.state == JobState.RUNNING.value, jobs.c.leased_until < now)
        return connection.execute(update(jobs).where(*lapsed).values(**_BACK_IN_QUEUE)).rowcount

    @writes
    def requeue_all(self, connection: Connection, max_crashes: int, now: float, abreast: int = 1) -> int:
        """At start: running -> queued for what a dead server left; failed after too many crashes, cancelled if asked.

        abreast: how many it painted at a time. Returns how many jobs wait again.
        """
        left = jobs.c.state == JobState.RUNNING.value
        # The engine paints in the order of the leases; the others only waited there.
        painted = select(jobs.c.id).where(left).order_by(jobs.c.started_at, jobs.c.turn, jobs.c.id).limit(abreast)
        connection.execute(update(jobs).where(jobs.c.id.in_(painted)).values(crashes=jobs.c.crashes + 1))
        again = 0
        for row in connection.execute(select(*JOB_COLUMNS).where(left)).all():
            try:
                job = job_from_row(row)
            except (Error, LookupError, TypeError, ValueError):
                self._fail_unreadable(connection, row, now)
                continue
            # Whoever waited for what nobody keeps is gone.
            if job.cancel_asked_at is not None or not job.terms.is_kept:
                self._end(connection, job, JobState.CANCELLED, now)
            elif job.crashes >= max_crashes:
                error = GenerationFailed(f"the server died {max_crashes} times while it painted this")
                self._end(connection, job, JobState.FAILED, now, error=error)
            else:
                connection.execute(_MOVE, _fence(job) | _BACK_IN_QUEUE)
                again += 1
        return again

    # Ending -----------------------------------------------------------------------------------------------------

    @writes
    def succeed(self, connection: Connection, job: Job, now: float, outcome: JobOutcome) -> bool:
        """running -> succeeded, with the pictures, the usage, the charge and the webhook, in one transaction.

        Returns False, and changes nothing, when the attempt is no longer the current one.
        """
        if job.state != JobState.RUNNING:
            return False
        return self._succeed(connection, job, now, outcome)

    def _succeed(self, connection: Connection, job: Job, now: float, outcome: JobOutcome) -> bool:
        if not self._end(connection, job, JobState.SUCCEEDED, now, outcome=outcome):
            return False
        if outcome.pictures:
            connection.execute(_INSERT_IMAGES, [image_values(picture) for picture in outcome.pictures])
        if outcome.fingerprint:
            place = {"account_id": job.account_id, "fingerprint": outcome.fingerprint}
            connection.execute(_FORGET_RESULT, place)
            connection.execute(_KEEP_RESULT, place | {"job_id": job.id})
        return True

    @writes
    def fail(self, connection: Connection, job: Job, now: float, error: Error) -> bool:
        """running -> failed, with the reason. Returns False when the job has moved on."""
        if job.state != JobState.RUNNING:
            return False
        return self._end(connection, job, JobState.FAILED, now, error=error)

    @writes
    def cancel(self, connection: Connection, job: Job, now: float) -> bool:
        """running -> cancelled. Returns False when the job has moved on."""
        if job.state != JobState.RUNNING:
            return False
        return self._end(connection, job, JobState.CANCELLED, now)

    @writes
    def ask_cancel(self, connection: Connection, job_id: str, now: float) -> Job:
        """Cancel a queued job, or mark a running one, so that not even a crash lets it go on; return it as it is then.

        Raises `JobFinished` for a finished one.
        """
        job = _find(connection, job_id)
        if job.is_finished:
            raise JobFinished(job.state.value)
        connection.execute(update(jobs).where(jobs.c.id == job_id).values(cancel_asked_at=now))
        if job.state == JobState.QUEUED:
            self._end(connection, job, JobState.CANCELLED, now)
        return _find(connection, job_id)

    @writes
    def miss_start(self, connection: Connection, job_id: str, now: float) -> bool:
        """queued -> failed when the time to start is over and the job still waits."""
        job = _find(connection, job_id)
        if job.state != JobState.QUEUED or job.start_by is None or job.start_by > now:
            return False
        return self._end(connection, job, JobState.FAILED, now, error=StartDeadlineMissed())

    @writes
    def remove(self, connection: Connection, job_id: str) -> list[str]:
        """Remove a finished job and its pictures' rows; return the names of the files, which go after that.

        What it cost stays in the charges. Raises `JobUnfinished` for one that is not finished.
        """
        job = _find(connection, job_id)
        if not job.is_finished:
            raise JobUnfinished(job.state.value)
        names = select(images.c.object_name).where(images.c.job_id == job_id)
        found = list(connection.execute(names).scalars())
        for table in (images, results, deliveries):
            connection.execute(delete(table).where(table.c.job_id == job_id))
        connection.execute(delete(jobs).where(jobs.c.id == job_id))
        return found

    def _end(
        self,
        connection: Connection,
        job: Job,
        state: JobState,
        now: float,
        *,
        outcome: JobOutcome | None = None,
        error: Error | None = None,
    ) -> bool:
        """The one way into a final state: the job, its usage and charge, and the webhook that tells of it."""
        values: dict[str, Any] = {
            "state": state.value,
            "finished_at": now,
            "held": 0,
            "leased_until": None,
            "error_code": error.code if error else None,
            "error_message": error.message if error else None,
        }
        if outcome:
            values["result"] = outcome.result
        if not job.terms.is_kept:
            values["request"] = job.request.changed(prompt=NOT_KEPT).to_json()
        if connection.execute(_MOVE, _fence(job) | values).rowcount != 1:
            return False
        charges.settle(connection, _charge(job, state, now, outcome), now)
        if job.terms.webhook_url:
            outbox.announce(connection, job, state, now)
        return True

    def _fail_unreadable(self, connection: Connection, row: Row[Any], now: float) -> None:
        connection.execute(
            update(jobs)
            .where(jobs.c.id == row.id)
            .values(
                state=JobState.FAILED.value,
                finished_at=now,
                held=0,
                error_code="generation_failed",
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
            origin="api",
            client_request_id=None,
            duration_s=max(0.0, now - row.created_at),
        )
        charges.settle(connection, charge, now)


def _find(connection: Connection, job_id: str) -> Job:
    row = connection.execute(FIND_JOB, {"id": job_id}).first()
    if row is None:
        raise JobNotFound
    return job_from_row(row)


_BACK_IN_QUEUE: dict[str, Any] = {"state": JobState.QUEUED.value, "started_at": None, "leased_until": None}


def _fence(job: Job) -> dict[str, Any]:
    """The parameters by which `_MOVE` finds the job as long as nobody has moved it on."""
    return {"_id": job.id, "_attempt": job.attempt, "_state": job.state.value}


def _charge(job: Job, state: JobState, now: float, outcome: JobOutcome | None) -> charges.Charge:
    return charges.Charge(
        job_id=job.id,
        account_id=job.account_id,
        key_id=job.key_id,
        model=job.terms.model,
        state=state,
        images=outcome.images if outcome else 0,
        megapixels=outcome.megapixels if outcome else 0.0,
        credits=outcome.credits if outcome else 0,
        held=job.held,
        origin=job.terms.origin,
        client_request_id=job.terms.client_request_id,
        duration_s=max(0.0, now - job.created_at),
    )

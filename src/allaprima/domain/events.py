"""Events of a job. They are numbered, so that a client can resume the stream after any of them."""

from dataclasses import dataclass
from enum import StrEnum

from allaprima.domain.jobs import JobState, QueuePosition
from allaprima.domain.progress import Preview, StepDone

#: Number of the final event of every job, so that its id shows that no event follows. It has fewer than 16 digits, and
#: JavaScript's numbers represent it exactly.
LAST_NUMBER = 10**14
#: Ids of versions before 0.2 began with a unix time, which is at least this.
_OLDEST_TIME = 10**9


class EventType(StrEnum):
    """Kinds of events; the last three are the final states of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    STEP = "step"
    PREVIEW = "preview"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @classmethod
    def of_end(cls, state: JobState) -> "EventType":
        """Return the event of a final state."""
        return cls(state.value)

    @property
    def is_final(self) -> bool:
        """Whether no event follows."""
        return self in (EventType.SUCCEEDED, EventType.FAILED, EventType.CANCELLED)


@dataclass(frozen=True, slots=True)
class Started:
    """Data of the event that the engine started a job."""

    attempt: int


@dataclass(frozen=True, slots=True, order=True)
class EventId:
    """Id of an event, which orders the events of a job.

    It is computed from the event, so that it is the same after a restart of the server, whatever its clock shows:
    `a.1` is the start of attempt `a`, `a.2i` its step `i`, `a.2i+1` the preview after it, and `0.<unix milliseconds>` a
    position in the queue.
    """

    #: Number of the job's lease; 0 before the first.
    attempt: int
    number: int

    def __str__(self) -> str:
        return f"{self.attempt}.{self.number}"

    @property
    def is_last(self) -> bool:
        """Whether no event of the job follows."""
        return self.number >= LAST_NUMBER

    @classmethod
    def parse(cls, text: str) -> "EventId | None":
        """Return the event id in a text, or None for an invalid text."""
        attempt, dot, number = text.partition(".")
        is_id = dot and all(part.isascii() and part.isdigit() and len(part) < 16 for part in (attempt, number))
        return cls(int(attempt), int(number)) if is_id else None

    @property
    def is_of_old_version(self) -> bool:
        """Whether an earlier version of the server made the id, which then orders no events of this one."""
        return self.attempt >= _OLDEST_TIME


#: The data of an event. A final event has none, because the job itself is its data.
EventData = QueuePosition | Started | StepDone | Preview | None


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a job."""

    id: EventId
    type: EventType
    data: EventData = None

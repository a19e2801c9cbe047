"""Events of a job, numbered so that a stream can be resumed after any of them."""

from dataclasses import dataclass
from enum import StrEnum

from allaprima.domain.jobs import JobState, QueuePosition
from allaprima.domain.progress import Preview, StepDone

#: Number of every job's last event, so that a client that saw the end recognises it.
LAST_NUMBER = 1_000_000


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
    """The engine started with a job."""

    attempt: int


@dataclass(frozen=True, slots=True, order=True)
class EventId:
    """Position of an event among those of its job."""

    #: Unix seconds at which the server started, so that ids of a later start are later.
    start: int
    number: int

    def __str__(self) -> str:
        return f"{self.start}.{self.number}"

    @property
    def is_last(self) -> bool:
        """Whether no event of the job follows."""
        return self.number >= LAST_NUMBER

    @classmethod
    def parse(cls, text: str) -> "EventId | None":
        """Return the id that a client sent back, or None for a text that is no event id."""
        start, dot, number = text.partition(".")
        is_id = dot and all(part.isascii() and part.isdigit() and len(part) < 16 for part in (start, number))
        return cls(int(start), int(number)) if is_id else None


#: What an event carries. An end carries nothing: it is the job as it stands.
EventData = QueuePosition | Started | StepDone | Preview | None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a job."""

    id: EventId
    type: EventType
    data: EventData = None

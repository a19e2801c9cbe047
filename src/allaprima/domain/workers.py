"""Workers: the processes that run jobs."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """One incarnation of a worker. A process that was taken for dead registers with a new id."""

    #: UUIDv7.
    id: str
    #: Host name and process id, for people.
    name: str
    #: Version of allaprima.
    version: str
    #: How many jobs the worker generates at a time.
    concurrency: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a worker learns when it renews its lease."""

    #: False: the worker was taken for dead, and its jobs were requeued.
    is_registered: bool
    #: Ids of the running jobs that the worker leased.
    running: frozenset[str] = frozenset()
    #: Those of them that a client asked to cancel.
    cancelled: frozenset[str] = frozenset()

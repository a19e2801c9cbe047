"""From the engine's thread into the loop: what happens to a job, for those who watch it."""

import asyncio
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from allaprima.domain.events import EventType
from allaprima.domain.jobs import Job
from allaprima.domain.progress import Preview, Progress, StepDone
from allaprima.service.jobs.events import MemoryEventBus


class JobProgress(Progress):
    """What the engine's thread tells the loop of one job."""

    def __init__(
        self, events: MemoryEventBus, job: Job, loop: asyncio.AbstractEventLoop, begin: Callable[[Job], None]
    ) -> None:
        self._events = events
        self._job = job
        self._job_id = job.id
        self._loop = loop
        self._begin = begin

    def started(self) -> None:
        """The engine begins."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._begin, self._job)
        self._publish(EventType.RUNNING, {"attempt": self._job.attempt})

    def step(self, done: StepDone) -> None:
        """A step was done."""
        self._publish(EventType.STEP, {"step": done.step, "steps": done.steps})

    def wants_previews(self) -> bool:
        """Whether anybody would see one."""
        return self._events.is_watched(self._job_id)

    def preview(self, preview: Preview) -> None:
        """Here is one."""
        images = [
            {
                "url": None if image.is_flagged else f"data:image/jpeg;base64,{b64encode(image.data).decode()}",
                "nsfw_score": image.nsfw_score,
                "is_flagged": image.is_flagged,
            }
            for image in preview.images
        ]
        self._publish(EventType.PREVIEW, {"step": preview.step, "steps": preview.steps, "images": images})

    def _publish(self, kind: EventType, data: dict[str, Any]) -> None:
        # The loop may be gone when the engine is closed in the middle of a step.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._events.publish, self._job_id, kind, data)

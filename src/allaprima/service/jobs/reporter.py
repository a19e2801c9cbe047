"""Reports the progress of jobs to followers, metrics, traces, time estimates and the webhook sender."""

import asyncio
from contextlib import suppress

from allaprima.domain.clock import Clock
from allaprima.domain.events import EventData, EventType, Started
from allaprima.domain.generation import GenerationResult
from allaprima.domain.jobs import Job, JobState
from allaprima.domain.ports import EventBus
from allaprima.domain.progress import Preview, Progress, StepDone
from allaprima.metrics import Metrics
from allaprima.service.jobs.eta import Eta
from allaprima.service.jobs.traces import trace_job
from allaprima.service.webhooks import Webhooks


class JobReporter:
    """Reports changes of jobs. For use in the event loop, except `is_watched`."""

    def __init__(self, bus: EventBus, eta: Eta, metrics: Metrics, webhooks: Webhooks, clock: Clock) -> None:
        self._bus = bus
        self._eta = eta
        self._metrics = metrics
        self._webhooks = webhooks
        self._clock = clock

    def progress(self, job: Job) -> Progress:
        """Return the receiver of a job's progress, which the engine's thread calls."""
        return _EngineProgress(self, job, asyncio.get_running_loop())

    def is_watched(self, job_id: str) -> bool:
        """Whether a client watches the job's previews. May be called from any thread."""
        return self._bus.is_watched(job_id)

    def publish(self, job_id: str, kind: EventType, data: EventData) -> None:
        """Publish an event of a running job."""
        self._bus.publish(job_id, kind, data)

    def started(self, job: Job) -> None:
        """Report that the engine started a job."""
        self._eta.started(job)
        self._metrics.started(self._clock() - job.created_at)
        self._bus.publish(job.id, EventType.RUNNING, Started(job.attempt))

    def generated(self, job: Job, result: GenerationResult) -> None:
        """Report that the engine finished a job."""
        # The timings of a watched job include its previews, so they are not used for estimates.
        self._eta.generated(job, None if self._bus.is_watched(job.id) else result.timings)

    def stored(self, job: Job, result: GenerationResult, generated_at: float, store_s: float) -> None:
        """Report that a job's result was stored. generated_at: unix seconds. store_s: seconds that storing took."""
        self._eta.stored(store_s)
        trace_job(job, result.timings, generated_at, self._clock())
        self._metrics.generated(
            job.request.model,
            result.timings.phases | {"store": store_s},
            [len(image.data) for image in result.images],
            sum(image.is_flagged for image in result.images),
        )

    def ended(self, job_id: str, state: JobState) -> None:
        """Report that a job's final state was stored."""
        self._metrics.ended(state.value)
        self._bus.publish(job_id, EventType.of_end(state))
        self._webhooks.wake()


class _EngineProgress(Progress):
    """Passes progress from the engine's thread to the event loop."""

    def __init__(self, reporter: JobReporter, job: Job, loop: asyncio.AbstractEventLoop) -> None:
        self._reporter = reporter
        self._job = job
        self._loop = loop

    def started(self) -> None:
        """See `Progress`."""
        # The loop may already be closed while the engine stops.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._reporter.started, self._job)

    def step(self, done: StepDone) -> None:
        """See `Progress`."""
        self._publish(EventType.STEP, done)

    def wants_previews(self) -> bool:
        """See `Progress`."""
        return self._reporter.is_watched(self._job.id)

    def preview(self, preview: Preview) -> None:
        """See `Progress`."""
        self._publish(EventType.PREVIEW, preview)

    def _publish(self, kind: EventType, data: EventData) -> None:
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._reporter.publish, self._job.id, kind, data)

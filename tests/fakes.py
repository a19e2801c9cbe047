"""Fakes of the ports that the service depends on, typed by their protocols, and the real service over them.

The fake engine generates images of one colour at once; tests can make it hold, fail or flag them. It needs no torch.
"""

import asyncio
import io
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx2
from PIL import Image

from allaprima.api.app import create_app
from allaprima.bootstrap.service import open_service as open_real_service
from allaprima.domain.clock import Clock
from allaprima.domain.generation import GeneratedImage, GenerationRequest, GenerationResult, ImageFormat, Timings
from allaprima.domain.jobs import Job
from allaprima.domain.models import ModelInfo, Precision, TokenCount
from allaprima.domain.ports import Engine
from allaprima.domain.progress import Preview, PreviewImage, Progress, StepDone
from allaprima.errors import Cancelled, Draining, Error
from allaprima.service.accounts.keys import FIRST_ACCOUNT
from allaprima.service.app import Service
from allaprima.service.outbound import Resolve, resolve
from allaprima.settings import ServerSettings, Settings
from tests.clock import NOW, FakeClock  # noqa: F401 - tests import both from here
from tests.databases import prepare

SKETCH = ModelInfo("allaprima/sketch", "5" * 40, "sketch", "The built-in model.")
SCHNELL = ModelInfo("flux/schnell", "7" * 40, "FLUX.1 [schnell]", "Four steps.")
LOCAL = ModelInfo("mine/own", "9" * 40, "own", "A folder of the user's.")


@lru_cache(maxsize=256)
def plain_image(width: int, height: int, colour: tuple[int, int, int], image_format: ImageFormat) -> bytes:
    """Return the file of an image of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, image_format.value)
    return file.getvalue()


class FakeEngine(Engine):
    """Generates images in the colour of their seed, at once unless it is holding."""

    def __init__(self, *models: ModelInfo, is_ready: bool = True, max_concurrency: int = 1) -> None:
        self._models = models or (SKETCH,)
        self._max_concurrency = max_concurrency
        self._is_ready = is_ready
        self._is_holding = False
        self._is_closed = False
        self._held: dict[str, Future[GenerationResult]] = {}
        self._progress: dict[str, Progress] = {}
        self._arrival = asyncio.Event()
        #: The submitted requests by job id, in order.
        self.requests: dict[str, GenerationRequest] = {}
        #: Raised by each generation while it is set.
        self.failure: Error | None = None
        #: The positions of the images that are withheld, in each request.
        self.flagged: frozenset[int] = frozenset()
        self.warnings: tuple[str, ...] = ()
        #: Whether it finishes jobs that are cancelled.
        self.ignores_cancel = False

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        return self._models

    @property
    def max_concurrency(self) -> int:
        return self._max_concurrency

    @property
    def is_ready(self) -> bool:
        return self._is_ready

    @property
    def ready(self) -> Future[None]:
        ready: Future[None] = Future()
        if self._is_ready:
            ready.set_result(None)
        return ready

    @property
    def held(self) -> tuple[str, ...]:
        """The ids of the jobs that it holds."""
        return tuple(self._held)

    def tokens(self, request: GenerationRequest) -> TokenCount:
        """Count one token per word, with a limit of ten."""
        return TokenCount(len(request.prompt.split()), 10)

    def prompt_warnings(self, request: GenerationRequest) -> tuple[str, ...]:
        return self.warnings

    def start(self) -> None:
        assert not self._is_closed

    def become_ready(self, *models: ModelInfo) -> None:
        """Finish loading, and set the models."""
        self._is_ready = True
        self._models = models or self._models

    def hold(self) -> None:
        """Accept requests without generating them."""
        self._is_holding = True

    def release(self) -> None:
        """Generate the held requests, and each later one at once."""
        self._is_holding = False
        for job_id in tuple(self._held):
            self.finish(job_id)

    def enqueue(self, job_id: str, request: GenerationRequest, progress: Progress) -> Future[GenerationResult]:
        assert not self._is_closed, "a closed engine is given no requests"
        self.requests[job_id] = request
        self._progress[job_id] = progress
        self._held[job_id] = future = Future()
        self._arrival.set()
        progress.started()
        if not self._is_holding:
            for step in range(request.steps):
                self.step(job_id, step + 1)
            self.finish(job_id)
        return future

    def step(self, job_id: str, step: int) -> None:
        """Advance one request by a step, and report its progress."""
        request, progress = self.requests[job_id], self._progress[job_id]
        progress.step(StepDone(step, request.steps))
        if progress.wants_previews():
            data = plain_image(64, 64, (step, 0, 0), ImageFormat.JPEG)
            image = PreviewImage(b"" if self.flagged else data, 0.99 if self.flagged else 0.01, bool(self.flagged))
            progress.preview(Preview(step, request.steps, (image,) * request.count))

    def wants_previews(self, job_id: str) -> bool:
        """Whether a client follows the previews of a job."""
        return self._progress[job_id].wants_previews()

    async def until_held(self, count: int = 1) -> None:
        """Wait until it holds that many jobs."""
        while len(self._held) < count:
            self._arrival.clear()
            await self._arrival.wait()

    def finish(self, job_id: str) -> None:
        """Generate one held request, or fail it."""
        future = self._held.pop(job_id)
        if self.failure:
            future.set_exception(self.failure)
        else:
            future.set_result(self.generate(self.requests[job_id]))

    def cancel(self, job_id: str) -> None:
        if not self.ignores_cancel and (future := self._held.pop(job_id, None)):
            future.set_exception(Cancelled())

    def close(self) -> None:
        self._is_closed = True
        while self._held:
            _, future = self._held.popitem()
            future.set_exception(Draining(retry_after_s=5))

    def generate(self, request: GenerationRequest) -> GenerationResult:
        model = next(info for info in self._models if info.id == request.model)
        images = []
        for position in range(request.count):
            seed = request.seed + position
            is_flagged = request.check_safety and position in self.flagged
            colour = (0, 0, 0) if is_flagged else (255, seed % 251, seed // 251 % 251)
            data = plain_image(request.width, request.height, colour, request.image_format)
            score = (0.99 if is_flagged else 0.01) if request.check_safety else None
            images.append(GeneratedImage(data, seed, score, is_flagged))
        timings = Timings(text=0.25, steps=(0.125,) * request.steps, decode=0.5, safety=0.0625, encode=0.03125)
        return GenerationResult(model.id, model.revision, Precision.FP32, tuple(images), timings, self.warnings)


@asynccontextmanager
async def open_service(
    folder: Path,
    engine: Engine,
    clock: Clock,
    *,
    monotonic: Clock | None = None,
    resolve: Resolve = resolve,
    engine_settings: dict[str, Any] | None = None,
    store: dict[str, Any] | None = None,
    **groups: dict[str, Any],
) -> AsyncIterator[Service]:
    """Run the real service over a data folder and the given engine while the context lasts.

    monotonic: measures durations; default: `clock`. groups: settings by group. resolve: how names become addresses.
    """
    settings = Settings(engine=engine_settings or {}, store=prepare(folder) | (store or {}), **groups)
    async with open_real_service(
        settings, engine=engine, clock=clock, monotonic=monotonic or clock, resolve=resolve
    ) as service:
        yield service if service.first_key else await _with_first_key(service)


async def _with_first_key(service: Service) -> Service:
    """Create what a server on SQLite creates at its first start, and a server on PostgreSQL does not."""
    if not await service.accounts.all():
        await service.operator.accounts.create(FIRST_ACCOUNT)
    return replace(service, first_key=await service.keys.create_first())


def client_of(
    service: Service,
    settings: ServerSettings | None = None,
    *,
    key: str | None = None,
    address: str = "127.0.0.1",
) -> httpx2.AsyncClient:
    """Return a client of the API over a service, without sockets.

    key: sent with every request. address: the client's address.
    """
    app = create_app(settings or ServerSettings(), service)
    transport = httpx2.ASGITransport(app, client=(address, 40000))
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return httpx2.AsyncClient(transport=transport, base_url="http://images.test", headers=headers)


def with_clock(service: Service, clock: Clock) -> Service:
    """Return the same service with another clock."""
    return replace(service, clock=clock)


async def ended(service: Service, job_id: str) -> Job:
    """Wait until a job has ended, and return it."""
    job = await service.job_records.get(job_id)
    assert job is not None
    return await service.jobs.wait(job, 60)

"""The engine of this process: threads that use the device, a queue of requests, and a Future per request.

One thread loads the models; then each thread generates one request at a time. A large model uses the whole device for
one request, so the engine has one thread. One request of a small model leaves cores idle, so several requests run
concurrently and share the cores. Concurrency changes no image: each image is computed in a batch of one, and the
kernels compute the same bits with any number of threads. Without those kernels the engine has one thread (see
`engine.device.max_concurrency`).
"""

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import torch

from allaprima.domain.generation import GenerationRequest, GenerationResult
from allaprima.domain.models import ModelInfo, TokenCount
from allaprima.domain.ports import Engine
from allaprima.domain.progress import Progress
from allaprima.engine.generator import Generator
from allaprima.errors import Cancelled, Draining, Error, GenerationFailed
from allaprima.flux import CancelCheck
from allaprima.kernels import library
from allaprima.weights.roster import ModelRoster

logger = logging.getLogger(__name__)

#: Loads the models and returns the generators by model id. It runs once, in an engine thread, and calls the check
#: often.
LoadGenerators = Callable[[CancelCheck], Mapping[str, Generator]]

#: `Retry-After` in seconds of a request that fails because the engine closes.
RETRY_AFTER_S = 5


@dataclass(slots=True)
class QueuedRequest:
    """A request that is queued or running."""

    job_id: str
    request: GenerationRequest
    progress: Progress
    future: Future[GenerationResult] = field(default_factory=Future)
    cancelled: threading.Event = field(default_factory=threading.Event)


class LocalEngine(Engine):
    """Generates requests in the order of `enqueue` calls, in its own threads."""

    def __init__(
        self,
        roster: ModelRoster,
        load: LoadGenerators,
        max_concurrency: int = 1,
    ) -> None:
        """roster: the models that `load` loads. load: see `LoadGenerators`; may raise `WeightsError`.

        max_concurrency: most requests that are generated at a time, and the number of threads.
        """
        self._roster = roster
        self._load = load
        self._max_concurrency = max_concurrency
        self._generators: Mapping[str, Generator] = {}
        self._inbox: queue.SimpleQueue[QueuedRequest | None] = queue.SimpleQueue()
        #: All queued and running requests, by job id.
        self._unfinished: dict[str, QueuedRequest] = {}
        self._closing = threading.Event()
        self._ready: Future[None] = Future()
        self._cores = torch.get_num_threads()
        self._first_thread = threading.Thread(target=self._load_and_serve, name="engine", daemon=True)
        self._other_threads = [
            threading.Thread(target=self._serve, name=f"engine-{number}", daemon=True)
            for number in range(1, max_concurrency)
        ]

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        """The models that are loaded or loading."""
        return self._roster.models

    @property
    def is_ready(self) -> bool:
        """Whether every model is loaded."""
        return self._ready.done() and self._ready.exception() is None

    @property
    def ready(self) -> Future[None]:
        """A Future that is done when every model is loaded. It fails with the exception that `load` raised."""
        return self._ready

    @property
    def max_concurrency(self) -> int:
        """Most requests that are generated at a time."""
        return self._max_concurrency

    def tokens(self, request: GenerationRequest) -> TokenCount:
        """Return the length of a request's prompt in tokens of its model's T5."""
        return self._roster.tokens(request)

    def prompt_warnings(self, request: GenerationRequest) -> tuple[str, ...]:
        """Return what the result's warnings will say of a request's prompt."""
        return self._roster.prompt_warnings(request)

    def start(self) -> None:
        """Start the thread that loads the models and then generates. Requests can be enqueued before."""
        self._first_thread.start()

    def enqueue(self, job_id: str, request: GenerationRequest, progress: Progress) -> Future[GenerationResult]:
        """Queue a request and return its result's Future.

        The Future fails with `Cancelled`, `Draining` or `GenerationFailed`, or is cancelled by `cancel`.
        """
        queued = QueuedRequest(job_id, request, progress)
        self._unfinished[job_id] = queued
        queued.future.add_done_callback(lambda _: self._unfinished.pop(job_id, None))
        self._inbox.put(queued)
        return queued.future

    def cancel(self, job_id: str) -> None:
        """Stop a running request at its next block, or cancel the Future of a queued one. Unknown ids are ignored."""
        if queued := self._unfinished.get(job_id):
            queued.cancelled.set()
            queued.future.cancel()

    def close(self) -> None:
        """Stop all threads at the next block and wait for them. Unfinished requests fail with `Draining`."""
        self._closing.set()
        for _ in range(self._max_concurrency):
            self._inbox.put(None)
        for thread in (self._first_thread, *self._other_threads):
            if thread.is_alive():
                thread.join()

    def _load_and_serve(self) -> None:
        try:
            self._generators = self._load(self._check_closing)
            self._set_ready()
        except Draining:
            logger.debug("the engine was closed while it loaded the models")
        # Every exception of `load` must reach the caller that awaits `ready`.
        except Exception as exc:
            logger.debug("the models could not be loaded", exc_info=exc)
            self._ready.set_exception(exc)
            # Queued requests wait until `close`; then `_serve` fails them with `Draining`.
            self._closing.wait()
        for thread in self._other_threads:
            thread.start()
        self._serve()

    def _set_ready(self) -> None:
        """Add revision, precision and kernels to the roster, and mark the engine as ready."""
        kernels = library.signature()
        loaded = {model_id: generator.model for model_id, generator in self._generators.items()}
        self._roster.update(
            replace(info, revision=loaded[info.id].revision, precision=loaded[info.id].precision, kernels=kernels)
            for info in self._roster.models
        )
        self._ready.set_result(None)

    def _serve(self) -> None:
        """Generate queued requests until `close` puts None into the inbox."""
        while queued := self._inbox.get():
            # Queued requests count, since other threads are about to start them.
            concurrency = min(self._max_concurrency, len(self._unfinished) or 1)
            threads = max(1, self._cores // concurrency)
            # `set_num_threads` discards oneDNN's cached primitives even if the number stays the same.
            if threads != torch.get_num_threads():
                torch.set_num_threads(threads)
            self._run(queued)

    def _run(self, queued: QueuedRequest) -> None:
        """Generate one request and complete its Future."""

        def check() -> None:
            if queued.cancelled.is_set():
                raise Cancelled
            self._check_closing()

        if not queued.future.set_running_or_notify_cancel():
            return
        try:
            check()
            queued.progress.started()
            result = self._generator(queued.request.model).generate(queued.request, check, queued.progress)
        except Error as exc:
            queued.future.set_exception(exc)
        # A bug fails this request alone; the thread must continue with the next request.
        except Exception as exc:
            logger.exception("job %s failed with an unexpected error", queued.job_id)
            queued.future.set_exception(GenerationFailed(f"the engine failed with {type(exc).__name__}"))
        else:
            queued.future.set_result(result)

    def _check_closing(self) -> None:
        """Raise `Draining` if the engine is closing."""
        if self._closing.is_set():
            raise Draining(retry_after_s=RETRY_AFTER_S)

    def _generator(self, model_id: str) -> Generator:
        if model_id not in self._generators:
            raise GenerationFailed(f"the model {model_id} is no longer loaded; start the server with it again")
        return self._generators[model_id]

"""The engine of this process: the threads that own the device, the queue before them, and a Future per request.

One thread loads the models; then every thread generates one request at a time. A large model keeps the device busy with
one request and has one thread. Small models leave cores idle, so several requests run concurrently and share the cores.
Each image is computed by itself, and the kernels give the same bits for any number of threads, so concurrency changes
no image. Where the kernels are not available there is one thread (see `engine.device.max_concurrency`).
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

#: Loads the generators by model id. It runs once, in the engine's thread, and calls the check that it receives often.
LoadGenerators = Callable[[CancelCheck], Mapping[str, Generator]]

#: Seconds after which a client may retry a request that the closing engine gave back.
RETRY_AFTER_S = 5


@dataclass(slots=True)
class QueuedRequest:
    """A request from `enqueue` to its end."""

    job_id: str
    request: GenerationRequest
    progress: Progress
    future: Future[GenerationResult] = field(default_factory=Future)
    cancelled: threading.Event = field(default_factory=threading.Event)


class LocalEngine(Engine):
    """Generates requests in the order of their submission, in its own threads."""

    def __init__(
        self,
        roster: ModelRoster,
        load: LoadGenerators,
        max_concurrency: int = 1,
    ) -> None:
        """roster: the models that `load` loads. load: may raise `WeightsError`.

        max_concurrency: most requests that are generated at a time.
        """
        self._roster = roster
        self._load = load
        self._max_concurrency = max_concurrency
        self._generators: Mapping[str, Generator] = {}
        self._inbox: queue.SimpleQueue[QueuedRequest | None] = queue.SimpleQueue()
        #: Every unfinished request, by job id.
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
        """Done when every model is loaded; fails with what `load` raised."""
        return self._ready

    @property
    def max_concurrency(self) -> int:
        """Most requests that are generated at a time."""
        return self._max_concurrency

    def tokens(self, request: GenerationRequest) -> TokenCount:
        """Return the length of a request's prompt in tokens of its model's T5."""
        return self._roster.tokens(request)

    def start(self) -> None:
        """Start to load the models, and then to generate. Requests submitted before are queued."""
        self._first_thread.start()

    def enqueue(self, job_id: str, request: GenerationRequest, progress: Progress) -> Future[GenerationResult]:
        """Queue a request. The Future fails with `Cancelled`, `Draining` or `GenerationFailed`, or is cancelled."""
        queued = QueuedRequest(job_id, request, progress)
        self._unfinished[job_id] = queued
        queued.future.add_done_callback(lambda _: self._unfinished.pop(job_id, None))
        self._inbox.put(queued)
        return queued.future

    def cancel(self, job_id: str) -> None:
        """Stop a running request at its next block; cancel the Future of a queued one at once. Ignores unknown ids."""
        if queued := self._unfinished.get(job_id):
            queued.cancelled.set()
            queued.future.cancel()

    def close(self) -> None:
        """Stop at the next block; unfinished requests fail with `Draining`. Returns when the threads have ended."""
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
            logger.debug("the engine was closed while it loaded")
        # Any failure to load, expected or not, must reach the waiter of `ready`.
        except Exception as exc:
            logger.debug("the models could not be loaded", exc_info=exc)
            self._ready.set_exception(exc)
            # Requests submitted meanwhile stay queued until `close` fails them with `Draining`.
            self._closing.wait()
        for thread in self._other_threads:
            thread.start()
        self._serve()

    def _set_ready(self) -> None:
        """Complete the models' infos with what is known once they are loaded, and mark the engine as ready."""
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
            # Unfinished requests include the queued ones, which other threads are about to start.
            concurrency = min(self._max_concurrency, len(self._unfinished) or 1)
            threads = max(1, self._cores // concurrency)
            # Setting the number of threads discards oneDNN's prepared primitives, even if it does not change.
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
        # A bug fails this request alone: the thread must survive for the next one.
        except Exception as exc:
            logger.exception("job %s failed", queued.job_id)
            queued.future.set_exception(GenerationFailed(f"the engine failed with {type(exc).__name__}"))
        else:
            queued.future.set_result(result)

    def _check_closing(self) -> None:
        """Raise `Draining` once the engine is closing."""
        if self._closing.is_set():
            raise Draining(retry_after_s=RETRY_AFTER_S)

    def _generator(self, model_id: str) -> Generator:
        if model_id not in self._generators:
            raise GenerationFailed(f"the model {model_id} is no longer loaded; start the server with it again")
        return self._generators[model_id]

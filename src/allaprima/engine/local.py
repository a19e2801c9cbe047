"""The threads that own the device. Everything else talks to them through `submit`, `cancel` and Futures.

One loads the models; then each takes one request at a time. A large model fills the device with one request, and has
one thread. A small one leaves cores idle: its pictures are painted abreast, each with its share of the cores. Every
picture is painted by itself, and where our kernels run its bits depend on no number of threads; so not on what is
painted beside it either. Elsewhere there is one thread for all.
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
from allaprima.domain.progress import Progress
from allaprima.engine.generator import Generator
from allaprima.errors import Cancelled, Draining, Error, GenerationFailed
from allaprima.flux import Check
from allaprima.kernels import library
from allaprima.weights.tokenizers import PromptTokenizer

logger = logging.getLogger(__name__)

#: Makes the painters by model id; called once, in the engine's thread, with what it has to ask now and then.
LoadPainters = Callable[[Check], Mapping[str, Generator]]


@dataclass(slots=True)
class Ticket:
    """A request inside the engine."""

    job_id: str
    request: GenerationRequest
    progress: Progress
    future: Future[GenerationResult] = field(default_factory=Future)
    cancelled: threading.Event = field(default_factory=threading.Event)


class LocalEngine:
    """Paints requests in the order they come, in threads of its own."""

    def __init__(
        self,
        models: tuple[ModelInfo, ...],
        load: LoadPainters,
        tokenizers: Mapping[str, PromptTokenizer],
        abreast: int = 1,
    ) -> None:
        """models: what will be loaded, without revisions. load: loads them; may raise `WeightsError`. tokenizers: T5's,
        by model id. abreast: how many requests it paints at a time.
        """
        self.abreast = abreast
        self._models = models
        self._load = load
        self._tokenizers = tokenizers
        self._painters: Mapping[str, Generator] = {}
        self._inbox: queue.SimpleQueue[Ticket | None] = queue.SimpleQueue()
        #: All that has no end yet.
        self._tickets: dict[str, Ticket] = {}
        self._closing = threading.Event()
        self._loader = threading.Thread(target=self._run, name="engine", daemon=True)
        self._others = [
            threading.Thread(target=self._paint_all, name=f"engine-{number}", daemon=True)
            for number in range(1, abreast)
        ]
        self._cores = torch.get_num_threads()
        #: Done when all models are loaded; fails with the `WeightsError` when one can't be.
        self.ready: Future[None] = Future()

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        """The models that are loaded or loading."""
        return self._models

    @property
    def is_ready(self) -> bool:
        """Whether every model is loaded."""
        return self.ready.done() and self.ready.exception() is None

    def tokens(self, request: GenerationRequest) -> TokenCount:
        """Return how long a prompt is for its model, in tokens of T5."""
        tokenizer = self._tokenizers[request.model]
        return TokenCount(tokenizer.count(request.prompt), tokenizer.max_tokens)

    def start(self) -> None:
        """Start to load. Requests may be submitted at once; they wait."""
        self._loader.start()

    def submit(self, job_id: str, request: GenerationRequest, progress: Progress) -> Future[GenerationResult]:
        """Queue a request. The Future fails with `Cancelled`, `Draining` or `GenerationFailed`."""
        ticket = Ticket(job_id, request, progress)
        self._tickets[job_id] = ticket
        ticket.future.add_done_callback(lambda _: self._tickets.pop(job_id, None))
        self._inbox.put(ticket)
        return ticket.future

    def cancel(self, job_id: str) -> None:
        """Stop a request at its next block; at once, by cancelling its Future, while it only waits.

        Unknown ids are none of the engine's business.
        """
        if ticket := self._tickets.get(job_id):
            ticket.cancelled.set()
            ticket.future.cancel()

    def close(self) -> None:
        """Stop at the next block; what runs or waits fails with `Draining`. Returns when the threads are gone."""
        self._closing.set()
        for _ in range(self.abreast):
            self._inbox.put(None)
        for thread in (self._loader, *self._others):
            if thread.is_alive():
                thread.join()

    def _run(self) -> None:
        try:
            self._painters = self._load(self._check_open)
            self._announce()
        except Draining:
            logger.debug("the engine was closed while it loaded")
        # Whatever keeps the models from loading, those who wait for `ready` hear of it.
        except Exception as exc:
            logger.debug("the models could not be loaded", exc_info=exc)
            self.ready.set_exception(exc)
            # What was submitted waits for `close`, which gives it back.
            self._closing.wait()
        for thread in self._others:
            thread.start()
        self._paint_all()

    def _paint_all(self) -> None:
        while ticket := self._inbox.get():
            # Those that wait are begun beside it.
            threads = max(1, self._cores // min(self.abreast, len(self._tickets) or 1))
            if threads != torch.get_num_threads():
                # It throws away what oneDNN has prepared.
                torch.set_num_threads(threads)
            self._step(ticket)

    def _check_open(self) -> None:
        """Raise `Draining` once the engine is to close."""
        if self._closing.is_set():
            raise Draining(retry_after_s=5)

    def _announce(self) -> None:
        """Tell the revisions and precisions of the loaded models, and that the engine is ready."""
        kernels = library.signature()
        loaded = {model_id: painter.model for model_id, painter in self._painters.items()}
        self._models = tuple(
            replace(info, revision=loaded[info.id].revision, precision=loaded[info.id].precision, kernels=kernels)
            for info in self._models
        )
        self.ready.set_result(None)

    def _painter(self, model_id: str) -> Generator:
        if model_id not in self._painters:
            raise GenerationFailed(f"the model {model_id} is no longer loaded; start the server with it again")
        return self._painters[model_id]

    def _step(self, ticket: Ticket) -> None:
        def check() -> None:
            if ticket.cancelled.is_set():
                raise Cancelled
            self._check_open()

        if not ticket.future.set_running_or_notify_cancel():
            return
        try:
            check()
            ticket.progress.started()
            painting = self._painter(ticket.request.model).paint(ticket.request, check, ticket.progress)
        except Error as exc:
            ticket.future.set_exception(exc)
        # Whatever a request does to the engine, the next one is painted.
        except Exception as exc:
            logger.exception("job %s failed", ticket.job_id)
            failure = GenerationFailed(f"the engine failed with {type(exc).__name__}")
            ticket.future.set_exception(failure)
        else:
            ticket.future.set_result(painting)

"""What the use cases need from the world, as protocols: the engine and the clock."""

from concurrent.futures import Future
from typing import Protocol

from allaprima.domain.generation import GenerationRequest, GenerationResult
from allaprima.domain.models import ModelInfo, TokenCount
from allaprima.domain.progress import Progress


class Engine(Protocol):
    """Paints requests, one Future each."""

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        """The models that are loaded or loading."""

    @property
    def abreast(self) -> int:
        """How many requests it paints at a time."""

    @property
    def is_ready(self) -> bool:
        """Whether every model is loaded."""

    def tokens(self, request: GenerationRequest) -> TokenCount:
        """Return how long a prompt is for its model."""

    def start(self) -> None:
        """Begin to load and then to paint."""

    def submit(self, job_id: str, request: GenerationRequest, progress: Progress) -> Future[GenerationResult]:
        """Queue a request; the Future fails with `Cancelled`, `Draining` or `GenerationFailed`, or is cancelled."""

    def cancel(self, job_id: str) -> None:
        """Stop a request as soon as possible."""

    def close(self) -> None:
        """Stop painting; what was not finished fails with `Draining`."""


class Clock(Protocol):
    """Tells the time."""

    def __call__(self) -> float:
        """Return the unix time in seconds."""

"""Progress of a request in the engine."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StepDone:
    """A finished denoising step. step: its number, counted from 1."""

    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class PreviewImage:
    """A preview of one image after a step."""

    #: A JPEG file, possibly smaller than the image; empty if the preview is withheld.
    data: bytes = field(repr=False)
    nsfw_score: float | None
    is_flagged: bool


@dataclass(frozen=True, slots=True)
class Preview:
    """Previews of the images of a request after a step."""

    step: int
    steps: int
    images: tuple[PreviewImage, ...]


class Progress(Protocol):
    """Receives the progress of a request. The engine's thread calls it, so all methods must return quickly."""

    def started(self) -> None:
        """Called when the engine starts the request."""

    def step(self, done: StepDone) -> None:
        """Called after each step."""

    def wants_previews(self) -> bool:
        """Return whether the engine should generate a preview of the last step."""

    def preview(self, preview: Preview) -> None:
        """Called with a preview, if `wants_previews` returned true."""


class StepCallback(Progress):
    """Calls a function after each step. Requests no previews."""

    def __init__(self, on_step: Callable[[StepDone], None] | None = None) -> None:
        self._on_step = on_step

    def started(self) -> None:
        """See `Progress`."""

    def step(self, done: StepDone) -> None:
        """See `Progress`."""
        if self._on_step:
            self._on_step(done)

    def wants_previews(self) -> bool:
        """See `Progress`."""
        return False

    def preview(self, preview: Preview) -> None:
        """See `Progress`."""

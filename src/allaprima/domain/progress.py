"""How a request gets on inside the engine."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StepDone:
    """A denoising step was finished."""

    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class PreviewImage:
    """One image of a request between two steps."""

    #: A JPEG, possibly smaller than the image will be. Empty when it is withheld.
    data: bytes = field(repr=False)
    nsfw_score: float | None
    is_flagged: bool


@dataclass(frozen=True, slots=True)
class Preview:
    """The images of a request after a step."""

    step: int
    steps: int
    images: tuple[PreviewImage, ...]


class Progress(Protocol):
    """Receives the progress of a request. Called in the engine's thread; must return quickly."""

    def started(self) -> None:
        """The engine starts with this request."""

    def step(self, done: StepDone) -> None:
        """A step was finished."""

    def wants_previews(self) -> bool:
        """Whether a preview of the step just finished would be seen."""

    def preview(self, preview: Preview) -> None:
        """A preview that was wanted."""


class StepCallback(Progress):
    """Calls a function after each step, and wants no previews."""

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

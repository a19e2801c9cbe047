"""How many seconds of the engine a job will take, from how many others took.

Measured by model and size: the seconds of a step and of finishing one image; by model: those of reading a prompt and of
all that is not the model's work. A size that was never painted is guessed from the nearest one that was.
"""

from dataclasses import dataclass, field

from allaprima.domain.generation import GenerationRequest, Timings

#: Seconds that a job is thought to take while nothing was measured.
FIRST_GUESS_S = 2.0
#: Weight of a new measurement; the first few count as a plain mean.
WEIGHT = 0.2


@dataclass(slots=True)
class Mean:
    """A mean that forgets slowly."""

    value: float = 0.0
    count: int = 0

    def add(self, value: float) -> None:
        """Take a measurement in."""
        self.count += 1
        self.value += max(WEIGHT, 1 / self.count) * (value - self.value)


@dataclass(slots=True)
class _SizePace:
    step: Mean = field(default_factory=Mean)
    finish: Mean = field(default_factory=Mean)


@dataclass(slots=True)
class _ModelPace:
    text: Mean = field(default_factory=Mean)
    rest: Mean = field(default_factory=Mean)
    sizes: dict[tuple[int, int], _SizePace] = field(default_factory=dict)


class Pace:
    """The measured speed of the engine."""

    def __init__(self) -> None:
        self._models: dict[str, _ModelPace] = {}

    def observe(self, request: GenerationRequest, timings: Timings, whole_s: float, abreast: float = 1.0) -> None:
        """Take in a finished job. whole_s: from when the engine began until it had it done; abreast: how many it
        painted meanwhile, which share those seconds.
        """
        model = self._models.setdefault(request.model, _ModelPace())
        size = model.sizes.setdefault((request.width, request.height), _SizePace())
        finish_s = timings.decode + timings.safety + timings.encode
        size.step.add(sum(timings.steps) / (request.steps * request.count) / abreast)
        size.finish.add(finish_s / request.count / abreast)
        model.text.add(timings.text / abreast)
        model.rest.add(max(0.0, whole_s - timings.inference - timings.encode) / abreast)

    def seconds(self, request: GenerationRequest) -> float:
        """Return the seconds of the engine that a job will take."""
        model = self._models.get(request.model)
        if model is None:
            return FIRST_GUESS_S
        pixels = request.width * request.height
        nearest = min(model.sizes, key=lambda size: abs(size[0] * size[1] - pixels))
        size, ratio = model.sizes[nearest], pixels / (nearest[0] * nearest[1])
        image_s = request.steps * size.step.value + size.finish.value
        return model.text.value + model.rest.value + request.count * image_s * ratio

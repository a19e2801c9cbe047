"""Estimates the compute seconds of a request from measurements of earlier requests.

Measured per model and size: seconds of a step and of decode, safety and encode for one image. Measured per model:
seconds of the text encoder and of the overhead. A size without measurements is scaled from the nearest measured size.
"""

from dataclasses import dataclass, field

from allaprima.domain.generation import GenerationRequest, Timings

#: Estimated seconds of a request before any measurement of its model.
INITIAL_ESTIMATE_S = 2.0
#: Smallest weight of a new measurement; the first measurements form a plain mean.
MIN_WEIGHT = 0.2


@dataclass(slots=True)
class Mean:
    """An exponential moving average."""

    value: float = 0.0
    count: int = 0

    def add(self, value: float) -> None:
        """Add a measurement."""
        self.count += 1
        self.value += max(MIN_WEIGHT, 1 / self.count) * (value - self.value)


@dataclass(slots=True)
class _BySize:
    step: Mean = field(default_factory=Mean)
    finish: Mean = field(default_factory=Mean)


@dataclass(slots=True)
class _ByModel:
    text: Mean = field(default_factory=Mean)
    rest: Mean = field(default_factory=Mean)
    sizes: dict[tuple[int, int], _BySize] = field(default_factory=dict)


class Throughput:
    """The measured throughput of the engine."""

    def __init__(self) -> None:
        self._models: dict[str, _ByModel] = {}

    def observe(self, request: GenerationRequest, timings: Timings, whole_s: float, concurrency: float = 1.0) -> None:
        """Add the measurements of a finished request.

        whole_s: seconds from its start to its end in the engine. concurrency: mean number of concurrent requests during
        that time.
        """
        model = self._models.setdefault(request.model, _ByModel())
        size = model.sizes.setdefault((request.width, request.height), _BySize())
        finish_s = timings.decode + timings.safety + timings.encode
        size.step.add(sum(timings.steps) / (request.steps * request.count) / concurrency)
        size.finish.add(finish_s / request.count / concurrency)
        model.text.add(timings.text / concurrency)
        model.rest.add(max(0.0, whole_s - timings.inference - timings.encode) / concurrency)

    def seconds(self, request: GenerationRequest) -> float:
        """Return the estimated compute seconds of a request without concurrent requests."""
        model = self._models.get(request.model)
        if model is None:
            return INITIAL_ESTIMATE_S
        pixels = request.width * request.height
        nearest = min(model.sizes, key=lambda size: abs(size[0] * size[1] - pixels))
        size, ratio = model.sizes[nearest], pixels / (nearest[0] * nearest[1])
        image_s = request.steps * size.step.value + size.finish.value
        return model.text.value + model.rest.value + request.count * image_s * ratio

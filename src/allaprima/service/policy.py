"""The operator's limits on requests, within the limits of the models."""

from dataclasses import dataclass

from allaprima.domain.accounts import ApiKey
from allaprima.domain.fields import MAX_COUNT, MAX_SIDE, MAX_STEPS
from allaprima.domain.generation import GenerationRequest
from allaprima.errors import FieldProblem, InvalidRequest


@dataclass(frozen=True, slots=True)
class Policy:
    """The operator's limits. Images from the safety threshold on are withheld, so a lower threshold is stricter."""

    #: Longest side of an image in pixels.
    max_side: int = MAX_SIDE
    max_steps: int = MAX_STEPS
    max_count: int = MAX_COUNT
    #: Longest storage time of images that a request may ask for, in seconds.
    max_image_ttl_s: float = 366 * 86_400.0
    #: The safety threshold if neither the key nor the request sets one.
    default_safety_threshold: float = 0.8
    lowest_safety_threshold: float = 0.0
    highest_safety_threshold: float = 1.0
    #: Whether a request may disable the safety checker.
    safety_is_optional: bool = True

    def apply(self, request: GenerationRequest, image_ttl_s: float | None, key: ApiKey) -> GenerationRequest:
        """Return the request with its safety threshold set.

        Raises `InvalidRequest`, which names every field of `GenerationRequest` and `JobOptions` that this server does
        not allow with this key.
        """
        asked = {
            "width": (request.width, self.max_side),
            "height": (request.height, self.max_side),
            "steps": (request.steps, self.max_steps),
            "count": (request.count, self.max_count),
        }
        problems = [
            FieldProblem(name, f"must be at most {most} on this server; it is {value}")
            for name, (value, most) in asked.items()
            if value > most
        ]
        if image_ttl_s is not None and image_ttl_s > self.max_image_ttl_s:
            problem = f"must be at most {self.max_image_ttl_s:.0f} seconds on this server"
            problems.append(FieldProblem("image_ttl_s", problem))
        problems += self._safety_problems(request, key)
        if problems:
            raise InvalidRequest(*problems)
        return request.changed(safety_threshold=self._threshold(request, key))

    def _highest(self, key: ApiKey) -> float:
        of_key = key.safety_threshold
        return self.highest_safety_threshold if of_key is None else min(self.highest_safety_threshold, of_key)

    def _threshold(self, request: GenerationRequest, key: ApiKey) -> float:
        if request.safety_threshold is not None:
            return request.safety_threshold
        default = self.default_safety_threshold if key.safety_threshold is None else key.safety_threshold
        return min(self._highest(key), max(self.lowest_safety_threshold, default))

    def _safety_problems(self, request: GenerationRequest, key: ApiKey) -> list[FieldProblem]:
        problems = []
        lowest, highest = self.lowest_safety_threshold, self._highest(key)
        if request.safety_threshold is not None and not lowest <= request.safety_threshold <= highest:
            problem = f"must be from {min(lowest, highest)} to {highest} on this server with this key"
            problems.append(FieldProblem("safety_threshold", problem))
        if not request.check_safety and not (self.safety_is_optional and key.safety_threshold is None):
            problems.append(FieldProblem("check_safety", "cannot be disabled on this server with this key"))
        return problems

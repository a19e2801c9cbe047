from __future__ import annotations

from dataclasses import dataclass

from allaprima.weights.checkpoint.key_maps import Component
from allaprima.weights.formats.container import Container


@dataclass(frozen=True, slots=True)
class Unusable:
    what: str
    advice: str
    component: Component | None


def identify(container: Container) -> Unusable | None:
    return None

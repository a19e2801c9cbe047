"""What all fits share: a clock-bound schedule, and checkpoints that a later run resumes from.

A fit is given minutes, not steps; progress is the share of them that has been used, over all runs.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

#: The most that one step counts, in seconds: a machine that slept, or compiled, has not fitted anything meanwhile.
LONGEST_STEP_S = 10.0
#: Seconds between checkpoints.
CHECKPOINT_S = 60.0
#: Seconds between looks at what a fit has come to.
LOOK_S = 900.0
#: The learning rate stays up to this progress, then falls linearly to nothing.
DECAY_FROM = 0.3


@dataclass
class Progress:
    """How far a fit has come, by a clock of seconds that only goes forward."""

    minutes: float
    clock: Callable[[], float] = time.monotonic
    step: int = 0
    #: Seconds of fitting in earlier runs and this one; a step counts when it is done.
    elapsed_s: float = 0.0
    _saved: float = field(init=False)
    _looked: float = field(init=False)

    def __post_init__(self) -> None:
        self._saved = self._looked = self.clock()

    @property
    def share(self) -> float:
        """Used share of the minutes, 0 to 1."""
        return min(1.0, self.elapsed_s / (60 * self.minutes))

    @property
    def rate(self) -> float:
        """Factor on every learning rate now."""
        warm = min(1.0, (self.step + 1) / 100)
        return warm * min(1.0, (1.0 - self.share) / (1.0 - DECAY_FROM))

    def steps(self) -> Iterator[int]:
        """Count steps until the minutes are used up."""
        while self.share < 1.0:
            begun = self.clock()
            yield self.step
            self.elapsed_s += min(self.clock() - begun, LONGEST_STEP_S)
            self.step += 1

    def is_checkpoint_due(self) -> bool:
        """Say once per `CHECKPOINT_S` that it is time."""
        due = self.clock() - self._saved > CHECKPOINT_S
        if due:
            self._saved = self.clock()
        return due

    def is_look_due(self) -> bool:
        """Say once per `LOOK_S` that it is time."""
        due = self.clock() - self._looked > LOOK_S
        if due:
            self._looked = self.clock()
        return due

    def save(self, path: Path, networks: dict[str, nn.Module], optimizers: list[torch.optim.Optimizer]) -> None:
        """Write the state of the fit to `path`, whole or not at all."""
        state: dict[str, Any] = {
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "networks": {name: network.state_dict() for name, network in networks.items()},
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        }
        draft = path.with_suffix(".tmp")
        torch.save(state, draft)
        draft.replace(path)

    def resume(self, path: Path, networks: dict[str, nn.Module], optimizers: list[torch.optim.Optimizer]) -> None:
        """Go on from a checkpoint, where there is one."""
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        self.step, self.elapsed_s = state["step"], state["elapsed_s"]
        for name, network in networks.items():
            network.load_state_dict(state["networks"][name])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

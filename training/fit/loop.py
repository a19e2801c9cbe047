"""What all fits share: a schedule by the clock, clipped steps, and checkpoints that a later run resumes from.

A fit is given minutes, not steps; it has come as far as the share of them that has been used, over all runs.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.data.storage import write_whole
from training.fit.optimizers import Optimizers

#: The most that one step counts, in seconds: a machine that slept, or compiled, has not fitted anything meanwhile.
LONGEST_STEP_S = 10.0
#: Seconds between checkpoints.
CHECKPOINT_S = 60.0
#: Seconds between snapshots of what a fit has come to.
SNAPSHOT_S = 900.0
#: The learning rates rise over so many steps,
WARM_STEPS = 100
#: stay up to this share of the minutes, then fall linearly to nothing.
DECAY_FROM = 0.3


@dataclass
class Fit:
    """Networks, what moves all of their parameters, and how far that has come, by a clock that only goes forward.

    One that is made goes on from its checkpoint, where there is one.
    """

    checkpoint: Path
    networks: dict[str, nn.Module]
    optimizers: Optimizers
    minutes: float
    #: Of the random numbers that torch draws in the steps.
    seed: int
    clock: Callable[[], float] = time.monotonic
    step: int = 0
    #: Seconds of fitting in earlier runs and this one; a step counts when it is done.
    elapsed_s: float = 0.0

    _full_rates: list[list[float]] = field(init=False)
    _saved: float = field(init=False)
    _snapped: float = field(init=False)

    def __post_init__(self) -> None:
        # Before a checkpoint's rates take their place: those of now may be others.
        self._full_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]
        self._saved = self._snapped = self.clock()
        self._resume()

    @property
    def share(self) -> float:
        """Used share of the minutes, 0 to 1."""
        return min(1.0, self.elapsed_s / (60 * self.minutes)) if self.minutes else 1.0

    @property
    def rate(self) -> float:
        """Factor on every learning rate now."""
        warm = min(1.0, (self.step + 1) / WARM_STEPS)
        return warm * min(1.0, (1.0 - self.share) / (1.0 - DECAY_FROM))

    def steps(self) -> Iterator[int]:
        """Count steps until the minutes are used up, with checkpoints on the way.

        Torch's random numbers begin anew with every step, so that a step draws the same ones whether or not the fit
        was broken off before it.
        """
        while self.share < 1.0:
            begun = self.clock()
            torch.manual_seed(self.seed << 32 | self.step)
            yield self.step
            self.elapsed_s += min(self.clock() - begun, LONGEST_STEP_S)
            self.step += 1
            if self.clock() - self._saved > CHECKPOINT_S:
                self.save()
        self.save()

    def descend(self, loss: Tensor) -> None:
        """Move all parameters against a loss's gradient, whose norm is kept to 1, at the rates of now."""
        for optimizer, rates in zip(self.optimizers, self._full_rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = self.rate * rate
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        moved = [parameter for network in self.networks.values() for parameter in network.parameters()]
        nn.utils.clip_grad_norm_(moved, 1.0)
        for optimizer in self.optimizers:
            optimizer.step()

    def is_snapshot_due(self) -> bool:
        """Say once per `SNAPSHOT_S` that it is time."""
        due = self.clock() - self._snapped > SNAPSHOT_S
        if due:
            self._snapped = self.clock()
        return due

    def save(self) -> None:
        """Write the checkpoint."""
        state: dict[str, Any] = {
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        write_whole(state, self.checkpoint)
        self._saved = self.clock()

    def _resume(self) -> None:
        if not self.checkpoint.exists():
            return
        state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        self.step, self.elapsed_s = state["step"], state["elapsed_s"]
        for name, network in self.networks.items():
            network.load_state_dict(state["networks"][name])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

"""The fitting loop: a learning rate schedule by time, gradient clipping, and checkpoints for resuming.

The length of a fit is given in minutes, not in steps. The progress of a fit is the share of the minutes that all its
runs have used.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.data.storage import write_atomically
from training.fit.optimizers import Optimizers

#: Most seconds of a step that count as time of the fit. A longer step includes compilation or a suspended machine.
LONGEST_STEP_S = 10.0
#: Seconds between checkpoints.
CHECKPOINT_S = 60.0
#: Seconds between snapshots.
SNAPSHOT_S = 900.0
#: Number of steps in which the learning rates rise linearly.
WARM_STEPS = 100
#: Progress from which on the learning rates fall linearly to 0.
DECAY_FROM = 0.3


@dataclass
class Fit:
    """The state of a fit: networks, the optimizers of their parameters, number of steps, and time.

    A new instance resumes from its checkpoint file if it exists.
    """

    checkpoint: Path
    networks: dict[str, nn.Module]
    optimizers: Optimizers
    minutes: float
    #: Seed of torch's random numbers in the steps.
    seed: int
    #: Returns monotonic seconds.
    clock: Callable[[], float] = time.monotonic
    step: int = 0
    #: Seconds of the completed steps of all runs.
    elapsed_s: float = 0.0

    _base_rates: list[list[float]] = field(init=False)
    _saved_at: float = field(init=False)
    _snapshot_at: float = field(init=False)

    def __post_init__(self) -> None:
        # The base rates of this run apply. They are read before resuming, which replaces those in the optimizers.
        self._base_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]
        self._saved_at = self._snapshot_at = self.clock()
        self._resume()

    @property
    def progress(self) -> float:
        """The share of the minutes that all runs have used, 0 to 1."""
        return min(1.0, self.elapsed_s / (60 * self.minutes)) if self.minutes else 1.0

    @property
    def rate_factor(self) -> float:
        """The current factor of all learning rates, 0 to 1."""
        warm = min(1.0, (self.step + 1) / WARM_STEPS)
        return warm * min(1.0, (1.0 - self.progress) / (1.0 - DECAY_FROM))

    def steps(self) -> Iterator[int]:
        """Yield the number of each step until the minutes are used, and save checkpoints.

        Torch is seeded before each step, so the random numbers of a step do not depend on interruptions of the fit.
        """
        while self.progress < 1.0:
            started = self.clock()
            torch.manual_seed(self.seed << 32 | self.step)
            yield self.step
            self.elapsed_s += min(self.clock() - started, LONGEST_STEP_S)
            self.step += 1
            if self.clock() - self._saved_at > CHECKPOINT_S:
                self.save()
        self.save()

    def descend(self, loss: Tensor) -> None:
        """Run the backward pass of a loss and an optimizer step, with the norm of the gradient clipped to 1."""
        for optimizer, rates in zip(self.optimizers, self._base_rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = self.rate_factor * rate
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [parameter for network in self.networks.values() for parameter in network.parameters()]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in self.optimizers:
            optimizer.step()

    def is_snapshot_due(self) -> bool:
        """Whether `SNAPSHOT_S` seconds have passed since the start or since the last call that returned True."""
        due = self.clock() - self._snapshot_at > SNAPSHOT_S
        if due:
            self._snapshot_at = self.clock()
        return due

    def save(self) -> None:
        """Write the checkpoint."""
        state: dict[str, Any] = {
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        write_atomically(state, self.checkpoint)
        self._saved_at = self.clock()

    def _resume(self) -> None:
        if not self.checkpoint.exists():
            return
        state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        self.step, self.elapsed_s = state["step"], state["elapsed_s"]
        for name, network in self.networks.items():
            network.load_state_dict(state["networks"][name])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

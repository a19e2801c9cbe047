"""Every forward pass calls its `CancelCheck` before each stage, and stops when the check raises."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

import pytest
import torch
from torch import nn

from allaprima.flux import (
    Autoencoder,
    AutoencoderConfig,
    CancelCheck,
    CLIPConfig,
    CLIPTextEncoder,
    Flux,
    T5Config,
    T5Encoder,
    TransformerConfig,
)
from allaprima.flux.latents import image_ids, text_ids

TRANSFORMER = TransformerConfig(
    in_channels=8,
    vec_in_dim=6,
    context_in_dim=10,
    hidden_size=24,
    mlp_ratio=2.0,
    num_heads=2,
    depth=2,
    depth_single_blocks=3,
    axes_dim=(4, 4, 4),
)
T5 = T5Config(vocab_size=20, d_model=12, d_kv=4, d_ff=16, num_heads=3, num_layers=4, length=8)
CLIP = CLIPConfig(vocab_size=20, hidden_size=12, intermediate_size=16, num_heads=3, num_layers=4, length=8)
AUTOENCODER = AutoencoderConfig(
    ch=8, ch_mult=(1, 2, 2), num_res_blocks=1, z_channels=2, scale_factor=1.0, shift_factor=0.0, groups=4
)


class Stop(Exception):
    """Stop the pass."""


class EventLog:
    """The events of a pass in order, "check" and "stage". The check raises `Stop` on its `stop_at`-th call."""

    def __init__(self, stages: list[nn.Module], stop_at: int | None = None) -> None:
        self.events: list[str] = []
        self.stop_at = stop_at
        for stage in stages:
            stage.register_forward_pre_hook(self.enter)

    def enter(self, stage: nn.Module, args: tuple) -> None:
        self.events.append("stage")

    def check(self) -> None:
        self.events.append("check")
        if self.events.count("check") == self.stop_at:
            raise Stop


@dataclass(frozen=True)
class Pass:
    """A forward pass of a network: its stages in any order, their expected number, and a function that runs it."""

    stages: list[nn.Module]
    count: int
    run: Callable[[CancelCheck], object]


def modulations_pass() -> Pass:
    flux = Flux(TRANSFORMER)
    stages = [*(block.img_mod for block in flux.double_blocks), *(block.modulation for block in flux.single_blocks)]
    count = TRANSFORMER.depth + TRANSFORMER.depth_single_blocks
    return Pass(stages, count, lambda check: flux.modulations(torch.ones(2), torch.zeros(1, 6), check))


def velocity_pass() -> Pass:
    flux = Flux(TRANSFORMER)
    inputs = (torch.zeros(1, 6, 8), image_ids(2, 3), torch.zeros(1, 5, 10), text_ids(5))
    modulations = flux.modulations(torch.ones(1), torch.zeros(1, 6))
    count = TRANSFORMER.depth + TRANSFORMER.depth_single_blocks
    stages = [*flux.double_blocks, *flux.single_blocks]
    return Pass(stages, count, lambda check: flux.velocity(*inputs, modulations, check))


def t5_pass() -> Pass:
    t5 = T5Encoder(T5)
    return Pass([*t5.encoder.block], T5.num_layers, lambda check: t5(torch.ones(1, 8, dtype=torch.long), check))


def clip_pass() -> Pass:
    clip = CLIPTextEncoder(CLIP)
    layers = clip.text_model.encoder.layers
    return Pass([*layers], CLIP.num_layers, lambda check: clip(torch.ones(1, 8, dtype=torch.long), check))


def stages_of(levels: nn.ModuleList, middle: nn.Module) -> Iterator[nn.Module]:
    """The residual blocks, attentions and resamplings in the module tree."""
    for child in chain(*(level.children() for level in (*levels, middle))):
        yield from child if isinstance(child, nn.ModuleList) else (child,)


def encode_pass() -> Pass:
    autoencoder = Autoencoder(AUTOENCODER)
    stages = [*stages_of(autoencoder.encoder.down, autoencoder.encoder.mid)]
    return Pass(stages, 3 * 1 + 2 + 3, lambda check: autoencoder.encode(torch.zeros(1, 3, 8, 8), check))


def decode_pass() -> Pass:
    autoencoder = Autoencoder(AUTOENCODER)
    stages = [*stages_of(autoencoder.decoder.up, autoencoder.decoder.mid)]
    return Pass(stages, 3 + 3 * 2 + 2, lambda check: autoencoder.decoder(torch.zeros(1, 2, 2, 2), check))


PASSES = pytest.mark.parametrize(
    "make", [modulations_pass, velocity_pass, t5_pass, clip_pass, encode_pass, decode_pass]
)


@PASSES
def test_cancel_check_is_called_before_every_stage(make: Callable[[], Pass]) -> None:
    watched = make()
    log = EventLog(watched.stages)
    watched.run(log.check)
    assert len(watched.stages) == watched.count
    assert log.events == ["check", "stage"] * watched.count


@PASSES
def test_cancel_check_error_stops_forward_pass(make: Callable[[], Pass]) -> None:
    watched = make()
    log = EventLog(watched.stages, stop_at=3)
    with pytest.raises(Stop):
        watched.run(log.check)
    assert log.events == ["check", "stage", "check", "stage", "check"]


@PASSES
def test_network_is_reusable_after_cancelled_pass(make: Callable[[], Pass]) -> None:
    watched = make()
    log = EventLog(watched.stages, stop_at=1)
    with pytest.raises(Stop):
        watched.run(log.check)
    watched.run(log.check)
    assert log.events == ["check"] + ["check", "stage"] * watched.count

"""Weight streaming: weights are in memory only during their forward pass."""

import re
from pathlib import Path

import pytest
import torch

from allaprima.domain.models import Precision
from allaprima.kernels import QuantizedLinear
from allaprima.weights.checkpoint import loader
from allaprima.weights.networks import Model
from allaprima.weights.packed_cache import PackedWeightCache
from allaprima.weights.quantize import is_modulation, is_text
from tests.weights.published import Published, generate, load_checkpoint


def released(model: Model) -> set[str]:
    """Return the names of the tensors that are not loaded."""
    return {name for name, tensor in model.networks.state_dict().items() if tensor.is_meta}


@pytest.mark.parametrize("is_memory_short", [False, True])
def test_streamed_weights_are_loaded_only_during_forward_pass(
    checkpoint: Path,
    cache: PackedWeightCache,
    published: Published,
    monkeypatch: pytest.MonkeyPatch,
    is_memory_short: bool,
) -> None:
    monkeypatch.setattr(loader, "is_memory_short", lambda *_: is_memory_short)
    model = load_checkpoint(checkpoint, cache, published, Precision.INT8)
    linears = {n: m for n, m in model.networks.named_modules() if isinstance(m, QuantizedLinear)}
    streamed = {n: m for n, m in linears.items() if is_modulation(n) or (is_memory_short and is_text(n))}
    passes: list[tuple[str, bool]] = []
    for name, module in streamed.items():
        module.register_forward_pre_hook(lambda module, _, name=name: passes.append((name, module.weight.is_meta)))
    idle = released(model)
    assert {name.rpartition(".")[0] for name in idle} == streamed.keys()

    pixels = generate(model)

    assert dict(passes) == dict.fromkeys(streamed, False)
    assert released(model) == idle
    assert len(set(pixels.tobytes())) > 50


def test_weights_are_released_after_failed_forward_pass(
    checkpoint: Path, cache: PackedWeightCache, published: Published
) -> None:
    model = load_checkpoint(checkpoint, cache, published, Precision.INT8)
    idle = released(model)
    modulation = model.networks.transformer.single_blocks[0].modulation
    with pytest.raises(RuntimeError):
        modulation(torch.ones(1, 3))
    assert released(model) == idle


def test_streamed_weights_are_unmapped_after_forward_pass(
    checkpoint: Path, cache: PackedWeightCache, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/proc/self/maps").exists():
        pytest.skip("this system does not list what is mapped")
    monkeypatch.setattr(loader, "is_memory_short", lambda *_: True)
    model = load_checkpoint(checkpoint, cache, published, Precision.INT8)
    (packed,) = cache.folder.glob("packed/*/int8-*/")

    def mapped() -> set[str]:
        return set(re.findall(rf"{re.escape(str(packed))}/(\S+)", Path("/proc/self/maps").read_text()))

    seen: set[str] = set()
    for name, module in model.networks.named_modules():
        if is_modulation(name) and isinstance(module, QuantizedLinear):
            module.register_forward_pre_hook(lambda *_: seen.update(mapped()))
    before = mapped()
    generate(model)

    modulations = {file.name for file in packed.glob("*.modulation.safetensors")}
    assert modulations
    assert not modulations & before
    assert modulations <= seen
    assert mapped() == before

"""The packed-weight cache: revisions and packed weights between starts, damaged entries and full disks."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from allaprima.domain.models import Precision
from allaprima.errors import Cancelled, WeightsCorrupt, WeightsError, WeightsTooLarge
from allaprima.kernels import QuantizedLinear
from allaprima.weights import packed_cache
from allaprima.weights.checkpoint.loader import open_checkpoint
from allaprima.weights.packed_cache import PackedWeightCache
from allaprima.weights.quantize import LINEARS, build_networks, is_modulation, pack
from tests.weights.published import Published, generate, load_checkpoint

QUANTIZED = pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT8WO, Precision.INT4WO, Precision.FP8])


def change_one_bit(checkpoint: Path) -> None:
    """Change a weight, but neither the file's size nor its modification time."""
    file = checkpoint / "flux1-schnell.safetensors"
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[-1:] = bytes([content[-1] ^ 1])
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def packed_folder(cache: PackedWeightCache, precision: Precision = Precision.INT8) -> Path:
    (found,) = cache.folder.glob(f"packed/*/{precision}-*/")
    return found


def test_revision_is_same_in_every_precision(checkpoint: Path, cache: PackedWeightCache, published: Published) -> None:
    revisions = set()
    for number, precision in enumerate(Precision):
        model = load_checkpoint(checkpoint, PackedWeightCache(cache.folder / str(number)), published, precision)
        assert model.precision == precision
        revisions.add(model.revision)
    assert len(revisions) == 1
    assert re.fullmatch(r"[0-9a-f]{16}", revisions.pop())


def test_revision_is_cached_until_file_changes(
    checkpoint: Path, cache: PackedWeightCache, published: Published
) -> None:
    first = load_checkpoint(checkpoint, cache, published).revision

    change_one_bit(checkpoint)
    assert load_checkpoint(checkpoint, cache, published).revision == first

    (checkpoint / "flux1-schnell.safetensors").touch()
    assert load_checkpoint(checkpoint, cache, published).revision != first


def test_invalid_checkpoint_is_refused_on_every_load(
    checkpoint: Path, cache: PackedWeightCache, published: Published
) -> None:
    tensors = load_file(checkpoint / "ae.safetensors")
    tensors["decoder.conv_out.bias"][0] = torch.nan
    save_file(tensors, checkpoint / "ae.safetensors")

    for precision in (Precision.INT8, Precision.INT8, Precision.BF16):
        with pytest.raises(WeightsCorrupt, match=r"decoder\.conv_out\.bias holds values that are not finite"):
            load_checkpoint(checkpoint, cache, published, precision)


@QUANTIZED
def test_packed_weights_equal_weights_packed_in_memory(
    checkpoint: Path, cache: PackedWeightCache, published: Published, precision: Precision
) -> None:
    model = load_checkpoint(checkpoint, cache, published, precision)
    streamed: dict[str, Tensor] = {}
    for name, module in model.networks.named_modules():
        if is_modulation(name) and isinstance(module, QuantizedLinear):
            module.register_forward_pre_hook(
                lambda module, _, name=name: streamed.update({f"{name}.{k}": t for k, t in module.state_dict().items()})
            )
    model.networks.transformer.modulations(torch.ones(1), torch.ones(1, model.config.transformer.vec_in_dim))

    wanted: dict[str, Tensor] = {}
    networks = build_networks(model.config, precision)
    for name, tensor in published.networks.state_dict().items():
        wanted |= pack(networks, name, tensor.bfloat16())
    found = model.networks.state_dict() | streamed
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        # A CPU without fast bfloat16 converts it to float32.
        assert found[name].dtype in {tensor.dtype, torch.float32}
        kept = found[name].to(tensor.dtype)
        assert kept.view(torch.uint8).equal(tensor.view(torch.uint8)), name
    classes = {type(module) for module in model.networks.modules()}
    assert LINEARS[precision] in classes


def test_second_load_reads_only_packed_weights(
    checkpoint: Path, cache: PackedWeightCache, published: Published
) -> None:
    first = load_checkpoint(checkpoint, cache, published, Precision.INT8)
    pixels = generate(first)
    before = {file: file.stat().st_mtime_ns for file in packed_folder(cache).iterdir()}

    change_one_bit(checkpoint)
    second = load_checkpoint(checkpoint, cache, published, Precision.INT8)

    assert {file: file.stat().st_mtime_ns for file in packed_folder(cache).iterdir()} == before
    assert second.revision == first.revision
    assert (generate(second) == pixels).all()
    assert len(set(pixels.tobytes())) > 50


def test_interrupted_packing_starts_over(checkpoint: Path, cache: PackedWeightCache, published: Published) -> None:
    entry = cache.entry(checkpoint.glob("*.safetensors"))
    with contextlib.suppress(Cancelled), entry.writing_packed(Precision.INT8, 0) as writer:
        assert writer is not None
        writer.add({"clip.a": torch.ones(3)})
        writer.add({"t5.a": torch.ones(3)})
        raise Cancelled
    assert entry.packed_weights(Precision.INT8) is None

    model = load_checkpoint(checkpoint, cache, published, Precision.INT8)

    assert entry.packed_weights(Precision.INT8) is not None
    assert len(set(generate(model).tobytes())) > 50


def test_packing_removes_weights_of_older_kernels(
    checkpoint: Path, cache: PackedWeightCache, published: Published
) -> None:
    entry = cache.entry(checkpoint.glob("*.safetensors"))
    older, other_precision = entry.folder / "int8-0", entry.folder / "int8wo-0"
    for folder in (older, other_precision):
        folder.mkdir(parents=True)

    load_checkpoint(checkpoint, cache, published, Precision.INT8)

    assert not older.exists()
    assert other_precision.exists()


def test_concurrent_packing_gives_complete_weights(
    checkpoint: Path, cache: PackedWeightCache, published: Published
) -> None:
    script = (
        "import sys; from pathlib import Path; from allaprima.domain.models import Precision; "
        "from allaprima.weights.checkpoint.loader import open_checkpoint; "
        "from allaprima.weights.packed_cache import PackedWeightCache; a, b, c = map(Path, sys.argv[1:]); "
        "print(open_checkpoint(a, PackedWeightCache(b), c).load('cpu', Precision.INT8).revision)"
    )
    command = (sys.executable, "-c", script, str(checkpoint), str(cache.folder), str(published.tokenizers))
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    revisions = [process.communicate(timeout=120)[0] for process in both]
    expected = load_checkpoint(checkpoint, cache, published, Precision.INT8).revision + "\n"
    assert revisions == [expected, expected]


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "index.json").write_text("[]"),
        lambda folder: (folder / "clip.text_model.safetensors").write_bytes(b"junk"),
        lambda folder: (folder / "t5.shared.safetensors").unlink(),
        lambda folder: shutil.copy(folder / "t5.shared.safetensors", folder / "clip.text_model.safetensors"),
    ],
)  # fmt: skip
def test_damaged_packed_weights_are_refused_with_advice(
    checkpoint: Path, cache: PackedWeightCache, published: Published, damage: Callable[[Path], object]
) -> None:
    load_checkpoint(checkpoint, cache, published, Precision.INT8)
    damage(packed_folder(cache))

    with pytest.raises(WeightsCorrupt, match=r"remove the folder .*, and the next start rebuilds it") as refused:
        generate(load_checkpoint(checkpoint, cache, published, Precision.INT8))
    assert str(packed_folder(cache)) in str(refused.value)


def test_full_disk_is_refused_before_weights_are_read(
    checkpoint: Path, cache: PackedWeightCache, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(checkpoint)._replace(free=1000)
    monkeypatch.setattr(packed_cache.shutil, "disk_usage", lambda _: usage)

    with pytest.raises(WeightsTooLarge, match=r"need 0\.0 GiB of disk.*ALLAPRIMA_ENGINE__WEIGHTS_DIR"):
        load_checkpoint(checkpoint, cache, published, Precision.INT8)
    assert not list(cache.folder.rglob("*.safetensors"))


@pytest.mark.parametrize("precision", [Precision.BF16, Precision.INT8])
def test_unwritable_cache_is_refused_before_weights_are_read(
    checkpoint: Path, cache: PackedWeightCache, published: Published, precision: Precision
) -> None:
    cache.folder.write_text("a file in place of the folder")

    def check() -> None:
        raise AssertionError("a tensor is about to be read")

    with pytest.raises(WeightsError, match=r"can't be written .*ALLAPRIMA_ENGINE__WEIGHTS_DIR"):
        open_checkpoint(checkpoint, cache, published.tokenizers).load("cpu", precision, check)


def test_cancelled_load_leaves_no_unfinished_files(
    checkpoint: Path, cache: PackedWeightCache, published: Published
) -> None:
    remaining = 40

    def check() -> None:
        nonlocal remaining
        remaining -= 1
        if not remaining:
            raise Cancelled

    with pytest.raises(Cancelled):
        open_checkpoint(checkpoint, cache, published.tokenizers).load("cpu", Precision.INT8, check)
    assert not list(cache.folder.rglob("*.safetensors"))

"""What is kept of a checkpoint between starts: its revision and its packed forms; and the weights that are lent."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from allaprima.domain.generation import GenerationRequest
from allaprima.domain.models import Precision
from allaprima.engine.pipeline import Pipeline
from allaprima.errors import Cancelled, WeightsCorrupt, WeightsError, WeightsTooLarge
from allaprima.kernels import QuantizedLinear
from allaprima.weights import packed_cache as shelves
from allaprima.weights.checkpoint import loader as checkpoints
from allaprima.weights.checkpoint.loader import open_checkpoint
from allaprima.weights.networks import Model
from allaprima.weights.packed_cache import Shelf
from allaprima.weights.quantize import LINEARS, build_networks, is_modulation, is_text, pack
from weights.published import Published, write_bfl

REQUEST = GenerationRequest(prompt="a red apple on a beach", seed=7, model="flux/schnell", width=64, height=96, steps=2)
PACKED = pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT8WO, Precision.INT4WO, Precision.FP8])


@pytest.fixture
def checkpoint(tmp_path: Path, published: Published) -> Path:
    folder = tmp_path / "checkpoint"
    write_bfl(folder, published)
    return folder


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "shelf")


def load(checkpoint: Path, shelf: Shelf, published: Published, precision: Precision | None = None) -> Model:
    return open_checkpoint(checkpoint, shelf, published.tokenizers).load("cpu", precision)


def spoil(checkpoint: Path) -> None:
    """Change a number, and neither size nor time."""
    file = checkpoint / "flux1-schnell.safetensors"
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[-1:] = bytes([content[-1] ^ 1])
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def form_of(shelf: Shelf, precision: Precision = Precision.INT8) -> Path:
    (found,) = shelf.folder.glob(f"packed/*/{precision}-*/")
    return found


def test_the_revision_is_the_same_in_every_precision(checkpoint: Path, shelf: Shelf, published: Published) -> None:
    revisions = set()
    for number, precision in enumerate(Precision):
        model = load(checkpoint, Shelf(shelf.folder / str(number)), published, precision)
        assert model.precision == precision
        revisions.add(model.revision)
    assert len(revisions) == 1
    assert re.fullmatch(r"[0-9a-f]{16}", revisions.pop())


def test_the_revision_is_worked_out_once_and_again_when_a_file_has_changed(
    checkpoint: Path, shelf: Shelf, published: Published
) -> None:
    first = load(checkpoint, shelf, published).revision

    spoil(checkpoint)
    assert load(checkpoint, shelf, published).revision == first

    (checkpoint / "flux1-schnell.safetensors").touch()
    assert load(checkpoint, shelf, published).revision != first


def test_a_checkpoint_that_was_refused_is_refused_again(checkpoint: Path, shelf: Shelf, published: Published) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(checkpoint / "ae.safetensors")
    tensors["decoder.conv_out.bias"][0] = torch.nan
    save_file(tensors, checkpoint / "ae.safetensors")

    for precision in (Precision.INT8, Precision.INT8, Precision.BF16):
        with pytest.raises(WeightsCorrupt, match=r"decoder\.conv_out\.bias holds values that are not finite"):
            load(checkpoint, shelf, published, precision)


@PACKED
def test_the_packed_form_holds_what_packing_in_memory_gives(
    checkpoint: Path, shelf: Shelf, published: Published, precision: Precision
) -> None:
    model = load(checkpoint, shelf, published, precision)
    lent: dict[str, Tensor] = {}
    for name, module in model.networks.named_modules():
        if is_modulation(name) and isinstance(module, QuantizedLinear):
            module.register_forward_pre_hook(
                lambda module, _, name=name: lent.update({f"{name}.{k}": t for k, t in module.state_dict().items()})
            )
    model.networks.transformer.modulations(torch.ones(1), torch.ones(1, model.config.transformer.vec_in_dim))

    wanted: dict[str, Tensor] = {}
    networks = build_networks(model.config, precision)
    for name, tensor in published.networks.state_dict().items():
        wanted |= pack(networks, name, tensor.bfloat16())
    found = model.networks.state_dict() | lent
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        # A CPU that multiplies bfloat16 slowly widens it.
        assert found[name].dtype in {tensor.dtype, torch.float32}
        kept = found[name].to(tensor.dtype)
        assert kept.view(torch.uint8).equal(tensor.view(torch.uint8)), name
    kinds = {type(module) for module in model.networks.modules()}
    assert LINEARS[precision] in kinds


def test_the_second_start_reads_none_of_the_checkpoints_numbers(
    checkpoint: Path, shelf: Shelf, published: Published
) -> None:
    first = load(checkpoint, shelf, published, Precision.INT8)
    pixels = Pipeline(first, "cpu").paint(REQUEST)[0]
    before = {file: file.stat().st_mtime_ns for file in form_of(shelf).iterdir()}

    spoil(checkpoint)
    second = load(checkpoint, shelf, published, Precision.INT8)

    assert {file: file.stat().st_mtime_ns for file in form_of(shelf).iterdir()} == before
    assert second.revision == first.revision
    assert (Pipeline(second, "cpu").paint(REQUEST)[0] == pixels).all()
    assert len(set(pixels.tobytes())) > 50


def without_numbers(model: Model) -> set[str]:
    return {name for name, tensor in model.networks.state_dict().items() if tensor.is_meta}


@pytest.mark.parametrize("is_memory_short", [False, True])
def test_what_is_lent_has_numbers_during_its_pass_alone(
    checkpoint: Path, shelf: Shelf, published: Published, monkeypatch: pytest.MonkeyPatch, is_memory_short: bool
) -> None:
    monkeypatch.setattr(checkpoints, "is_short", lambda *_: is_memory_short)
    model = load(checkpoint, shelf, published, Precision.INT8)
    linears = {n: m for n, m in model.networks.named_modules() if isinstance(m, QuantizedLinear)}
    lent = {n: m for n, m in linears.items() if is_modulation(n) or (is_memory_short and is_text(n))}
    given: list[tuple[str, bool]] = []
    for name, module in lent.items():
        module.register_forward_pre_hook(lambda module, _, name=name: given.append((name, module.weight.is_meta)))
    idle = without_numbers(model)
    assert {name.rpartition(".")[0] for name in idle} == lent.keys()

    pixels = Pipeline(model, "cpu").paint(REQUEST)[0]

    assert dict(given) == dict.fromkeys(lent, False)
    assert without_numbers(model) == idle
    assert len(set(pixels.tobytes())) > 50


def test_a_pass_that_fails_gives_back_what_it_was_lent(checkpoint: Path, shelf: Shelf, published: Published) -> None:
    model = load(checkpoint, shelf, published, Precision.INT8)
    idle = without_numbers(model)
    modulation = model.networks.transformer.single_blocks[0].modulation
    with pytest.raises(RuntimeError):
        modulation(torch.ones(1, 3))
    assert without_numbers(model) == idle


def test_files_of_what_is_lent_are_unmapped_after_its_pass(
    checkpoint: Path, shelf: Shelf, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/proc/self/maps").exists():
        pytest.skip("this system does not tell what is mapped")
    monkeypatch.setattr(checkpoints, "is_short", lambda *_: True)
    model = load(checkpoint, shelf, published, Precision.INT8)
    form = form_of(shelf)

    def mapped() -> set[str]:
        return set(re.findall(rf"{re.escape(str(form))}/(\S+)", Path("/proc/self/maps").read_text()))

    seen: set[str] = set()
    for name, module in model.networks.named_modules():
        if is_modulation(name) and isinstance(module, QuantizedLinear):
            module.register_forward_pre_hook(lambda *_: seen.update(mapped()))
    before = mapped()
    Pipeline(model, "cpu").paint(REQUEST)

    modulations = {file.name for file in form.glob("*.modulation.safetensors")}
    assert modulations
    assert not modulations & before
    assert modulations <= seen
    assert mapped() == before


def test_a_packing_that_broke_off_is_begun_anew(checkpoint: Path, shelf: Shelf, published: Published) -> None:
    place = shelf.place(checkpoint.glob("*.safetensors"))
    with contextlib.suppress(Cancelled), place.packing(Precision.INT8, 0) as packer:
        assert packer is not None
        packer.add({"clip.a": torch.ones(3)})
        packer.add({"t5.a": torch.ones(3)})
        raise Cancelled
    assert place.packed(Precision.INT8) is None

    model = load(checkpoint, shelf, published, Precision.INT8)

    assert place.packed(Precision.INT8) is not None
    assert len(set(Pipeline(model, "cpu").paint(REQUEST)[0].tobytes())) > 50


def test_a_form_in_an_older_layout_makes_room_for_the_new_one(
    checkpoint: Path, shelf: Shelf, published: Published
) -> None:
    place = shelf.place(checkpoint.glob("*.safetensors"))
    older, other = place.folder / "int8-0", place.folder / "int8wo-0"
    for folder in (older, other):
        folder.mkdir(parents=True)

    load(checkpoint, shelf, published, Precision.INT8)

    assert not older.exists()
    assert other.exists()


def test_two_processes_that_pack_at_once_both_get_the_whole_form(
    checkpoint: Path, shelf: Shelf, published: Published
) -> None:
    script = (
        "import sys; from pathlib import Path; from allaprima.weights.checkpoint.loader import open_checkpoint; "
        "from allaprima.weights.packed_cache import Shelf; from allaprima.domain.models import Precision; "
        "a, b, c = map(Path, sys.argv[1:]); print(open_checkpoint(a, Shelf(b), c).load('cpu', Precision.INT8).revision)"
    )
    command = (sys.executable, "-c", script, str(checkpoint), str(shelf.folder), str(published.tokenizers))
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate(timeout=120)[0] for process in both]
    assert told[0] == told[1] == load(checkpoint, shelf, published, Precision.INT8).revision + "\n"


@pytest.mark.parametrize(
    "damage",
    [
        lambda form: (form / "index.json").write_text("[]"),
        lambda form: (form / "clip.text_model.safetensors").write_bytes(b"junk"),
        lambda form: (form / "t5.shared.safetensors").unlink(),
        lambda form: shutil.copy(form / "t5.shared.safetensors", form / "clip.text_model.safetensors"),
    ],
)  # fmt: skip
def test_a_damaged_packed_form_is_refused_with_what_to_do(
    checkpoint: Path, shelf: Shelf, published: Published, damage: object
) -> None:
    load(checkpoint, shelf, published, Precision.INT8)
    damage(form_of(shelf))

    with pytest.raises(WeightsCorrupt, match=r"remove (the|that) folder.* and it will be made anew") as refused:
        Pipeline(load(checkpoint, shelf, published, Precision.INT8), "cpu").paint(REQUEST)
    assert str(form_of(shelf)) in str(refused.value)


def test_a_disk_that_is_too_small_is_refused_before_anything_is_read(
    checkpoint: Path, shelf: Shelf, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(checkpoint)._replace(free=1000)
    monkeypatch.setattr(shelves.shutil, "disk_usage", lambda _: usage)

    with pytest.raises(WeightsTooLarge, match=r"takes 0\.0 GiB of disk.*ALLAPRIMA_ENGINE__WEIGHTS_DIR"):
        load(checkpoint, shelf, published, Precision.INT8)
    assert not list(shelf.folder.rglob("*.safetensors"))


@pytest.mark.parametrize("precision", [Precision.BF16, Precision.INT8])
def test_a_shelf_that_can_not_be_written_is_named_before_anything_is_read(
    checkpoint: Path, shelf: Shelf, published: Published, precision: Precision
) -> None:
    shelf.folder.write_text("a file where a folder should be")

    def check() -> None:
        raise AssertionError("a tensor is about to be read")

    with pytest.raises(WeightsError, match=r"can't be written .*ALLAPRIMA_ENGINE__WEIGHTS_DIR"):
        open_checkpoint(checkpoint, shelf, published.tokenizers).load("cpu", precision, check)


def test_a_load_that_is_stopped_leaves_nothing_unfinished(checkpoint: Path, shelf: Shelf, published: Published) -> None:
    left = 40

    def check() -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Cancelled

    with pytest.raises(Cancelled):
        open_checkpoint(checkpoint, shelf, published.tokenizers).load("cpu", Precision.INT8, check)
    assert not list(shelf.folder.rglob("*.safetensors"))

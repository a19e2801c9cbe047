"""Number formats of layers: read right, or refused by name before a scale is applied."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from allaprima.domain.models import Precision
from allaprima.errors import WeightsCorrupt
from allaprima.weights.checkpoint.loader import open_checkpoint
from allaprima.weights.networks import Networks
from allaprima.weights.packed_cache import PackedWeightCache
from tests.weights.published import Published, Tensors, load_checkpoint, write_bfl, write_bundle, write_diffusers
from tests.weights.published_quantized import as_bytes, declared, in_4bit, pack_4bit

FILE = "flux1-schnell.safetensors"
LAYER = "single_blocks.0.linear1"


def loaded(path: Path, published: Published) -> Networks:
    cache = PackedWeightCache(path.with_name(f"{path.name}-cache"))
    return load_checkpoint(path, cache, published, Precision.BF16).networks


def write_changed(folder: Path, published: Published, changes: Tensors, metadata: dict[str, str] | None = None) -> None:
    write_bfl(folder, published)
    save_file(load_file(folder / FILE) | changes, folder / FILE, metadata)


# 4 bits ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True])
def test_bfl_and_t5_files_in_4_bits_have_the_values_that_the_codes_mean(
    tmp_path: Path, published: Published, kind: str, *, nested: bool
) -> None:
    write_bfl(tmp_path, published)
    wanted = {}
    for component, file in (("transformer", FILE), ("t5", "t5xxl_fp16.safetensors")):
        stored, wanted[component] = in_4bit(published.tensors(component), kind=kind, nested=nested)
        save_file(stored, tmp_path / file)
    networks = loaded(tmp_path, published)
    for component, tensors in wanted.items():
        state = networks.get_submodule(component).state_dict()
        assert all(torch.equal(state[name], tensors[name].bfloat16()) for name in tensors)


def test_bundle_in_nf4_has_the_values_that_the_codes_mean(tmp_path: Path, published: Published) -> None:
    write_bundle(tmp_path, published, lambda tensors: in_4bit(tensors)[0])
    _, wanted = in_4bit(published.tensors("transformer"))
    state = loaded(tmp_path, published).transformer.state_dict()
    assert all(torch.equal(state[name], wanted[name].bfloat16()) for name in wanted)


def test_diffusers_transformer_in_nf4_has_the_values_that_the_codes_mean(tmp_path: Path, published: Published) -> None:
    write_diffusers(tmp_path, published)
    name = "transformer_blocks.0.attn.to_k.weight"
    for shard in (tmp_path / "transformer").glob("*.safetensors"):
        tensors = load_file(shard)
        if name in tensors:
            packed, meant = pack_4bit(name, tensors[name], nested=True)
            save_file(tensors | packed, shard)
    state = loaded(tmp_path, published).transformer.state_dict()
    assert torch.equal(state["double_blocks.0.img_attn.qkv.weight"][64:128], meant.bfloat16())


WEIGHT = f"{LAYER}.weight"
STATE = f"{WEIGHT}.quant_state.bitsandbytes__nf4"


def with_field(field: str, value: object) -> Callable[[Tensors], None]:
    def change(packed: Tensors) -> None:
        packed[STATE] = as_bytes(json.loads(bytes(packed[STATE].tolist())) | {field: value})

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_field("shape", [0, 64]), "invalid shape"),
        (with_field("shape", [2**40, 64]), "invalid shape"),
        (with_field("shape", [2**30, 2**30]), "needs .* bytes for the shape"),
        (with_field("shape", "big"), "invalid shape"),
        (with_field("shape", [True, 64]), "invalid shape"),
        (with_field("blocksize", -64), "invalid blocksize"),
        (with_field("blocksize", [64]), "invalid blocksize"),
        (with_field("blocksize", 128), "absmax has the shape"),
        (with_field("quant_type", "fp4"), "invalid quant_type"),
        (with_field("dtype", {}), "invalid dtype"),
        (with_field("nested_blocksize", 0), "invalid nested_blocksize"),
        (with_field("nested_offset", float("nan")), "invalid nested_(blocksize|offset)"),
        (lambda packed: packed.pop(f"{WEIGHT}.absmax"), "lacks the tensor .*absmax"),
        (lambda packed: packed.pop(f"{WEIGHT}.quant_map"), "lacks the tensor .*quant_map"),
        (lambda packed: packed[f"{WEIGHT}.quant_map"].mul_(2), "quant_map is not that of nf4"),
        (lambda packed: packed[f"{WEIGHT}.absmax"].fill_(float("inf")), "absmax holds values that are not finite"),
        (lambda packed: packed.update({STATE: torch.zeros(9000, dtype=torch.uint8)}), "not a description"),
        (lambda packed: packed.update({STATE: torch.tensor([123], dtype=torch.uint8)}), "is not valid JSON"),
        (lambda packed: packed.update({STATE: as_bytes([1])}), "is not a JSON object"),
        (lambda packed: packed.pop(STATE), "unexpected tensor .*absmax"),
        (lambda packed: packed.update({f"{LAYER}.weight_scale": torch.ones(())}), "stored in nf4 and has the scale"),
    ],
)
def test_invalid_matrix_in_4_bits_is_refused_by_field(
    tmp_path: Path, published: Published, change: Callable[[Tensors], object], message: str
) -> None:
    packed, _ = pack_4bit(WEIGHT, published.tensors("transformer")[WEIGHT])
    change(packed)
    write_changed(tmp_path, published, packed)
    with pytest.raises(WeightsCorrupt, match=f"{FILE}.*{message}"):
        loaded(tmp_path, published)


# Scales ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("stored_as", [None, torch.uint8])
def test_declared_float8_is_read_from_float8_and_from_bytes(
    tmp_path: Path, published: Published, kind: torch.dtype, stored_as: torch.dtype | None
) -> None:
    write_bundle(tmp_path, published, lambda tensors: declared(tensors, kind, stored_as=stored_as))
    state = loaded(tmp_path, published).transformer.state_dict()
    for name, tensor in published.tensors("transformer").items():
        wanted = (tensor * 4).to(kind).float() / 4 if tensor.ndim == 2 else tensor.float()
        assert torch.equal(state[name].float(), wanted), name


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_metadata_declares_float8_with_or_without_the_prefix_of_a_bundle(
    tmp_path: Path, published: Published, prefix: str
) -> None:
    write_bundle(tmp_path, published)
    [file] = tmp_path.iterdir()
    tensors = load_file(file)
    full = f"model.diffusion_model.{WEIGHT}"
    in_float8 = tensors[full].to(torch.float8_e4m3fn)
    tensors |= {full: in_float8.view(torch.uint8), full.replace(".weight", ".weight_scale"): torch.tensor(2.0)}
    layers = {f"{prefix}{LAYER}": {"format": "float8_e4m3fn"}}
    save_file(tensors, file, {"_quantization_metadata": json.dumps({"layers": layers})})
    state = loaded(tmp_path, published).transformer.state_dict()
    assert torch.equal(state[WEIGHT].float(), 2 * in_float8.float())


ROWS = torch.ones(448, 64)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"": ROWS.to(torch.uint8), "_scale": torch.ones(())}, "stored as U8 with the scale .* does not declare"),
        ({"": ROWS.to(torch.int8), "_scale": torch.ones(())}, "stored as I8 with the scale .* may be rotated"),
        ({"": ROWS.to(torch.int8), "_scale": torch.ones(448, 1)}, "stored as I8 with the scale .* may be rotated"),
        ({"": ROWS, "_scale": torch.ones(())}, "stored as F32 and has the scale .*only float8"),
        ({"": ROWS.bfloat16(), "_scale": torch.ones(())}, "stored as BF16 and has the scale"),
        ({"": ROWS.to(torch.float8_e4m3fn), "_scale": torch.ones((), dtype=torch.uint8)}, "is stored as U8; scales"),
        ({"": ROWS.to(torch.float8_e4m3fn), "_scale": torch.tensor(float("nan"))}, "must be positive, not nan"),
        ({"": ROWS.to(torch.float8_e4m3fn), "_scale": torch.tensor(0.0)}, "must be positive, not 0.0"),
        ({"": ROWS.bfloat16(), "format": "float8_e4m3fn"}, "declared as float8_e4m3fn, and stored as BF16"),
        ({"": ROWS.to(torch.int8), "format": "float8_e4m3fn"}, "declared as float8_e4m3fn, and stored as I8"),
        ({"": ROWS.to(torch.float8_e5m2), "format": "float8_e4m3fn"}, "declared as .*e4m3fn, and stored as F8_E5M2"),
        ({"": ROWS.to(torch.int8), "format": "int8_tensorwise"}, "is stored as 'int8_tensorwise'"),
    ],
)
def test_stored_format_that_does_not_fit_is_refused_by_layer(
    tmp_path: Path, published: Published, tensors: dict, message: str
) -> None:
    changes = {WEIGHT + end: tensor for end, tensor in tensors.items() if end != "format"}
    if "format" in tensors:
        changes |= {f"{LAYER}.comfy_quant": as_bytes({"format": tensors["format"]})}
        changes |= {f"{LAYER}.weight_scale": torch.ones(())}
    write_changed(tmp_path, published, changes)
    with pytest.raises(WeightsCorrupt, match=rf"{FILE}: (the scale )?{LAYER}.*{message}"):
        loaded(tmp_path, published)


def test_rotated_layer_is_refused_whatever_its_format(tmp_path: Path, published: Published) -> None:
    marker = as_bytes({"format": "float8_e4m3fn", "convrot": True})
    changes = {f"{LAYER}.comfy_quant": marker, WEIGHT: ROWS.to(torch.float8_e4m3fn)}
    write_changed(tmp_path, published, changes)
    with pytest.raises(WeightsCorrupt, match=rf"{LAYER}.comfy_quant is stored as 'float8_e4m3fn with convrot'"):
        loaded(tmp_path, published)


# Zeros ----------------------------------------------------------------------------------------------------------------


def test_matrix_of_zeros_is_refused_and_saves_no_revision(tmp_path: Path, published: Published) -> None:
    write_changed(tmp_path / "model", published, {WEIGHT: torch.zeros(448, 64).bfloat16()})
    cache = PackedWeightCache(tmp_path / "cache")
    files = open_checkpoint(tmp_path / "model", cache, published.tokenizers)
    for precision in (Precision.BF16, Precision.INT8):
        with pytest.raises(WeightsCorrupt, match=rf"{FILE}: the tensor {WEIGHT} holds only zeros.*download it again"):
            files.load(precision=precision)
    entry = cache.entry({file for one in files.components.values() for file in one.container.files})
    assert entry.revision is None
    assert entry.packed_weights(Precision.INT8) is None


@pytest.mark.parametrize("file", [FILE, "t5xxl_fp16.safetensors", "ae.safetensors"])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_file_whose_end_is_zeros_is_refused_when_it_is_opened(
    tmp_path: Path, published: Published, file: str, part: float
) -> None:
    write_bfl(tmp_path, published)
    data = (tmp_path / file).read_bytes()
    kept = int(len(data) * part)
    (tmp_path / file).write_bytes(data[:kept] + bytes(len(data) - kept))
    with pytest.raises(WeightsCorrupt, match=rf"{file} holds only zeros from about byte \d+ on, in the tensor"):
        open_checkpoint(tmp_path, PackedWeightCache(tmp_path / "cache"), published.tokenizers)


def test_matrix_that_ends_in_zeros_is_refused(tmp_path: Path, published: Published) -> None:
    weight = published.tensors("transformer")[WEIGHT].clone()
    weight[-200:] = 0
    write_changed(tmp_path, published, {WEIGHT: weight})
    with pytest.raises(WeightsCorrupt, match=rf"{FILE}: the tensor {WEIGHT} ends in zeros"):
        loaded(tmp_path, published)


def test_biases_of_zeros_are_accepted(tmp_path: Path, published: Published) -> None:
    tensors = published.tensors("transformer")
    write_changed(tmp_path, published, {n: torch.zeros_like(t) for n, t in tensors.items() if n.endswith(".bias")})
    assert not loaded(tmp_path, published).transformer.state_dict()["img_in.bias"].any()

"""Published checkpoints: one picture from every layout, and a sentence for every file that is not what it should be."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from allaprima.domain.generation import GenerationRequest
from allaprima.domain.models import Precision
from allaprima.engine.pipeline import Pipeline
from allaprima.errors import WeightsCorrupt, WeightsMissing, WeightsTooLarge, WeightsUnsafe
from allaprima.flux import SCHNELL
from allaprima.weights import quantize
from allaprima.weights.checkpoint.infer_config import read_config
from allaprima.weights.checkpoint.key_maps import Part
from allaprima.weights.checkpoint.loader import CheckpointFiles, open_checkpoint
from allaprima.weights.formats.containers import open_container
from allaprima.weights.networks import Networks
from allaprima.weights.open import open_model
from allaprima.weights.packed_cache import Shelf
from weights.published import (
    CONFIG,
    LOSSLESS,
    Published,
    Tensors,
    make_networks,
    write_bfl,
    write_bundle,
    write_diffusers,
    write_gguf,
)

REQUEST = GenerationRequest(prompt="a red apple on a beach", seed=7, model="flux/schnell", width=64, height=96, steps=2)


def opened(path: Path, published: Published) -> CheckpointFiles:
    return open_checkpoint(path, Shelf(path.with_name(f"{path.name}-shelf")), published.tokenizers)


def paint(path: Path, published: Published) -> tuple[str, bytes]:
    """Return the revision and the pixels of a checkpoint's picture."""
    model = opened(path, published).load(precision=Precision.BF16)
    return model.revision, Pipeline(model, "cpu").paint(REQUEST)[0].tobytes()


@pytest.fixture(scope="module")
def reference(published: Published, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes]:
    folder = tmp_path_factory.mktemp("reference")
    write_bfl(folder, published)
    return paint(folder, published)


# Layouts --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LOSSLESS)
def test_every_lossless_layout_gives_the_same_picture_and_revision(
    tmp_path: Path, published: Published, reference: tuple[str, bytes], layout: str
) -> None:
    LOSSLESS[layout](tmp_path, published)
    assert paint(tmp_path, published) == reference
    assert len(set(reference[1])) > 100


def test_the_reference_is_painted_by_the_weights_that_were_written(
    published: Published, tmp_path: Path, reference: tuple[str, bytes]
) -> None:
    write_bfl(tmp_path, published)
    loaded = opened(tmp_path, published).load(precision=Precision.BF16).networks.state_dict()
    wanted = published.networks.state_dict()
    assert loaded.keys() == wanted.keys()
    assert all(torch.equal(loaded[name].float(), wanted[name]) for name in wanted)


def test_a_diffusers_folder_needs_nothing_beside_it(tmp_path: Path, published: Published) -> None:
    write_diffusers(tmp_path, published)
    shutil.copytree(published.tokenizers, tmp_path, dirs_exist_ok=True)
    assert open_model(tmp_path).id == "flux/schnell"
    # Black Forest Labs' repository has the single files in the same folder.
    write_bfl(tmp_path, published)
    assert open_model(tmp_path).id == "flux/schnell"


def test_the_sizes_of_schnell_are_read_off_its_shapes() -> None:
    with torch.device("meta"):
        networks = Networks(SCHNELL)
    shapes = [
        {name: tuple(tensor.shape) for name, tensor in networks.get_submodule(part).state_dict().items()}
        for part in Part
    ]
    assert read_config(*shapes) == SCHNELL


# Packed numbers -------------------------------------------------------------------------------------------------------


def in_fp8(tensors: Tensors) -> Tensors:
    return {name: tensor.to(torch.float8_e4m3fn) for name, tensor in tensors.items()}


def scaled(marker: str, suffix: str) -> Callable[[Tensors], Tensors]:
    """Matrices in fp8 with a factor of a quarter beside them, as ComfyUI's two formats have it."""

    def change(tensors: Tensors) -> Tensors:
        changed: Tensors = {}
        for name, tensor in tensors.items():
            if tensor.ndim != 2:
                changed[name] = tensor
                continue
            layer = name.removesuffix(".weight")
            changed[name] = (tensor * 4).to(torch.float8_e4m3fn)
            changed[layer + suffix] = torch.tensor(0.25)
            if marker == "comfy_quant":
                told = json.dumps({"format": "float8_e4m3fn"}).encode()
                changed[f"{layer}.comfy_quant"] = torch.tensor(list(told), dtype=torch.uint8)
            else:
                changed[f"{layer}.scale_input"] = torch.tensor(1.0)
        if marker == "scaled_fp8":
            changed["scaled_fp8"] = torch.zeros(0)
        return changed

    return change


@pytest.mark.parametrize(
    ("change", "factor"),
    [(in_fp8, 1), (scaled("scaled_fp8", ".scale_weight"), 4), (scaled("comfy_quant", ".weight_scale"), 4)],
    ids=["unscaled", "scaled", "comfy_quant"],
)
def test_fp8_is_read_as_the_numbers_that_it_stands_for(
    tmp_path: Path, published: Published, change: Callable[[Tensors], Tensors], factor: int
) -> None:
    write_bundle(tmp_path, published, change)
    loaded = opened(tmp_path, published).load(precision=Precision.BF16).networks
    for part in ("transformer", "t5"):
        for name, tensor in published.tensors(part).items():
            is_packed = factor == 1 or tensor.ndim == 2
            wanted = (tensor * factor).to(torch.float8_e4m3fn).float() / factor if is_packed else tensor.float()
            assert torch.equal(loaded.get_submodule(part).state_dict()[name].float(), wanted), name


def test_an_unknown_number_format_is_refused_by_name(tmp_path: Path, published: Published) -> None:
    def change(tensors: Tensors) -> Tensors:
        told = torch.tensor(list(b'{"format": "nvfp4"}'), dtype=torch.uint8)
        return tensors | {"img_in.comfy_quant": told}

    write_bundle(tmp_path, published, change)
    with pytest.raises(WeightsCorrupt, match=r"fp8.safetensors: .*img_in.comfy_quant is stored as 'nvfp4'"):
        opened(tmp_path, published)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "F16", "F32"])
def test_gguf_blocks_are_read_as_the_library_unpacks_them(tmp_path: Path, kind: str) -> None:
    quantization = gguf.GGMLQuantizationType[kind]
    values = torch.randn(6, 64, generator=torch.Generator().manual_seed(1))
    write_gguf(tmp_path / "one.gguf", {"matrix": values, "vector": values[0]}, quantization)
    read = open_container(tmp_path / "one.gguf")
    assert read.shapes == {"matrix": (6, 64), "vector": (64,)}
    wanted = gguf.dequantize(gguf.quantize(values.numpy(), quantization), quantization)
    assert np.array_equal(read.read("matrix").float().numpy(), wanted.astype(np.float32))
    assert torch.equal(read.read("vector"), values[0])


@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"])
def test_blocks_made_by_hand_are_read_as_the_library_unpacks_them(tmp_path: Path, kind: str) -> None:
    quantization = gguf.GGMLQuantizationType[kind]
    block, size = gguf.GGML_QUANT_SIZES[quantization]
    columns = 512
    packed = np.random.default_rng(3).integers(0, 255, (4, columns // block * size), dtype=np.uint8)
    # Half-precision factors stand at places of their own in each type; small bytes keep them all finite.
    packed &= 0x3B
    writer = gguf.GGUFWriter(tmp_path / "one.gguf", "flux")
    writer.add_tensor("matrix", packed, raw_dtype=quantization)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    read = open_container(tmp_path / "one.gguf")
    assert read.shapes == {"matrix": (4, columns)}
    assert np.array_equal(read.read("matrix").numpy(), gguf.dequantize(packed, quantization))


# Refusals -------------------------------------------------------------------------------------------------------------


def changed(folder: Path, name: str, change: Callable[[Tensors], object]) -> None:
    tensors = load_file(folder / name)
    change(tensors)
    save_file(tensors, folder / name)


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("flux1-schnell.safetensors", lambda t: t.pop("img_in.bias"), "lacks the tensor img_in.bias"),
        ("ae.safetensors", lambda t: t.pop("decoder.conv_out.bias"), "lacks the tensor decoder.conv_out.bias"),
        ("flux1-schnell.safetensors", lambda t: t.update(extra=torch.ones(1)), "has the unexpected tensor extra"),
        ("clip_l.safetensors", lambda t: t.update(extra=torch.ones(1)), "has the unexpected tensor extra"),
        (
            "flux1-schnell.safetensors",
            lambda t: t.update({"txt_in.bias": torch.ones(63)}),
            r"the tensor txt_in.bias has the shape \(63,\), not \(64,\)",
        ),
        (
            "flux1-schnell.safetensors",
            lambda t: t.update({"guidance_in.in_layer.bias": torch.ones(64)}),
            r"is FLUX.1 \[dev\]",
        ),
        (
            "t5xxl_fp16.safetensors",
            lambda t: t.pop("encoder.final_layer_norm.weight"),
            "lacks the tensor encoder.final",
        ),
    ],
)
def test_a_tensor_that_should_not_be_as_it_is_is_refused_by_file_and_name(
    tmp_path: Path, published: Published, file: str, change: Callable[[Tensors], object], words: str
) -> None:
    write_bfl(tmp_path, published)
    changed(tmp_path, file, change)
    with pytest.raises(WeightsCorrupt, match=f"{tmp_path / file}.*{words}"):
        opened(tmp_path, published)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_refused_by_file_and_name(
    tmp_path: Path, published: Published, value: float
) -> None:
    write_bfl(tmp_path, published)
    changed(tmp_path, "ae.safetensors", lambda tensors: tensors["encoder.conv_in.bias"].fill_(value))
    files = opened(tmp_path, published)
    with pytest.raises(WeightsCorrupt, match=r"ae.safetensors: the tensor encoder.conv_in.bias holds values"):
        files.load(precision=Precision.BF16)


def test_a_missing_part_is_named_with_a_file_that_has_it(tmp_path: Path, published: Published) -> None:
    write_bfl(tmp_path, published)
    (tmp_path / "ae.safetensors").unlink()
    (tmp_path / "t5xxl_fp16.safetensors").unlink()
    with pytest.raises(WeightsMissing, match=r"holds no T5 .*t5xxl_fp16.*, no autoencoder \(such as ae.safetensors\)"):
        opened(tmp_path, published)


def test_a_part_that_is_there_twice_is_refused_by_both_names(tmp_path: Path, published: Published) -> None:
    write_bfl(tmp_path, published)
    write_gguf(tmp_path / "another.gguf", published.tensors("transformer"))
    with pytest.raises(WeightsCorrupt, match=r"the transformer twice, in .*another.gguf and .*schnell.safetensors"):
        opened(tmp_path, published)


def test_a_missing_shard_is_named(tmp_path: Path, published: Published) -> None:
    write_diffusers(tmp_path, published)
    shard = sorted((tmp_path / "transformer").glob("*.safetensors"))[1]
    assert len(list(shard.parent.glob("*.safetensors"))) > 2
    shard.unlink()
    with pytest.raises(WeightsMissing, match=f"names the file {shard.name}, which is not there"):
        opened(tmp_path, published)


@pytest.mark.parametrize("name", ["model.pt", "model.ckpt", "model.bin", "model.pt2", "model.safetensors"])
def test_pickles_are_refused_with_the_reason(tmp_path: Path, published: Published, name: str) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / name)
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(WeightsUnsafe, match=rf"{tmp_path / name} is a pickle.* runs"):
            opened(path, published)


def test_nothing_is_refused_in_words_too(tmp_path: Path, published: Published) -> None:
    with pytest.raises(WeightsMissing, match="holds no safetensors or GGUF file"):
        opened(tmp_path, published)
    with pytest.raises(WeightsMissing, match="there is no file or folder"):
        opened(tmp_path / "nowhere", published)


def test_more_than_the_free_memory_is_refused_before_anything_is_read(
    tmp_path: Path, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bfl(tmp_path, published)
    monkeypatch.setattr(quantize, "WORKING_BYTES", 2**60)
    with pytest.raises(WeightsTooLarge, match=r"needs 1073741824.\d GiB of memory in int8, and .* free on cpu"):
        opened(tmp_path, published).load()


def test_200_mutated_files_are_each_refused_in_a_sentence_and_without_growth(
    tmp_path: Path, published: Published
) -> None:
    """Headers that lie, files cut short, bytes of the header turned: never a traceback, never an allocation."""
    rest = tmp_path / "rest"
    write_bfl(rest, published)
    (rest / "flux1-schnell.safetensors").rename(tmp_path / "sound.safetensors")
    write_gguf(tmp_path / "sound.gguf", published.tensors("transformer"))
    command = [sys.executable, "-m", "weights.mutants", str(tmp_path), str(published.tokenizers)]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=600, check=True
    )
    told = json.loads(done.stdout)
    sound, mutants = told["ends"][:2], told["ends"][2:]
    assert sound == ["loaded"] * 2
    # A turned byte of a name of nothing, or of padding, may leave a file as good as it was.
    assert mutants.count("loaded") <= 4
    for end in mutants:
        assert end == "loaded" or (tmp_path.name in end and "\n" not in end), end
    assert told["grown_kib"] < 200 * 1024


def test_numbers_of_blocks_that_are_not_there_are_refused_before_any_is_made(
    tmp_path: Path, published: Published
) -> None:
    write_bfl(tmp_path, published)
    changed(tmp_path, "flux1-schnell.safetensors", lambda t: t.update({"double_blocks.999999.x": torch.ones(1)}))
    with pytest.raises(WeightsCorrupt, match=r"lacks the tensor double_blocks.2, or it has another shape"):
        opened(tmp_path, published)


def test_parts_of_different_models_are_refused(tmp_path: Path, published: Published) -> None:
    write_bfl(tmp_path, published)
    wider = make_networks(replace(CONFIG, clip=replace(CONFIG.clip, hidden_size=128, num_heads=2)))
    save_file(
        {name: tensor.bfloat16() for name, tensor in wider.clip.state_dict().items()}, tmp_path / "clip_l.safetensors"
    )
    with pytest.raises(WeightsCorrupt, match=r"reads CLIP's vector of 64 values, and is given 128"):
        opened(tmp_path, published)


def test_a_factor_for_each_row_is_refused(tmp_path: Path, published: Published) -> None:
    def change(tensors: Tensors) -> Tensors:
        return tensors | {name.replace(".weight", ".scale_weight"): torch.ones(64) for name in ("img_in.weight",)}

    write_bfl(tmp_path, published)
    changed(tmp_path, "flux1-schnell.safetensors", lambda tensors: tensors.update(change(tensors)))
    with pytest.raises(WeightsCorrupt, match=r"img_in.scale_weight is not one factor but \(64,\)"):
        opened(tmp_path, published).load(precision=Precision.BF16)


def test_whole_numbers_are_no_weights(tmp_path: Path, published: Published) -> None:
    write_bfl(tmp_path, published)
    changed(
        tmp_path, "flux1-schnell.safetensors", lambda t: t.update({"img_in.bias": torch.ones(64, dtype=torch.int8)})
    )
    with pytest.raises(WeightsCorrupt, match=r"the tensor img_in.bias is stored in torch.int8, which holds no weights"):
        opened(tmp_path, published).load(precision=Precision.BF16)


@pytest.mark.parametrize("name", ["absent.scale_weight", "absent.comfy_quant"])
def test_a_factor_of_nothing_is_refused(tmp_path: Path, published: Published, name: str) -> None:
    write_bfl(tmp_path, published)
    told = torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
    changed(tmp_path, "flux1-schnell.safetensors", lambda tensors: tensors.update({name: told}))
    with pytest.raises(WeightsCorrupt, match=f"has the unexpected tensor {name}"):
        opened(tmp_path, published)


def test_a_bias_where_a_norm_has_none_is_refused(tmp_path: Path, published: Published) -> None:
    write_diffusers(tmp_path, published)
    [index] = (tmp_path / "transformer").glob("*.index.json")
    shards = json.loads(index.read_text())["weight_map"]
    shard = shards["transformer_blocks.0.attn.norm_q.weight"]
    changed(
        tmp_path / "transformer", shard, lambda t: t.update({"transformer_blocks.0.attn.norm_q.bias": torch.ones(32)})
    )
    with pytest.raises(WeightsCorrupt, match=r"unexpected tensor transformer_blocks.0.attn.norm_q.bias"):
        opened(tmp_path, published)


def test_what_a_diffusers_folder_lacks_is_found_beside_its_parts(
    tmp_path: Path, published: Published, reference: tuple[str, bytes]
) -> None:
    write_diffusers(tmp_path, published)
    shutil.rmtree(tmp_path / "transformer")
    write_gguf(tmp_path / "flux1-schnell-BF16.gguf", published.tensors("transformer"))
    assert paint(tmp_path, published) == reference

"""Published checkpoints: every format gives the same image, and every invalid file is refused by name."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from allaprima.domain.models import Precision
from allaprima.errors import WeightsCorrupt, WeightsMissing, WeightsTooLarge, WeightsUnsafe
from allaprima.weights import quantize
from allaprima.weights.builtin_header import WEIGHTS_FILE
from allaprima.weights.checkpoint.loader import CheckpointFiles, open_checkpoint
from allaprima.weights.networks import Model
from allaprima.weights.open import open_model
from allaprima.weights.packed_cache import PackedWeightCache
from tests.weights.mutants import COUNT, KINDS
from tests.weights.published import (
    CONFIG,
    LOSSLESS,
    Published,
    Tensors,
    generate,
    make_networks,
    write_bfl,
    write_bundle,
    write_diffusers,
    write_gguf,
)
from tests.weights.published_quantized import declared, in_4bit


def opened(path: Path, published: Published) -> CheckpointFiles:
    return open_checkpoint(path, PackedWeightCache(path.with_name(f"{path.name}-cache")), published.tokenizers)


def load(path: Path, published: Published) -> Model:
    return opened(path, published).load(precision=Precision.BF16)


def outcome(path: Path, published: Published) -> tuple[str, bytes]:
    """Return the revision of a checkpoint and the pixels of its image."""
    model = load(path, published)
    return model.revision, generate(model).tobytes()


@pytest.fixture(scope="module")
def reference(published: Published, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes]:
    folder = tmp_path_factory.mktemp("reference")
    write_bfl(folder, published)
    return outcome(folder, published)


# Formats --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpoint_format", LOSSLESS)
def test_every_format_gives_same_image_and_revision(
    tmp_path: Path, published: Published, reference: tuple[str, bytes], checkpoint_format: str
) -> None:
    LOSSLESS[checkpoint_format](tmp_path, published)
    assert outcome(tmp_path, published) == reference
    assert len(set(reference[1])) > 100


def test_loaded_weights_equal_written_weights(
    published: Published, tmp_path: Path, reference: tuple[str, bytes]
) -> None:
    write_bfl(tmp_path, published)
    loaded = load(tmp_path, published).networks.state_dict()
    wanted = published.networks.state_dict()
    assert loaded.keys() == wanted.keys()
    assert all(torch.equal(loaded[name].float(), wanted[name]) for name in wanted)


def test_diffusers_folder_opens_without_separate_tokenizers(tmp_path: Path, published: Published) -> None:
    write_diffusers(tmp_path, published)
    shutil.copytree(published.tokenizers, tmp_path, dirs_exist_ok=True)
    assert open_model(tmp_path).id == "flux/schnell"
    # Black Forest Labs' repository also has the single files in the same folder.
    write_bfl(tmp_path, published)
    assert open_model(tmp_path).id == "flux/schnell"


# Number formats -------------------------------------------------------------------------------------------------------


def in_fp8(tensors: Tensors) -> Tensors:
    return {name: tensor.to(torch.float8_e4m3fn) for name, tensor in tensors.items()}


def scaled(marker: str, suffix: str) -> Callable[[Tensors], Tensors]:
    """Return a function that converts matrices to fp8 with scale 0.25, in one of ComfyUI's two formats."""

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
                description = json.dumps({"format": "float8_e4m3fn"}).encode()
                changed[f"{layer}.comfy_quant"] = torch.tensor(list(description), dtype=torch.uint8)
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
def test_fp8_tensors_are_multiplied_by_their_scale(
    tmp_path: Path, published: Published, change: Callable[[Tensors], Tensors], factor: int
) -> None:
    write_bundle(tmp_path, published, change)
    loaded = load(tmp_path, published).networks
    for component in ("transformer", "t5"):
        for name, tensor in published.tensors(component).items():
            is_fp8 = factor == 1 or tensor.ndim == 2
            wanted = (tensor * factor).to(torch.float8_e4m3fn).float() / factor if is_fp8 else tensor.float()
            assert torch.equal(loaded.get_submodule(component).state_dict()[name].float(), wanted), name


def test_unknown_number_format_is_refused_by_name(tmp_path: Path, published: Published) -> None:
    def change(tensors: Tensors) -> Tensors:
        description = torch.tensor(list(b'{"format": "nvfp4"}'), dtype=torch.uint8)
        return tensors | {"img_in.comfy_quant": description}

    write_bundle(tmp_path, published, change)
    with pytest.raises(WeightsCorrupt, match=r"fp8.safetensors: .*img_in.comfy_quant is stored as 'nvfp4'"):
        opened(tmp_path, published)


# Refusals -------------------------------------------------------------------------------------------------------------


def changed(folder: Path, name: str, change: Callable[[Tensors], object]) -> None:
    tensors = load_file(folder / name)
    change(tensors)
    save_file(tensors, folder / name)


@pytest.mark.parametrize(
    ("file", "change", "message"),
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
def test_invalid_tensor_is_refused_by_file_and_name(
    tmp_path: Path, published: Published, file: str, change: Callable[[Tensors], object], message: str
) -> None:
    write_bfl(tmp_path, published)
    changed(tmp_path, file, change)
    with pytest.raises(WeightsCorrupt, match=f"{tmp_path / file}.*{message}"):
        opened(tmp_path, published)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_value_is_refused_by_file_and_name(tmp_path: Path, published: Published, value: float) -> None:
    write_bfl(tmp_path, published)
    changed(tmp_path, "ae.safetensors", lambda tensors: tensors["encoder.conv_in.bias"].fill_(value))
    files = opened(tmp_path, published)
    with pytest.raises(WeightsCorrupt, match=r"ae.safetensors: the tensor encoder.conv_in.bias holds values"):
        files.load(precision=Precision.BF16)


def test_missing_component_is_refused_with_suggested_file(tmp_path: Path, published: Published) -> None:
    write_bfl(tmp_path, published)
    (tmp_path / "ae.safetensors").unlink()
    (tmp_path / "t5xxl_fp16.safetensors").unlink()
    with pytest.raises(WeightsMissing, match=r"holds no T5 .*t5xxl_fp16.*, no autoencoder \(such as ae.safetensors\)"):
        opened(tmp_path, published)


def test_duplicate_component_is_refused_by_both_names(tmp_path: Path, published: Published) -> None:
    write_bfl(tmp_path, published)
    write_gguf(tmp_path / "another.gguf", published.tensors("transformer"))
    with pytest.raises(WeightsCorrupt, match=r"the transformer twice, in .*another.gguf and .*schnell.safetensors"):
        opened(tmp_path, published)


def test_missing_shard_is_refused_by_name(tmp_path: Path, published: Published) -> None:
    write_diffusers(tmp_path, published)
    shard = sorted((tmp_path / "transformer").glob("*.safetensors"))[1]
    assert len(list(shard.parent.glob("*.safetensors"))) > 2
    shard.unlink()
    with pytest.raises(WeightsMissing, match=f"names the file {shard.name}, which does not exist"):
        opened(tmp_path, published)


@pytest.mark.parametrize("name", ["model.pt", "model.ckpt", "model.bin", "model.pt2", "model.safetensors"])
def test_pickle_is_refused_with_reason(tmp_path: Path, published: Published, name: str) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / name)
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(WeightsUnsafe, match=rf"{tmp_path / name} is a pickle.* runs"):
            opened(path, published)


def test_empty_or_missing_folder_is_refused(tmp_path: Path, published: Published) -> None:
    with pytest.raises(WeightsMissing, match="holds no safetensors or GGUF file"):
        opened(tmp_path, published)
    with pytest.raises(WeightsMissing, match="there is no file or folder"):
        opened(tmp_path / "nowhere", published)


def test_checkpoint_larger_than_free_memory_is_refused(
    tmp_path: Path, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bfl(tmp_path, published)
    monkeypatch.setattr(quantize, "WORKING_BYTES", 2**60)
    with pytest.raises(WeightsTooLarge, match=r"needs 1073741824.\d GiB of memory in int8, and .* free on cpu"):
        opened(tmp_path, published).load()


def test_mutated_files_are_refused_or_have_the_weights_of_the_sound_file(
    tmp_path: Path, published: Published, folder: Path
) -> None:
    """Wrong sizes, shapes, descriptions and containers: no traceback, no other weights and no large allocation."""
    write_bfl(tmp_path / "rest", published)
    (tmp_path / "rest" / "flux1-schnell.safetensors").rename(tmp_path / "valid.safetensors")
    transformer = published.tensors("transformer")
    write_gguf(tmp_path / "valid.gguf", transformer)
    save_file(in_4bit(transformer)[0], tmp_path / "valid.nf4")
    save_file(declared(transformer, torch.float8_e4m3fn, stored_as=torch.uint8), tmp_path / "valid.u8")
    save_file(declared(transformer, torch.float8_e4m3fn, stored_as=torch.int8), tmp_path / "valid.i8")
    folder.rename(tmp_path / "builtin")
    shutil.copy(tmp_path / "builtin" / WEIGHTS_FILE, tmp_path / "valid.builtin")
    command = [sys.executable, "-m", "tests.weights.mutants", str(tmp_path), str(published.tokenizers)]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=600, check=True
    )
    report = json.loads(done.stdout)
    sound, mutants = dict(report["outcomes"][: len(KINDS)]), report["outcomes"][len(KINDS) :]
    assert len(mutants) == COUNT
    # No public tool stores float8 in I8, and the loader does not read it. The bits are those of the U8 file, so a file
    # that is read must have its weights.
    assert "stored as I8" in sound["i8"]
    sound["i8"] = sound["u8"]
    assert all(revision.startswith("revision ") for revision in sound.values()), sound
    loaded = 0
    for kind, message in mutants:
        loaded += message == sound[kind]
        assert message == sound[kind] or (tmp_path.name in message and "\n" not in message), (kind, message)
    # A changed byte of an unused name, of a header's padding or of a description may leave the file valid.
    assert loaded < COUNT // 10
    assert report["grown_kib"] < 200 * 1024


def test_gap_in_block_numbers_is_refused(tmp_path: Path, published: Published) -> None:
    write_bfl(tmp_path, published)
    changed(tmp_path, "flux1-schnell.safetensors", lambda t: t.update({"double_blocks.999999.x": torch.ones(1)}))
    with pytest.raises(WeightsCorrupt, match=r"lacks the tensor double_blocks.2, or it has another shape"):
        opened(tmp_path, published)


def test_components_of_different_models_are_refused(tmp_path: Path, published: Published) -> None:
    write_bfl(tmp_path, published)
    wider = make_networks(replace(CONFIG, clip=replace(CONFIG.clip, hidden_size=128, num_heads=2)))
    save_file(
        {name: tensor.bfloat16() for name, tensor in wider.clip.state_dict().items()}, tmp_path / "clip_l.safetensors"
    )
    with pytest.raises(WeightsCorrupt, match=r"expects CLIP's vector of 64 values, not 128"):
        opened(tmp_path, published)


def test_per_row_scale_is_refused(tmp_path: Path, published: Published) -> None:
    def change(tensors: Tensors) -> Tensors:
        return tensors | {name.replace(".weight", ".scale_weight"): torch.ones(64) for name in ("img_in.weight",)}

    write_bfl(tmp_path, published)
    changed(tmp_path, "flux1-schnell.safetensors", lambda tensors: tensors.update(change(tensors)))
    with pytest.raises(WeightsCorrupt, match=r"img_in.scale_weight must have one value, not the shape \(64,\)"):
        load(tmp_path, published)


def test_integer_weights_are_refused(tmp_path: Path, published: Published) -> None:
    write_bfl(tmp_path, published)
    changed(
        tmp_path, "flux1-schnell.safetensors", lambda t: t.update({"img_in.bias": torch.ones(64, dtype=torch.int8)})
    )
    with pytest.raises(
        WeightsCorrupt, match=r"the tensor img_in.bias has the dtype torch.int8; weights are floating-point"
    ):
        load(tmp_path, published)


@pytest.mark.parametrize("name", ["absent.scale_weight", "absent.comfy_quant"])
def test_scale_without_its_layer_is_refused(tmp_path: Path, published: Published, name: str) -> None:
    write_bfl(tmp_path, published)
    description = torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
    changed(tmp_path, "flux1-schnell.safetensors", lambda tensors: tensors.update({name: description}))
    with pytest.raises(WeightsCorrupt, match=f"has the unexpected tensor {name}"):
        opened(tmp_path, published)


def test_unexpected_norm_bias_is_refused(tmp_path: Path, published: Published) -> None:
    write_diffusers(tmp_path, published)
    [index] = (tmp_path / "transformer").glob("*.index.json")
    shards = json.loads(index.read_text())["weight_map"]
    shard = shards["transformer_blocks.0.attn.norm_q.weight"]
    changed(
        tmp_path / "transformer", shard, lambda t: t.update({"transformer_blocks.0.attn.norm_q.bias": torch.ones(32)})
    )
    with pytest.raises(WeightsCorrupt, match=r"unexpected tensor transformer_blocks.0.attn.norm_q.bias"):
        opened(tmp_path, published)


def test_component_missing_from_subfolders_is_read_from_top_folder(
    tmp_path: Path, published: Published, reference: tuple[str, bytes]
) -> None:
    write_diffusers(tmp_path, published)
    shutil.rmtree(tmp_path / "transformer")
    write_gguf(tmp_path / "flux1-schnell-BF16.gguf", published.tensors("transformer"))
    assert outcome(tmp_path, published) == reference

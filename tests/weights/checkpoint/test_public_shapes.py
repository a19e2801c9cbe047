"""Checkpoints in the shapes of public files give the same weights as Black Forest Labs' files.

Naming schemes that need a conversion are in `test_key_maps.py`, number formats in `test_layer_formats.py`, folders in
`test_inventory.py`, and files that can't be used in `test_identify.py`.
"""

from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file

from allaprima.domain.models import Precision
from allaprima.weights.packed_cache import PackedWeightCache
from tests.flux.oracles import autoencoder_oracle, transformer_oracle
from tests.weights.published import (
    Published,
    Tensors,
    gguf_t5_name,
    load_checkpoint,
    write_bfl,
    write_bundle,
    write_gguf,
)

TRANSFORMER, T5, CLIP, AUTOENCODER = (f"{name}.safetensors" for name in ("flux1-schnell", "t5xxl_fp16", "clip_l", "ae"))
Write = Callable[[Path, Published], None]


def loaded(folder: Path, published: Published) -> tuple[str, dict[str, torch.Tensor]]:
    """Return a checkpoint's revision and weights."""
    model = load_checkpoint(folder, PackedWeightCache(folder.with_name("cache")), published, Precision.BF16)
    return model.revision, model.networks.state_dict()


@pytest.fixture(scope="module")
def reference(published: Published, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("reference") / "model"
    write_bfl(folder, published)
    return loaded(folder, published)[0]


def prefixed(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def replaced(file: str, change: Callable[[Tensors], Tensors]) -> Write:
    """Return a writer of BFL's files, of which one has changed tensors."""

    def write(folder: Path, published: Published) -> None:
        write_bfl(folder, published)
        save_file(change(load_file(folder / file)), folder / file)

    return write


def in_dtype(dtype: torch.dtype) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: tensor.to(dtype) for name, tensor in tensors.items()}


# Transformer ----------------------------------------------------------------------------------------------------------


def write_diffusers_transformer(prefix: str) -> Write:
    """Write the transformer in diffusers' names into one file, in place of BFL's."""

    def write(folder: Path, published: Published) -> None:
        write_bfl(folder, published)
        state = transformer_oracle(published.networks.transformer).bfloat16().state_dict()
        save_file(prefixed(prefix, dict(state)), folder / TRANSFORMER)

    return write


def write_diffusers_gguf(folder: Path, published: Published) -> None:
    write_bfl(folder, published)
    (folder / TRANSFORMER).unlink()
    write_gguf(folder / "flux1.gguf", dict(transformer_oracle(published.networks.transformer).bfloat16().state_dict()))


def write_bundle_with_old_autoencoder_prefix(folder: Path, published: Published) -> None:
    write_bundle(folder, published)
    [file] = folder.iterdir()
    save_file({name.replace("vae.", "first_stage_model."): one for name, one in load_file(file).items()}, file)


def write_transformer_with_autoencoder(folder: Path, published: Published) -> None:
    """Write transformer and autoencoder into one file, and the text encoders into two."""
    write_bfl(folder, published)
    (folder / AUTOENCODER).unlink()
    transformer = prefixed("model.diffusion_model.", published.tensors("transformer"))
    save_file(transformer | prefixed("vae.", published.tensors("autoencoder")), folder / TRANSFORMER)


def write_whole_gguf(folder: Path, published: Published) -> None:
    """Write all components into one GGUF file, as sd.cpp's converter does."""
    folder.mkdir()
    prefixes = {
        "transformer": "model.diffusion_model.",
        "t5": "text_encoders.t5xxl.transformer.",
        "clip": "text_encoders.clip_l.transformer.",
        "autoencoder": "first_stage_model.",
    }
    tensors: Tensors = {}
    for component, prefix in prefixes.items():
        tensors |= prefixed(prefix, published.tensors(component))
    write_gguf(folder / "flux1-schnell.gguf", tensors, architecture=None)


def write_pig(folder: Path, published: Published) -> None:
    """Write each component as GGUF with the architecture `pig`, as calcuis' converter does."""
    folder.mkdir()
    for component in ("transformer", "t5", "clip", "autoencoder"):
        write_gguf(folder / f"{component}.gguf", published.tensors(component), architecture="pig")


# Text encoders and autoencoder ----------------------------------------------------------------------------------------


def only_shared(t5: Tensors) -> Tensors:
    return {name: tensor for name, tensor in t5.items() if name != "encoder.embed_tokens.weight"}


def only_embedding_of_encoder(t5: Tensors) -> Tensors:
    return {name: tensor for name, tensor in t5.items() if name != "shared.weight"}


def with_clip_extras(clip: Tensors) -> Tensors:
    return clip | {
        "text_model.embeddings.position_ids": torch.arange(77)[None],
        "text_projection.weight": torch.eye(64),
    }


def write_t5_gguf(*, own_names: bool) -> Write:
    """Write T5 as GGUF in llama.cpp's names, or in Hugging Face's as sd.cpp does."""

    def write(folder: Path, published: Published) -> None:
        write_bfl(folder, published)
        (folder / T5).unlink()
        t5 = published.tensors("t5")
        named = t5 if own_names else {gguf_t5_name(name): tensor for name, tensor in t5.items()}
        write_gguf(folder / "t5.gguf", named, architecture=None if own_names else "t5encoder")

    return write


def write_old_diffusers_autoencoder(folder: Path, published: Published) -> None:
    """Write the autoencoder with the names that diffusers gave to attention layers before 0.17."""
    write_bfl(folder, published)
    state = autoencoder_oracle(published.networks.autoencoder).bfloat16().state_dict()
    for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
        state = {name.replace(f"attentions.0.{new}.", f"attentions.0.{old}."): one for name, one in state.items()}
    save_file(dict(state), folder / AUTOENCODER)


def write_autoencoder_gguf(folder: Path, published: Published) -> None:
    write_bfl(folder, published)
    (folder / AUTOENCODER).unlink()
    write_gguf(folder / "pig_ae.gguf", published.tensors("autoencoder"), gguf.GGMLQuantizationType.F32, "pig")


SAME: dict[str, Write] = {
    "float32": replaced(TRANSFORMER, in_dtype(torch.float32)),
    "prefix_of_comfyui": replaced(TRANSFORMER, lambda one: prefixed("model.diffusion_model.", one)),
    "bundle_with_first_stage_model": write_bundle_with_old_autoencoder_prefix,
    "transformer_with_autoencoder": write_transformer_with_autoencoder,
    "diffusers_single_file": write_diffusers_transformer(""),
    "diffusers_with_prefix": write_diffusers_transformer("transformer."),
    "diffusers_gguf": write_diffusers_gguf,
    "whole_gguf": write_whole_gguf,
    "pig_gguf": write_pig,
    "t5_shared_only": replaced(T5, only_shared),
    "t5_encoder_embedding_only": replaced(T5, only_embedding_of_encoder),
    "t5_with_prefix": replaced(T5, lambda one: prefixed("text_encoders.t5xxl.transformer.", one)),
    "t5_gguf_llama_cpp": write_t5_gguf(own_names=False),
    "t5_gguf_sd_cpp": write_t5_gguf(own_names=True),
    "clip_with_prefix": replaced(CLIP, lambda one: prefixed("clip_l.", one)),
    "clip_of_checkpoint": replaced(CLIP, lambda one: prefixed("cond_stage_model.transformer.", one)),
    "clip_with_projection_and_positions": replaced(CLIP, with_clip_extras),
    "autoencoder_with_prefix": replaced(AUTOENCODER, lambda one: prefixed("vae.", one)),
    "autoencoder_of_checkpoint": replaced(AUTOENCODER, lambda one: prefixed("first_stage_model.", one)),
    "autoencoder_bfloat16": replaced(AUTOENCODER, in_dtype(torch.bfloat16)),
    "autoencoder_old_diffusers": write_old_diffusers_autoencoder,
    "autoencoder_gguf": write_autoencoder_gguf,
}


@pytest.mark.parametrize("shape", SAME)
def test_public_shape_gives_the_same_weights(tmp_path: Path, published: Published, reference: str, shape: str) -> None:
    SAME[shape](tmp_path / "model", published)
    assert loaded(tmp_path / "model", published)[0] == reference


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float16])
def test_file_of_one_dtype_has_its_rounded_values(tmp_path: Path, published: Published, dtype: torch.dtype) -> None:
    replaced(TRANSFORMER, in_dtype(dtype))(tmp_path / "model", published)
    _, state = loaded(tmp_path / "model", published)
    for name, tensor in published.tensors("transformer").items():
        assert torch.equal(state[f"transformer.{name}"], tensor.to(dtype).bfloat16()), name


@pytest.mark.parametrize("marker", [torch.float8_e4m3fn, torch.float32])
@pytest.mark.parametrize("values", [0, 2])
@pytest.mark.parametrize("scale", [(), (1,), (1, 1)])
def test_scaled_float8_is_read_with_every_marker_and_scale(
    tmp_path: Path, published: Published, marker: torch.dtype, values: int, scale: tuple[int, ...]
) -> None:
    def change(tensors: Tensors) -> Tensors:
        changed: Tensors = {"scaled_fp8": torch.zeros(values).to(marker)}
        for name, tensor in tensors.items():
            changed[name] = (tensor * 4).to(torch.float8_e4m3fn) if tensor.ndim == 2 else tensor
            if tensor.ndim == 2:
                changed[name.replace(".weight", ".scale_weight")] = torch.full(scale, 0.25)
        return changed

    replaced(TRANSFORMER, change)(tmp_path / "model", published)
    _, state = loaded(tmp_path / "model", published)
    for name, tensor in published.tensors("transformer").items():
        wanted = (tensor * 4).to(torch.float8_e4m3fn).float() / 4 if tensor.ndim == 2 else tensor.float()
        assert torch.equal(state[f"transformer.{name}"].float(), wanted.bfloat16().float()), name

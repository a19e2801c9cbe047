"""Naming schemes of public files: the same weights under every name."""

from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file

from allaprima.domain.models import Precision
from allaprima.errors import WeightsCorrupt
from allaprima.weights.packed_cache import PackedWeightCache
from tests.flux.oracles import autoencoder_oracle
from tests.weights.published import (
    Published,
    Tensors,
    generate,
    gguf_t5_name,
    load_checkpoint,
    write_bfl,
    write_bundle,
    write_gguf,
)


def revision(path: Path, published: Published) -> str:
    cache = PackedWeightCache(path.with_name(f"{path.name}-cache"))
    return load_checkpoint(path, cache, published, Precision.BF16).revision


@pytest.fixture(scope="module")
def reference(published: Published, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("reference") / "model"
    write_bfl(folder, published)
    return revision(folder, published)


def with_norm_weights(tensors: Tensors) -> Tensors:
    """Name the norms as ComfyUI does since February 2026."""
    return {name.replace("_norm.scale", "_norm.weight"): tensor for name, tensor in tensors.items()}


def write_comfy(folder: Path, published: Published) -> None:
    write_bfl(folder, published)
    save_file(with_norm_weights(published.tensors("transformer")), folder / "flux1-schnell.safetensors")


def write_comfy_bundle(folder: Path, published: Published) -> None:
    write_bundle(folder, published, with_norm_weights)


def write_comfy_gguf(folder: Path, published: Published) -> None:
    write_bfl(folder, published)
    (folder / "flux1-schnell.safetensors").unlink()
    write_gguf(folder / "flux1-schnell.gguf", with_norm_weights(published.tensors("transformer")))


def add(file: str, make: Callable[[Tensors], Tensors]) -> Callable[[Path, Published], None]:
    def write(folder: Path, published: Published) -> None:
        write_bfl(folder, published)
        tensors = load_file(folder / file)
        save_file(tensors | make(tensors), folder / file)

    return write


def vision(_: Tensors) -> Tensors:
    layer = "vision_model.encoder.layers.0.self_attn.q_proj"
    return {
        f"{layer}.weight": torch.ones(8, 8),
        f"{layer}.bias": torch.ones(8),
        "vision_model.embeddings.position_ids": torch.arange(8)[None],
        "vision_model.post_layernorm.weight": torch.ones(8),
        "visual_projection.weight": torch.ones(8, 8),
        "text_model.embeddings.position_ids": torch.arange(77)[None],
    }


def decoder(_: Tensors) -> Tensors:
    return {
        "decoder.block.0.layer.0.SelfAttention.q.weight": torch.ones(8, 8),
        "decoder.embed_tokens.weight": torch.ones(8, 8),
        "lm_head.weight": torch.ones(8, 8),
        "spiece_model": torch.zeros(100, dtype=torch.uint8),
    }


def write_t5_gguf_with_decoder(folder: Path, published: Published) -> None:
    write_bfl(folder, published)
    (folder / "t5xxl_fp16.safetensors").unlink()
    t5 = {gguf_t5_name(name): tensor for name, tensor in published.tensors("t5").items()}
    unused = {"dec.blk.0.attn_q.weight": torch.ones(32, 32), "output.weight": torch.ones(32, 32)}
    write_gguf(folder / "t5.gguf", t5 | unused, gguf.GGMLQuantizationType.BF16, "t5")


OPENAI = (
    ("text_model.embeddings.token_embedding", "token_embedding"),
    ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
    ("text_model.final_layer_norm", "ln_final"),
    ("text_model.encoder.layers", "transformer.resblocks"),
    ("layer_norm", "ln_"),
    ("self_attn", "attn"),
    ("fc1", "c_fc"),
    ("fc2", "c_proj"),
)


def openai_clip(clip: Tensors) -> Tensors:
    named: Tensors = {}
    for name, tensor in clip.items():
        theirs = name
        for ours, other in OPENAI:
            theirs = theirs.replace(ours, other)
        if ".q_proj." in name:
            parts = [clip[name.replace("q_proj", f"{one}_proj")] for one in "qkv"]
            named[theirs.replace("q_proj.", "in_proj_")] = torch.cat(parts)
        elif "_proj." not in theirs or "out_proj" in theirs or "c_proj" in theirs:
            named[theirs] = tensor
    return named


def write_openai_clip(folder: Path, published: Published) -> None:
    write_bfl(folder, published)
    unused = {
        "visual.transformer.resblocks.0.attn.in_proj_weight": torch.ones(24, 8),
        "visual.proj": torch.ones(8, 8),
        "text_projection": torch.ones(8, 8),
        "logit_scale": torch.ones(()),
    }
    save_file(openai_clip(published.tensors("clip")) | unused, folder / "clip_l.safetensors")


WRITERS = {
    "comfyui_2026": write_comfy,
    "comfyui_2026_bundle": write_comfy_bundle,
    "comfyui_2026_gguf": write_comfy_gguf,
    "whole_clip": add("clip_l.safetensors", vision),
    "openai_clip": write_openai_clip,
    "whole_t5": add("t5xxl_fp16.safetensors", decoder),
    "whole_t5_gguf": write_t5_gguf_with_decoder,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_naming_scheme_gives_the_same_weights(
    tmp_path: Path, published: Published, reference: str, kind: str
) -> None:
    WRITERS[kind](tmp_path / "model", published)
    assert revision(tmp_path / "model", published) == reference


@pytest.mark.parametrize("diffusers", [False, True])
def test_decoder_without_its_encoder_gives_the_same_pixels(
    tmp_path: Path, published: Published, *, diffusers: bool
) -> None:
    write_bfl(tmp_path / "model", published)
    cache = PackedWeightCache(tmp_path / "cache")
    whole = generate(load_checkpoint(tmp_path / "model", cache, published, Precision.BF16))
    file = tmp_path / "model" / "ae.safetensors"
    if diffusers:
        autoencoder_oracle(published.networks.autoencoder).bfloat16().save_pretrained(tmp_path / "vae")
        (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").replace(file)
    tensors = load_file(file)
    save_file({name: tensor for name, tensor in tensors.items() if name.startswith("decoder.")}, file)
    model = load_checkpoint(tmp_path / "model", cache, published, Precision.BF16)
    assert (generate(model) == whole).all()
    with pytest.raises(ValueError, match="has no encoder"):
        model.networks.autoencoder.encode(torch.zeros(1, 3, 32, 32))


def test_file_with_two_transformers_is_refused_by_both_prefixes(tmp_path: Path, published: Published) -> None:
    write_bfl(tmp_path, published)
    tensors = published.tensors("transformer")
    both = {
        f"{prefix}.{name}": t.clone()
        for prefix in ("model_ema", "model.diffusion_model")
        for name, t in tensors.items()
    }
    save_file(both, tmp_path / "flux1-schnell.safetensors")
    expected = r"schnell.safetensors holds the transformer twice, .*'model.diffusion_model.' and 'model_ema.'"
    with pytest.raises(WeightsCorrupt, match=expected):
        revision(tmp_path, published)


def test_fused_rows_that_do_not_divide_are_refused(tmp_path: Path, published: Published) -> None:
    write_openai_clip(tmp_path, published)
    tensors = load_file(tmp_path / "clip_l.safetensors")
    tensors["transformer.resblocks.0.attn.in_proj_weight"] = torch.ones(100, 64)
    save_file(tensors, tmp_path / "clip_l.safetensors")
    with pytest.raises(WeightsCorrupt, match=r"in_proj_weight has the shape \(100, 64\), which is not 3 parts"):
        revision(tmp_path, published)

"""Files that FLUX.1 [schnell] can't use are recognised by their names, number formats and metadata."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from allaprima.weights.checkpoint.identify import Unusable, identify, incomplete
from allaprima.weights.checkpoint.key_maps import Component
from allaprima.weights.formats.container import open_container
from tests.weights.published import LOSSLESS, Published, write_bfl, write_bundle
from tests.weights.published_quantized import in_4bit, pack_4bit

OTHER_MODEL = "allaprima supports FLUX.1 [schnell]: take a file of that model, or `allaprima pull flux/schnell`"


@dataclass
class Header:
    """The header of a file, as a container."""

    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    metadata: Mapping[str, str] = field(default_factory=dict)
    path: Path = Path("file.safetensors")
    files: tuple[Path, ...] = ()

    def read(self, name: str) -> torch.Tensor:
        raise AssertionError(name)

    def check_ending(self) -> None:
        raise AssertionError


def identified(*names: str, metadata: Mapping[str, str] | None = None, dtype: str = "BF16") -> Unusable | None:
    return identify(Header(dict.fromkeys(names, (4, 4)), dict.fromkeys(names, dtype), metadata or {}))


FLUX = "double_blocks.0.img_attn.qkv"
DIFFUSERS = "transformer_blocks.0.attn.to_k"
T5 = "encoder.block.0.layer.0.SelfAttention.q"

ADDITIONS = {
    "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": "a LoRA (kohya)",
    "lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha": "a LoRA (kohya)",
    f"transformer.{DIFFUSERS}.lora_A.weight": "a LoRA (PEFT)",
    f"base_model.model.{DIFFUSERS}.lora_B.default.weight": "a LoRA (PEFT)",
    f"diffusion_model.{FLUX}.lora_A.weight": "a LoRA (PEFT)",
    f"transformer.{FLUX}.0.lora_down.weight": "a LoRA",
    f"unet.{DIFFUSERS}.lora.up.weight": "a LoRA",
    "double_blocks.0.processor.qkv_lora1.down.weight": "a LoRA (XLabs)",
    "img_in.lora_A.weight": "a control LoRA of FLUX.1 [dev]",
    "lycoris_transformer_blocks_0_attn_to_k.lokr_w1": "a LoKr, a kind of LoRA",
    "lora_unet_double_blocks_0_img_attn_qkv.hada_w1_a": "a LoHa, a kind of LoRA",
    "lora_unet_double_blocks_0_img_attn_qkv.dora_scale": "a DoRA, a kind of LoRA",
    f"diffusion_model.{FLUX}.diff_b": "a LoRA of full differences",
    "controlnet_blocks.0.weight": "a ControlNet",
    "controlnet_x_embedder.weight": "a ControlNet",
    "control_model.zero_convs.0.0.weight": "a ControlNet",
    "ip_adapter_proj_model.proj.weight": "an IP-adapter",
    "image_proj.proj.weight": "an IP-adapter",
    "pulid_encoder.latents.weight": "a PuLID adapter",
    "redux_up.weight": "FLUX.1 Redux, an image adapter",
    "emb_params": "an embedding (textual inversion)",
    "<my-style>": "an embedding (textual inversion)",
}
OTHERS = {
    "joint_blocks.0.x_block.attn.qkv.weight": "Stable Diffusion 3",
    "conditioner.embedders.0.transformer.text_model.encoder.layers.0.mlp.fc1.weight": "Stable Diffusion XL",
    "model.diffusion_model.input_blocks.1.0.in_layers.0.weight": "Stable Diffusion 1 or 2",
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight": "Stable Diffusion 1 or 2",
    "txt_norm.weight": "Qwen-Image",
    "noise_refiner.0.attention.qkv.weight": "Z-Image or Lumina",
    "head.modulation": "Wan",
    "double_stream_blocks.0.block.attn1.to_q.weight": "HiDream",
    "txt_in.individual_token_refiner.blocks.0.norm1.weight": "HunyuanVideo or a model of its kind",
    "double_layers.0.attn.w1q.weight": "AuraFlow",
    "adaln_single.linear.weight": "LTX-Video or PixArt",
    "net.blocks.block0.blocks.0.block.attn.to_q.0.weight": "Cosmos",
    "blocks.0.cross_attn.q_proj.weight": "Cosmos",
    "time_embed.t_embedder.linear_1.weight": "Cosmos",
    "clip_txt_pooled_mapper.weight": "Stable Cascade",
    "clf.1.weight": "Stable Cascade",
    "mlp_t5.0.weight": "Hunyuan-DiT",
    "time_extra_emb.extra_embedder.linear_1.weight": "Hunyuan-DiT",
    "t5_yproj.weight": "Mochi",
    "model.layers.0.self_attn.q_proj.weight": "a language model",
    "model.language_model.layers.0.mlp.gate_proj.weight": "a language model",
    "v.blk.0.attn_q.weight": "an image encoder of a language model",
    "vision_model.encoder.layers.0.self_attn.q_proj.weight": "a vision encoder",
    "visual.transformer.resblocks.0.attn.in_proj_weight": "a vision encoder",
    "text_model.head.weight": "SigLIP, a vision encoder",
    "model.1.sub.0.RDB1.conv1.0.weight": "an upscaler",
    "body.0.rdb1.conv1.weight": "an upscaler",
    "special_care_embeds": "the safety checker of Stable Diffusion",
    "text_model.encoder.layers.31.mlp.fc1.weight": "a CLIP text encoder of another size",
    "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight": "UMT5",
    "enc.blk.1.attn_rel_b.weight": "UMT5",
    "encoder.block.0.layer.1.DenseReluDense.wi.weight": "a T5 of version 1.0",
    "decoder.layers.0.weight": "a small autoencoder for previews",
    "taesd_decoder.1.weight": "a small autoencoder for previews",
    "post_quant_conv.weight": "the autoencoder of another model",
    "decoder.conv1.weight": "the autoencoder of a video model",
}
QUANTIZED = {
    "transformer_blocks.0.qkv_proj.wscales": (Component.TRANSFORMER, "an SVDQuant file of nunchaku, the quantizer"),
    "encoder.block.0.layer.0.SelfAttention.q.qweight": (Component.T5, "a file in AWQ or GPTQ"),
    f"{DIFFUSERS}.zero_point": (Component.TRANSFORMER, "a file quantized with SDNQ"),
    f"{DIFFUSERS}.scale": (Component.TRANSFORMER, "a file quantized with SDNQ"),
    f"{DIFFUSERS}.svd_up": (Component.TRANSFORMER, "a file quantized with SDNQ"),
    f"{T5}.scale": (Component.T5, "a file quantized with SDNQ"),
    f"{DIFFUSERS}.weight._data": (Component.TRANSFORMER, "a file quantized with optimum-quanto"),
    f"{DIFFUSERS}._weight_qdata": (Component.TRANSFORMER, "a file quantized with torchao"),
    f"{DIFFUSERS}.encoded_exponent": (Component.TRANSFORMER, "a file compressed with DFloat11"),
    f"{DIFFUSERS}.W_q": (Component.TRANSFORMER, "a file quantized with HQQ"),
    f"{T5}.weight_packed": (Component.T5, "a file of compressed-tensors"),
    f"{DIFFUSERS}.scales": (Component.TRANSFORMER, "an MLX file (mflux)"),
    f"{T5}.SCB": (Component.T5, "a file in bitsandbytes' 8 bits (LLM.int8)"),
    f"{FLUX}.weight_scale_2": (Component.TRANSFORMER, "a file in NVFP4"),
}


@pytest.mark.parametrize(("name", "what"), ADDITIONS.items())
def test_addition_to_a_model_is_recognised(name: str, what: str) -> None:
    found = identified(name)
    assert found is not None
    assert found.what == what
    assert found.advice.startswith("allaprima ")
    assert found.component is None


@pytest.mark.parametrize(("name", "what"), OTHERS.items())
def test_file_of_another_model_is_recognised(name: str, what: str) -> None:
    found = identified(name, "another.name")
    assert found is not None
    assert found.what.startswith(what)
    assert found.advice
    assert found.component is None


@pytest.mark.parametrize("name", QUANTIZED)
def test_format_of_a_quantizer_is_recognised_with_its_component(name: str) -> None:
    found = identified(name, f"{name.rpartition('.')[0]}.weight")
    component, what = QUANTIZED[name]
    assert found is not None
    assert found.what.startswith(what)
    assert found == Unusable(found.what, "take the GGUF or fp8 file of the same model", component)


@pytest.mark.parametrize("dtype", ["F8_E8M0", "F4", "F6_E2M3", "U32"])
def test_number_format_that_can_not_be_read_is_recognised(dtype: str) -> None:
    found = identified(f"{FLUX}.weight", dtype=dtype)
    assert found is not None
    assert found.component is Component.TRANSFORMER


def test_checkpoint_of_stable_diffusion_is_recognised_though_it_holds_a_clip_and_an_autoencoder() -> None:
    found = identified(
        "model.diffusion_model.input_blocks.1.0.in_layers.0.weight",
        "cond_stage_model.transformer.text_model.encoder.layers.0.self_attn.q_proj.weight",
        "first_stage_model.decoder.mid.block_1.norm1.weight",
    )
    assert found == Unusable("Stable Diffusion 1 or 2", OTHER_MODEL, None)


def test_language_model_in_gguf_is_recognised_with_its_architecture() -> None:
    found = identified("blk.0.attn_q.weight", "token_embd.weight", metadata={"general.architecture": "qwen3"})
    assert found is not None
    assert found.what == "a language model (qwen3)"


def test_weights_in_the_built_in_format_are_recognised() -> None:
    found = identified("double_blocks.0.img_attn.norm.key_norm.scale", metadata={"format": "allaprima-1"})
    assert found is not None
    assert found.what == "the weights of a model in the built-in format"


@pytest.mark.parametrize("name", ["encoder.down.0.block.0.conv1.weight", "encoder.mid_block.resnets.0.conv1.weight"])
def test_encoder_of_an_autoencoder_is_an_incomplete_autoencoder(name: str) -> None:
    found = incomplete(Header({name: (4, 4)}, {name: "BF16"}))
    assert found is not None
    assert found.what.startswith("no autoencoder of FLUX.1 [schnell], since it lacks the tensor decoder.mid")
    assert found.component is Component.AUTOENCODER


# Siblings -------------------------------------------------------------------------------------------------------------

DEV = "FLUX.1 [dev] or a model made from it (Krea, Kontext, a merge)"


@pytest.mark.parametrize("name", ["distilled_guidance_layer.in_proj.weight", "double_stream_modulation_img.lin.weight"])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_model_of_another_structure_is_recognised(name: str, prefix: str) -> None:
    found = identified(f"{prefix}{name}", f"{prefix}{FLUX}.weight")
    assert found is not None
    assert found.what.startswith(("Chroma", "FLUX.2"))
    assert found.component is Component.TRANSFORMER


@pytest.mark.parametrize(
    ("metadata", "what"),
    [
        ({}, DEV),
        ({"modelspec.title": "flux1-kontext-dev"}, "FLUX.1 Kontext [dev]"),
        ({"general.name": "Flux.1-Krea-dev"}, "FLUX.1 Krea [dev]"),
        ({"modelspec.title": "My\nmerge"}, f"{DEV}; its metadata calls it 'Mymerge'"),
        ({"modelspec.title": "x" * 9000}, f"{DEV}; its metadata calls it '{'x' * 60}'"),
    ],
)
@pytest.mark.parametrize("mark", ["guidance_in.in_layer", "time_text_embed.guidance_embedder.linear_1"])
def test_dev_and_models_made_from_it_are_recognised(metadata: dict[str, str], what: str, mark: str) -> None:
    found = identified(f"{mark}.weight", f"{FLUX}.weight", metadata=metadata)
    assert found == Unusable(what, OTHER_MODEL, Component.TRANSFORMER)


@pytest.mark.parametrize(("factor", "what"), [(6, "FLUX.1 Fill [dev]"), (2, "FLUX.1 Canny [dev] or Depth [dev]")])
@pytest.mark.parametrize("in_nf4", [False, True])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_model_with_further_input_channels_is_recognised(
    tmp_path: Path, published: Published, factor: int, what: str, prefix: str, *, in_nf4: bool
) -> None:
    tensors = published.tensors("transformer")
    weight = torch.ones(64, 16 * factor)
    tensors |= pack_4bit("img_in.weight", weight)[0] if in_nf4 else {"img_in.weight": weight}
    file = tmp_path / "flux1-fill-dev.safetensors"
    save_file({prefix + name: tensor for name, tensor in tensors.items()}, file)
    found = identify(open_container(file))
    assert found == Unusable(what, OTHER_MODEL, Component.TRANSFORMER)


# Files that can be used -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpoint_format", LOSSLESS)
def test_files_of_schnell_are_not_taken_for_anything_else(
    tmp_path: Path, published: Published, checkpoint_format: str
) -> None:
    LOSSLESS[checkpoint_format](tmp_path, published)
    files = [file for file in tmp_path.rglob("*") if file.suffix in (".safetensors", ".sft", ".gguf")]
    assert files
    assert [identify(open_container(file)) for file in files] == [None] * len(files)


def test_nf4_bundle_and_pruned_model_are_not_taken_for_anything_else(tmp_path: Path, published: Published) -> None:
    write_bundle(tmp_path, published, lambda tensors: in_4bit(tensors, nested=True)[0])
    write_bfl(tmp_path, published)
    pruned = {name: t for name, t in published.tensors("transformer").items() if "single_blocks.1." not in name}
    save_file(pruned, tmp_path / "flux1-schnell.safetensors")
    whole = load_file(tmp_path / "clip_l.safetensors")
    vision = {"vision_model.encoder.layers.23.self_attn.q_proj.weight": torch.ones(4, 4)}
    save_file(whole | vision, tmp_path / "clip_l.safetensors")
    assert [identify(open_container(file)) for file in tmp_path.iterdir()] == [None] * 5

"""Files that FLUX.1 [schnell] can't use: each is ignored by name next to a complete model, and refused by what it is
in place of the file that the model needs (page 1.1, 1.4, S3, R3, R7, M2 to M4, M7).
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from allaprima.errors import WeightsError
from tests.flux.oracles import transformer_oracle
from tests.weights.published import Tensors, write_gguf
from tests.weights.shapes.case import AUTOENCODER, CLIP, TRANSFORMER, Cases, Same, Site, Write, refused
from tests.weights.shapes.quantizers import bytes_tensor, in_dtype, is_linear
from tests.weights.shapes.text_encoder_cases import quant_conv, vision
from tests.weights.shapes.transformer_cases import diffusers_tensors, prefixed

CASES = Cases()
#: What a refusal says to do.
ADVICE = r"\b(take|use|give|put|download|fetch|convert|name|does not apply|needs?|such as|instead)\b"


@dataclass(frozen=True)
class Foreign:
    """A kind of file that can't be used."""

    file: str
    tensors: Callable[[Site], Tensors]
    #: Pattern of what it is.
    what: str
    metadata: dict[str, str] | None = None


def ones(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.ones(shape).to(dtype)


# LoRAs (1.4) ----------------------------------------------------------------------------------------------------------


def pair(layer: str, down: str = "lora_down", up: str = "lora_up", alpha: bool = True) -> Tensors:
    tensors = {f"{layer}.{down}.weight": ones(4, 64), f"{layer}.{up}.weight": ones(192, 4)}
    return tensors | ({f"{layer}.alpha": torch.tensor(4.0)} if alpha else {})


def xlabs(site: Site) -> Tensors:
    layer = "double_blocks.0.processor"
    return {
        f"{layer}.{kind}_lora{i}.{way}.weight": ones(*(shape if way == "down" else shape[::-1]))
        for kind in ("qkv", "proj")
        for i, shape in ((1, (4, 64)), (2, (4, 64)))
        for way in ("down", "up")
    }


def bfl_control(site: Site) -> Tensors:
    """Return a control LoRA of Black Forest Labs: it has whole norms of the transformer."""
    norms = {name: one for name, one in site.tensors(TRANSFORMER).items() if name.endswith("norm.scale")}
    layers = [name for name, one in site.tensors(TRANSFORMER).items() if is_linear(name, one)]
    pairs: Tensors = {}
    for name in layers:
        layer = name.removesuffix(".weight")
        rows, columns = site.tensors(TRANSFORMER)[name].shape
        columns = 32 if layer == "img_in" else columns
        pairs |= {
            f"{layer}.lora_A.weight": ones(4, columns),
            f"{layer}.lora_B.weight": ones(rows, 4),
            f"{layer}.lora_B.bias": ones(rows),
        }
    return norms | pairs


def dora(site: Site) -> Tensors:
    layer = "transformer.transformer_blocks.0.attn.to_q"
    return pair(layer, "lora_A", "lora_B", alpha=False) | {f"{layer}.lora_magnitude_vector": ones(64)}


LORAS = {
    "lora_kohya": Foreign(
        "kohya.safetensors",
        lambda _: pair("lora_unet_double_blocks_0_img_attn_qkv") | pair("lora_te1_text_model_encoder_layers_0_mlp_fc1"),
        "LoRA",
        {"ss_network_module": "networks.lora_flux", "modelspec.architecture": "flux-1-dev/lora"},
    ),
    "lora_kohya_text_encoder_only": Foreign(
        "te.safetensors", lambda _: pair("lora_te1_text_model_encoder_layers_0_mlp_fc1"), "LoRA"
    ),
    "lora_kohya_t5": Foreign(
        "te3.safetensors", lambda _: pair("lora_te3_encoder_block_0_layer_0_SelfAttention_q"), "LoRA"
    ),
    "lora_peft": Foreign(
        "pytorch_lora_weights.safetensors",
        lambda _: (
            pair("transformer.transformer_blocks.0.attn.to_q", "lora_A", "lora_B", alpha=False)
            | pair("transformer.single_transformer_blocks.0.norm.linear", "lora_A", "lora_B", alpha=False)
        ),
        "LoRA",
    ),
    "lora_peft_base_model": Foreign(
        "adapter_model.safetensors",
        lambda _: pair("base_model.model.transformer_blocks.0.attn.to_q", "lora_A", "lora_B", alpha=False),
        "LoRA",
    ),
    "lora_ai_toolkit": Foreign(
        "ai.safetensors",
        lambda _: pair("diffusion_model.double_blocks.0.img_attn.qkv", "lora_A", "lora_B", alpha=False),
        "LoRA",
    ),
    "lora_bare_names": Foreign(
        "bare.safetensors", lambda _: pair("double_blocks.0.img_attn.qkv", "lora_A", "lora_B", alpha=False), "LoRA"
    ),
    "lora_simpletuner_lycoris": Foreign(
        "lycoris.safetensors",
        lambda _: {
            "lycoris_transformer_blocks_0_attn_to_q.lokr_w1": ones(8, 8),
            "lycoris_transformer_blocks_0_attn_to_q.lokr_w2": ones(8, 8),
            "lycoris_transformer_blocks_0_attn_to_q.alpha": torch.tensor(1.0),
        },
        "LoRA|LoKr|LyCORIS",
    ),
    "lora_onetrainer_old": Foreign(
        "ot.safetensors", lambda _: pair("lora_transformer_single_transformer_blocks_0_attn_to_k"), "LoRA"
    ),
    "lora_onetrainer_new": Foreign(
        "otn.safetensors", lambda _: pair("transformer.double_blocks.0.img_attn.qkv.0"), "LoRA"
    ),
    "lora_xlabs": Foreign("xlabs.safetensors", xlabs, "LoRA"),
    "lora_uso": Foreign(
        "uso.safetensors",
        lambda _: {
            f"single_blocks.0.processor.qkv_lora.{way}.weight": ones(4, 64) if way == "down" else ones(64, 4)
            for way in ("down", "up")
        },
        "LoRA",
    ),
    "lora_bfl_control": Foreign("flux1-depth-dev-lora.safetensors", bfl_control, "LoRA"),
    "lora_dora_peft": Foreign("dora.safetensors", dora, "LoRA|DoRA"),
    "lora_dora_kohya": Foreign(
        "dora2.safetensors",
        lambda _: (
            pair("lora_unet_double_blocks_0_img_attn_qkv")
            | {"lora_unet_double_blocks_0_img_attn_qkv.dora_scale": ones(1, 64)}
        ),
        "LoRA|DoRA",
    ),
    "lora_loha": Foreign(
        "loha.safetensors",
        lambda _: {
            f"lora_unet_double_blocks_0_img_attn_qkv.hada_{w}": ones(4, 64) for w in ("w1_a", "w1_b", "w2_a", "w2_b")
        },
        "LoRA|LoHa",
    ),
    "lora_loha_ai_toolkit": Foreign(
        "loha2.safetensors",
        lambda _: {
            f"diffusion_model.double_blocks.0.img_attn.qkv.hada_{w}": ones(4, 64)
            for w in ("w1_a", "w1_b", "w2_a", "w2_b")
        },
        "LoRA|LoHa",
    ),
    "lora_lokr": Foreign(
        "lokr.safetensors",
        lambda _: {
            f"diffusion_model.double_blocks.0.img_attn.qkv.lokr_{w}": ones(8, 8) for w in ("w1", "w2_a", "w2_b")
        },
        "LoRA|LoKr",
    ),
    "lora_full_diff": Foreign(
        "diff.safetensors",
        lambda _: {
            "diffusion_model.double_blocks.0.img_attn.qkv.diff": ones(192, 64),
            "diffusion_model.double_blocks.0.img_attn.qkv.diff_b": ones(192),
            "diffusion_model.double_blocks.0.img_attn.norm.key_norm.diff": ones(32),
        },
        "LoRA|difference",
    ),
    "lora_fp8": Foreign(
        "fp8lora.safetensors",
        lambda _: in_dtype(torch.float8_e4m3fn)(pair("lora_unet_single_blocks_0_linear1")),
        "LoRA",
    ),
    "lora_diffusers_old_processor": Foreign(
        "old.safetensors",
        lambda _: pair("unet.transformer_blocks.0.attn.processor.to_q_lora", "down", "up", alpha=False),
        "LoRA",
    ),
}

# Quantisers (M2, M3) --------------------------------------------------------------------------------------------------


def per_linear(site: Site, stored: Callable[[str, torch.Tensor], Tensors], *, names: str = "diffusers") -> Tensors:
    """Return the transformer with each linear layer replaced by what `stored(layer, weight)` returns."""
    tensors = diffusers_tensors(site) if names == "diffusers" else site.tensors(TRANSFORMER)
    changed: Tensors = {}
    for name, one in tensors.items():
        if is_linear(name, one):
            changed |= stored(name.removesuffix(".weight"), one)
        else:
            changed[name] = one
    return changed


def nunchaku(site: Site) -> Tensors:
    tensors: Tensors = {}
    for kind, layers in (
        ("transformer_blocks", ("qkv_proj", "qkv_proj_context", "out_proj", "mlp_fc1", "mlp_fc2")),
        ("single_transformer_blocks", ("qkv_proj", "out_proj", "mlp_fc1", "mlp_fc2")),
    ):
        for layer in layers:
            name = f"{kind}.0.{layer}"
            tensors |= {
                f"{name}.qweight": torch.ones(64, 32, dtype=torch.int8),
                f"{name}.wscales": ones(1, 64),
                f"{name}.smooth_factor": ones(64),
                f"{name}.smooth_factor_orig": ones(64),
                f"{name}.proj_down": ones(64, 16),
                f"{name}.proj_up": ones(64, 16),
                f"{name}.bias": ones(64),
            }
    tensors |= {
        "transformer_blocks.0.norm1.linear.qweight": torch.ones(16, 32, dtype=torch.int32),
        "transformer_blocks.0.norm1.linear.wscales": ones(1, 64),
        "transformer_blocks.0.norm1.linear.wzeros": ones(1, 64),
        "transformer_blocks.0.norm_q.weight": ones(32),
        "x_embedder.weight": ones(64, 16),
    }
    return tensors


def sdnq(layer: str, weight: torch.Tensor) -> Tensors:
    rows, columns = weight.shape
    return {
        f"{layer}.weight": torch.ones(rows, columns // 2, dtype=torch.uint8),
        f"{layer}.scale": ones(rows, 1),
        f"{layer}.zero_point": ones(rows, 1),
        f"{layer}.svd_up": ones(rows, 4),
        f"{layer}.svd_down": ones(4, columns),
    }


def sdnq_int8(layer: str, weight: torch.Tensor) -> Tensors:
    return {f"{layer}.weight": torch.ones(weight.shape, dtype=torch.int8), f"{layer}.scale": ones(weight.shape[0], 1)}


def quanto(layer: str, weight: torch.Tensor) -> Tensors:
    return {
        f"{layer}.weight._data": torch.ones(weight.shape, dtype=torch.int8),
        f"{layer}.weight._scale": ones(weight.shape[0], 1),
        f"{layer}.input_scale": ones(),
        f"{layer}.output_scale": ones(),
    }


def torchao(layer: str, weight: torch.Tensor) -> Tensors:
    return {
        f"{layer}._weight_qdata": torch.ones(weight.shape, dtype=torch.int8),
        f"{layer}._weight_scale": ones(weight.shape[0]),
    }


def dfloat11(layer: str, weight: torch.Tensor) -> Tensors:
    return {
        f"{layer}.encoded_exponent": torch.ones(100, dtype=torch.uint8),
        f"{layer}.sign_mantissa": torch.ones(weight.numel(), dtype=torch.uint8),
        f"{layer}.luts": torch.ones(3, 256, dtype=torch.uint8),
        f"{layer}.gaps": torch.ones(10, dtype=torch.uint8),
        f"{layer}.output_positions": torch.ones(40, dtype=torch.uint8),
    }


def mflux(layer: str, weight: torch.Tensor) -> Tensors:
    rows, columns = weight.shape
    return {
        f"{layer}.weight": torch.ones(rows, columns // 8, dtype=torch.uint32),
        f"{layer}.scales": ones(rows, 1),
        f"{layer}.biases": ones(rows, 1),
    }


def int8_bnb(layer: str, weight: torch.Tensor) -> Tensors:
    return {
        f"{layer}.weight": torch.ones(weight.shape, dtype=torch.int8),
        f"{layer}.SCB": torch.ones(weight.shape[0]),
        f"{layer}.weight_format": torch.zeros((), dtype=torch.uint8),
    }


def gptq(layer: str, weight: torch.Tensor) -> Tensors:
    rows, columns = weight.shape
    return {
        f"{layer}.qweight": torch.ones(columns // 8, rows, dtype=torch.int32),
        f"{layer}.qzeros": torch.ones(1, rows // 8, dtype=torch.int32),
        f"{layer}.scales": ones(1, rows),
        f"{layer}.g_idx": torch.zeros(columns, dtype=torch.int32),
    }


_NUNCHAKU = {
    "model_class": "NunchakuFluxTransformer2dModel",
    "quantization_config": json.dumps({"method": "svdquant", "weight": {"dtype": "int4", "group_size": 64}}),
    "config": "{}",
}
QUANTISERS = {
    "nunchaku_int4": Foreign("svdq-int4_r32-flux.1-schnell.safetensors", nunchaku, "nunchaku", _NUNCHAKU),
    "nunchaku_fp4_without_metadata": Foreign(
        "svdq-fp4.safetensors",
        lambda s: {
            name: one.float().to(torch.float8_e4m3fn) if "wscales" in name else one for name, one in nunchaku(s).items()
        },
        "nunchaku|SVDQuant",
    ),
    "sdnq_uint4_svd": Foreign("sdnq.safetensors", lambda s: per_linear(s, sdnq), "SDNQ"),
    "sdnq_int8_without_svd": Foreign("sdnq8.safetensors", lambda s: per_linear(s, sdnq_int8), "SDNQ|int8"),
    "quanto": Foreign("quanto.safetensors", lambda s: per_linear(s, quanto), "quanto"),
    "quanto_bfl_names": Foreign("quanto2.safetensors", lambda s: per_linear(s, quanto, names="bfl"), "quanto"),
    "torchao": Foreign("torchao.safetensors", lambda s: per_linear(s, torchao), "torchao"),
    "dfloat11": Foreign("df11.safetensors", lambda s: per_linear(s, dfloat11), "DFloat11"),
    "mflux_4_bit": Foreign(
        "0.safetensors",
        lambda s: per_linear(s, mflux),
        "mflux|MLX",
        {"quantization_level": "4", "mflux_version": "0.6.0"},
    ),
    "mlx_without_metadata": Foreign("mlx.safetensors", lambda s: per_linear(s, mflux), "mflux|MLX"),
    "bnb_int8": Foreign("bnb8.safetensors", lambda s: per_linear(s, int8_bnb), "bitsandbytes|int8"),
    "bnb_int8_bfl_names": Foreign(
        "bnb8b.safetensors", lambda s: per_linear(s, int8_bnb, names="bfl"), "bitsandbytes|int8"
    ),
    "gptq": Foreign("gptq.safetensors", lambda s: per_linear(s, gptq), "GPTQ|qweight|quanti[sz]"),
}

# Relatives (1.1, M4) --------------------------------------------------------------------------------------------------


def guidance(site: Site) -> Tensors:
    return {
        "guidance_in.in_layer.weight": ones(64, 256),
        "guidance_in.in_layer.bias": ones(64),
        "guidance_in.out_layer.weight": ones(64, 64),
        "guidance_in.out_layer.bias": ones(64),
    }


def dev(site: Site) -> Tensors:
    return site.tensors(TRANSFORMER) | guidance(site)


def dev_diffusers(site: Site) -> Tensors:
    import diffusers

    ours = transformer_oracle(site.published.networks.transformer)
    return dict(diffusers.FluxTransformer2DModel(**{**ours.config, "guidance_embeds": True}).bfloat16().state_dict())


def columns(site: Site, factor: int, **more: torch.Tensor) -> Tensors:
    return dev(site) | {"img_in.weight": ones(64, 16 * factor)} | more


def chroma(site: Site) -> Tensors:
    dropped = ("vector_in", "time_in", "_mod.", "modulation", "adaLN")
    kept = {name: one for name, one in site.tensors(TRANSFORMER).items() if not any(part in name for part in dropped)}
    approximator = {
        f"distilled_guidance_layer.{name}": ones(64, 64)
        for name in ("in_proj.weight", "layers.0.in_layer.weight", "layers.0.out_layer.weight", "out_proj.weight")
    }
    return kept | approximator | {"distilled_guidance_layer.norms.0.scale": ones(64)}


def flux2(site: Site) -> Tensors:
    names = {
        name: one.clone()
        for name, one in site.tensors(TRANSFORMER).items()
        if not name.endswith("bias") and "vector_in" not in name and "_mod." not in name and "modulation" not in name
    }
    return names | {
        "double_stream_modulation_img.lin.weight": ones(384, 64),
        "double_stream_modulation_txt.lin.weight": ones(384, 64),
        "single_stream_modulation.lin.weight": ones(192, 64),
    }


_DEV = r"FLUX\.1 \[dev\]"
RELATIVES = {
    "dev": Foreign("flux1-dev.safetensors", dev, rf"{_DEV}.*(Krea|merge)"),
    "dev_fp8": Foreign("flux1-dev-fp8.safetensors", lambda s: in_dtype(torch.float8_e4m3fn)(dev(s)), _DEV),
    "dev_prefixed": Foreign("dev2.safetensors", lambda s: prefixed("model.diffusion_model.", dev(s)), _DEV),
    "dev_diffusers": Foreign("diffusers_dev.safetensors", dev_diffusers, _DEV),
    "dev_comfy2026": Foreign(
        "comfy_dev.safetensors",
        lambda s: {k.replace("_norm.scale", "_norm.weight"): v for k, v in dev(s).items()},
        _DEV,
    ),
    "kontext_by_metadata": Foreign(
        "kontext.safetensors",
        dev,
        "Kontext",
        {"modelspec.title": "Flux.1 Kontext-dev", "modelspec.architecture": "Flux.1-kontext-dev"},
    ),
    "krea_by_metadata": Foreign("krea.safetensors", dev, "Krea", {"modelspec.title": "FLUX.1 Krea [dev]"}),
    "fill": Foreign("flux1-fill-dev.safetensors", lambda s: columns(s, 6), "Fill|inpaint"),
    "canny_or_depth": Foreign("flux1-depth-dev.safetensors", lambda s: columns(s, 2), "Canny|Depth"),
    "chroma": Foreign("chroma-unlocked-v50.safetensors", chroma, "Chroma"),
    "chroma_fp8": Foreign("chroma-fp8.safetensors", lambda s: in_dtype(torch.float8_e4m3fn)(chroma(s)), "Chroma"),
    "flux2": Foreign("flux2-klein-4b.safetensors", flux2, r"FLUX\.2"),
    "flux2_diffusers": Foreign(
        "flux2_diffusers.safetensors",
        lambda _: {
            "double_stream_modulation_img.linear.weight": ones(384, 64),
            "single_stream_modulation.linear.weight": ones(192, 64),
            "transformer_blocks.0.attn.norm_added_k.weight": ones(32),
            "transformer_blocks.0.attn.to_q.weight": ones(64, 64),
            "single_transformer_blocks.0.attn.to_qkv_mlp_proj.weight": ones(320, 64),
            "x_embedder.weight": ones(64, 16),
            "context_embedder.weight": ones(64, 32),
        },
        r"FLUX\.2",
    ),
}

# Other models in the same folders (R3, R7) ----------------------------------------------------------------------------


def sdxl(site: Site) -> Tensors:
    unet = prefixed(
        "model.diffusion_model.",
        {
            "input_blocks.0.0.weight": ones(64, 4, 3, 3),
            "middle_block.1.transformer_blocks.0.attn1.to_q.weight": ones(64, 64),
            "out.2.weight": ones(4, 64, 3, 3),
            "label_emb.0.0.weight": ones(64, 64),
        },
    )
    clip_l = prefixed("conditioner.embedders.0.transformer.", site.tensors(CLIP))
    clip_g = {
        "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight": ones(192, 64),
        "conditioner.embedders.1.model.positional_embedding": ones(77, 64),
        "conditioner.embedders.1.model.token_embedding.weight": ones(540, 64),
    }
    return unet | clip_l | clip_g | prefixed("first_stage_model.", quant_conv(site.tensors(AUTOENCODER)))


def sd15(site: Site) -> Tensors:
    unet = prefixed(
        "model.diffusion_model.", {"input_blocks.0.0.weight": ones(64, 4, 3, 3), "out.2.weight": ones(4, 64, 3, 3)}
    )
    clip = prefixed("cond_stage_model.transformer.", site.tensors(CLIP))
    return unet | clip | prefixed("first_stage_model.", quant_conv(site.tensors(AUTOENCODER)))


def controlnet(site: Site) -> Tensors:
    return diffusers_tensors(site) | {
        "controlnet_blocks.0.weight": ones(64, 64),
        "controlnet_x_embedder.weight": ones(64, 16),
    }


def controlnet_xlabs(site: Site) -> Tensors:
    kept = {k: v for k, v in site.tensors(TRANSFORMER).items() if "single" not in k and "final" not in k}
    return kept | {"controlnet_blocks.0.weight": ones(64, 64), "input_hint_block.0.weight": ones(16, 3, 3, 3)}


def hunyuan_video(site: Site) -> Tensors:
    """Return HunyuanVideo's names in ComfyUI: blocks as FLUX's, another text input."""
    kept = {k: v for k, v in site.tensors(TRANSFORMER).items() if not k.startswith("txt_in")}
    return kept | {
        "txt_in.individual_token_refiner.blocks.0.self_attn.qkv.weight": ones(192, 64),
        "txt_in.input_embedder.weight": ones(64, 32),
        "img_in.proj.weight": ones(64, 16, 1, 2, 2),
    }


def qwen_image(site: Site) -> Tensors:
    """Return Qwen-Image's names: its attention has the mark of FLUX's in diffusers."""
    return {
        "img_in.weight": ones(64, 16),
        "txt_in.weight": ones(64, 32),
        "txt_norm.weight": ones(32),
        "transformer_blocks.0.attn.norm_added_k.weight": ones(32),
        "transformer_blocks.0.attn.norm_added_q.weight": ones(32),
        "transformer_blocks.0.attn.add_k_proj.weight": ones(64, 64),
        "transformer_blocks.0.img_mod.1.weight": ones(384, 64),
        "transformer_blocks.0.txt_mlp.net.0.proj.weight": ones(256, 64),
        "proj_out.weight": ones(16, 64),
    }


def keys(*names: str, shape: tuple[int, ...] = (64, 64)) -> Callable[[Site], Tensors]:
    return lambda _: {name: ones(*shape) for name in names}


OTHERS = {
    "sigclip_vision": Foreign("sigclip_vision_patch14_384.safetensors", lambda _: vision(), "vision"),
    "clip_vision": Foreign(
        "clip_vision_h.safetensors", lambda _: vision() | {"visual_projection.weight": ones(64, 64)}, "vision"
    ),
    "clip_vision_openai_names": Foreign(
        "vit_h.safetensors",
        keys("visual.transformer.resblocks.0.attn.in_proj_weight", "visual.proj", "visual.conv1.weight"),
        "vision",
    ),
    "sdxl_checkpoint": Foreign("sd_xl_base_1.0.safetensors", sdxl, "SDXL|Stable Diffusion|another model"),
    "sd15_checkpoint": Foreign("v1-5-pruned-emaonly.safetensors", sd15, "SD|Stable Diffusion|another model"),
    "controlnet_diffusers": Foreign("controlnet-union.safetensors", controlnet, "ControlNet"),
    "controlnet_xlabs": Foreign("flux-canny-controlnet-v3.safetensors", controlnet_xlabs, "ControlNet"),
    "redux": Foreign("flux1-redux-dev.safetensors", keys("redux_up.weight", "redux_down.weight"), "Redux|redux"),
    "ip_adapter_xlabs": Foreign(
        "ip_adapter.safetensors",
        keys("double_blocks.0.processor.ip_adapter_double_stream_k_proj.weight", "ip_adapter_proj_model.proj.weight"),
        "IP.?[aA]dapter",
    ),
    "pulid": Foreign("pulid_flux_v0.9.1.safetensors", keys("pulid_ca.0.norm1.weight", "pulid_encoder.latents"), ""),
    "hunyuan_video": Foreign("hunyuan_video_720.safetensors", hunyuan_video, ""),
    "qwen_image": Foreign("qwen_image_fp8.safetensors", qwen_image, ""),
    "wan_video": Foreign(
        "wan2.2_t2v.safetensors", keys("blocks.0.self_attn.q.weight", "text_embedding.0.weight", "head.head.weight"), ""
    ),
    "z_image": Foreign(
        "z_image_turbo.safetensors", keys("layers.0.attention.qkv.weight", "noise_refiner.0.attention.qkv.weight"), ""
    ),
    "sd35": Foreign(
        "sd3.5_large.safetensors",
        keys(
            "model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight",
            "model.diffusion_model.x_embedder.proj.weight",
        ),
        "",
    ),
    "sd35_diffusers": Foreign(
        "sd35_diffusers.safetensors",
        keys(
            "transformer_blocks.0.attn.norm_added_k.weight",
            "pos_embed.proj.weight",
            "transformer_blocks.0.attn.to_q.weight",
            "time_text_embed.text_embedder.linear_1.weight",
        ),
        "",
    ),
    "aura_or_hidream": Foreign(
        "hidream.safetensors",
        keys("double_stream_blocks.0.block.attn1.to_q.weight", "caption_projection.0.linear.weight"),
        "",
    ),
    "llama_language_model": Foreign(
        "llava_llama3_fp8_scaled.safetensors",
        keys("model.layers.0.self_attn.q_proj.weight", "model.embed_tokens.weight", "lm_head.weight"),
        "",
    ),
    "qwen_vision_language_model": Foreign(
        "qwen_2.5_vl_7b.safetensors",
        keys("model.layers.0.self_attn.q_proj.weight", "visual.blocks.0.attn.qkv.weight", "model.embed_tokens.weight"),
        "",
    ),
    "wan_vae": Foreign(
        "wan_2.1_vae.safetensors",
        keys("encoder.downsamples.0.residual.0.gamma", "decoder.conv1.weight", "conv2.weight"),
        "",
    ),
    "flux2_vae": Foreign(
        "flux2-vae.safetensors",
        lambda s: (
            s.tensors(AUTOENCODER)
            | {
                "bn.running_mean": ones(16),
                "quant_conv.weight": ones(8, 8, 1, 1),
                "post_quant_conv.weight": ones(4, 4, 1, 1),
            }
        ),
        "",
    ),
    "upscaler": Foreign("4x-UltraSharp.safetensors", keys("model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight"), ""),
    "embedding": Foreign("easynegative.safetensors", keys("emb_params", "clip_l", shape=(4, 64)), ""),
    "safety_checker": Foreign(
        "safety.safetensors", lambda _: vision("vision_model.vision_model.") | {"concept_embeds": ones(17, 64)}, ""
    ),
    "empty_safetensors": Foreign("empty.safetensors", lambda _: {}, ""),
}

FOREIGN = LORAS | QUANTISERS | RELATIVES | OTHERS


def in_folder(foreign: Foreign) -> Write:
    def write(site: Site) -> None:
        site.neighbour(foreign.file, foreign.tensors(site), foreign.metadata)

    return write


def alone(foreign: Foreign, *, as_path: bool) -> Write:
    """Return a writer of the file in place of the transformer; opened by its path, or by its folder."""

    def write(site: Site) -> Path:
        tensors = foreign.tensors(site)
        path = site.base(TRANSFORMER) / foreign.file
        save_file({name: one.contiguous() for name, one in tensors.items()}, path, foreign.metadata)
        return path if as_path else path.parent

    return write


for _name, _foreign in FOREIGN.items():
    CASES.add(f"{_name}_in_folder", Same({_foreign.file: _foreign.what}, load=False), in_folder(_foreign))
    _file = _foreign.file.replace(".", r"\.")
    if _name not in OTHERS or _name in (
        "sdxl_checkpoint",
        "controlnet_diffusers",
        "sigclip_vision",
        "redux",
        "llama_language_model",
        "qwen_image",
        "hunyuan_video",
    ):
        _outcome = refused(WeightsError, _file, f"(?i:{_foreign.what})", ADVICE)
        CASES.add(f"{_name}_alone", _outcome, alone(_foreign, as_path=False))
        CASES.add(f"{_name}_as_the_path", _outcome, alone(_foreign, as_path=True))


# GGUF neighbours ------------------------------------------------------------------------------------------------------


def language_gguf(site: Site, name: str, architecture: str, tokens: int) -> Path:
    """Write a language model as GGUF with a vocabulary."""
    import gguf

    path = site.base() / name
    writer = gguf.GGUFWriter(path, architecture, use_temp_file=False)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"token number {i:032d}" for i in range(tokens)])
    writer.add_token_types([1] * tokens)
    writer.add_token_merges([f"a{i} b{i}" for i in range(tokens)])
    for tensor in ("token_embd.weight", "blk.0.attn_q.weight", "blk.0.ffn_down.weight", "output.weight"):
        writer.add_tensor(tensor, ones(64, 64, dtype=torch.float32).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@CASES.case(Same({"Qwen3-4B-Q4_K_M.gguf": "(?i)language model|LLM|qwen"}, load=False))
def llm_gguf_in_folder(site: Site) -> None:
    path = language_gguf(site, "Qwen3-4B-Q4_K_M.gguf", "qwen3", 100_000)
    assert path.stat().st_size > 4 << 20


@CASES.case(Same({"mmproj-F16.gguf": ""}, load=False))
def mmproj_gguf_in_folder(site: Site) -> None:
    write_gguf(site.base() / "mmproj-F16.gguf", {"v.blk.0.attn_q.weight": ones(64, 64)}, architecture="clip")


@CASES.case(Same({"flux1-dev-BF16.gguf": _DEV}, load=False))
def dev_gguf_in_folder(site: Site) -> None:
    write_gguf(site.base() / "flux1-dev-BF16.gguf", dev(site))


@CASES.case(refused(WeightsError, r"flux1-dev-BF16\.gguf", _DEV, ADVICE))
def dev_gguf_as_the_path(site: Site) -> Path:
    path = site.base(TRANSFORMER) / "flux1-dev-BF16.gguf"
    write_gguf(path, dev(site))
    return path


@CASES.case(Same({"chroma-Q8_0.gguf": "Chroma"}, load=False))
def chroma_gguf_in_folder(site: Site) -> None:
    write_gguf(site.base() / "chroma-Q8_0.gguf", chroma(site), architecture="chroma")


@CASES.case(Same({"lora.gguf": "LoRA"}, load=False))
def lora_gguf_in_folder(site: Site) -> None:
    write_gguf(site.base() / "lora.gguf", pair("lora_unet_double_blocks_0_img_attn_qkv"), architecture="flux")


@CASES.case(refused(WeightsError, r"flux1-fill-dev-BF16\.gguf", "Fill|inpaint"))
def fill_gguf_as_the_path(site: Site) -> Path:
    path = site.base(TRANSFORMER) / "flux1-fill-dev-BF16.gguf"
    write_gguf(path, columns(site, 6))
    return path


@CASES.case(Same({"a.safetensors": "Chroma", "b.safetensors": _DEV, "c.safetensors": "LoRA"}, load=False))
def several_relatives_in_folder(site: Site) -> None:
    site.neighbour("a.safetensors", chroma(site))
    save_file(dev(site), site.folder / "b.safetensors")
    save_file(pair("lora_unet_double_blocks_0_img_attn_qkv"), site.folder / "c.safetensors")


@CASES.case(refused(WeightsError, r"dev\.safetensors", r"chroma\.safetensors", _DEV, "Chroma"))
def two_relatives_and_no_schnell(site: Site) -> None:
    """A folder with two transformers that can't be used: both are named."""
    site.base(TRANSFORMER)
    save_file(dev(site), site.folder / "dev.safetensors")
    save_file(chroma(site), site.folder / "chroma.safetensors")


@CASES.case(Same({"nf4marked.safetensors": ""}, load=False))
def marker_of_a_quantiser_in_a_stray_file_in_folder(site: Site) -> None:
    site.neighbour("nf4marked.safetensors", {"a.weight.quant_state.bitsandbytes__nf4": bytes_tensor("{}")})

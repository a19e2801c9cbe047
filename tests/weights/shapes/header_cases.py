"""Headers of quantizers and of other models, with the names, dtypes and sizes that their public tools write.

Sources: mobiusml/hqq `core/quantize.py`; compressed-tensors `compressors/`; nvidia-cosmos/cosmos-predict1 and
cosmos-predict2; Stability-AI/StableCascade `modules/`; Tencent/HunyuanDiT; genmoai/mochi; huggingface/diffusers
`scripts/convert_cosmos_to_diffusers.py` and `convert_hunyuandit_to_diffusers.py`; ComfyUI `model_detection.py`.
"""

import json
from collections.abc import Callable

import torch

from allaprima.errors import WeightsCorrupt, WeightsError
from tests.weights.published import Tensors
from tests.weights.shapes.case import AUTOENCODER, CLIP, T5, TRANSFORMER, Cases, Right, Same, Site, refused
from tests.weights.shapes.foreign_cases import ADVICE, Foreign, alone, in_folder, ones, per_linear
from tests.weights.shapes.number_cases import E4M3, FILE
from tests.weights.shapes.quantizers import bytes_tensor, int8_rows, is_linear, scaled
from tests.weights.shapes.text_encoder_cases import quant_conv
from tests.weights.shapes.transformer_cases import prefixed, replaced
from tests.weights.shapes.unlisted_cases import write_transformer

CASES = Cases()
Store = Callable[[str, torch.Tensor], Tensors]


def packed(*shape: int, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    return torch.ones(shape, dtype=dtype)


# Quantizers -----------------------------------------------------------------------------------------------------------


def hqq(layer: str, weight: torch.Tensor) -> Tensors:
    """Return what HQQLinear's `state_dict` holds for one layer when it encodes itself for safetensors."""
    rows, columns = weight.shape
    groups = rows * columns // 16
    numbers = {"nbits": 4, "group_size": 16, "axis": 1}
    flags = ("view_as_float", "quant_scale", "quant_zero", "channel_wise", "optimize", "round_zero", "offload_meta")
    texts = {"packing": "4bit_u8", "unpack_view_dtype": "uint8", "compute_dtype": "bfloat16"}
    tensors = {
        "W_q": packed(groups // 2, 16),
        "scale": ones(groups, 1),
        "zero": ones(groups, 1),
        "shape": torch.tensor([rows, columns]),
        "encoded_state_dict": torch.tensor([True]),
        "stores_quant_config": torch.tensor([True]),
    }
    tensors |= {name: torch.tensor([value]) for name, value in numbers.items()}
    tensors |= {name: torch.tensor([False]) for name in flags}
    tensors |= {name: bytes_tensor(value) for name, value in texts.items()}
    return {f"{layer}.{name}": one for name, one in tensors.items()}


def ct_packed(layer: str, weight: torch.Tensor) -> Tensors:
    """Return a layer in compressed-tensors' pack-quantized format: int4 in groups of 16."""
    rows, columns = weight.shape
    return {
        f"{layer}.weight_packed": packed(rows, columns // 8, dtype=torch.int32),
        f"{layer}.weight_scale": ones(rows, columns // 16),
        f"{layer}.weight_zero_point": packed(rows // 8, columns // 16, dtype=torch.int32),
        f"{layer}.weight_shape": torch.tensor([rows, columns]),
    }


def ct_nvfp4(layer: str, weight: torch.Tensor) -> Tensors:
    rows, columns = weight.shape
    return {
        f"{layer}.weight_packed": packed(rows, columns // 2),
        f"{layer}.weight_scale": ones(rows, columns // 16).to(torch.float8_e4m3fn),
        f"{layer}.weight_global_scale": torch.ones(1),
        f"{layer}.input_global_scale": torch.ones(1),
    }


def of(component: str, store: Store) -> Callable[[Site], Tensors]:
    """Return a function that stores the linear layers of a text encoder."""

    def tensors(site: Site) -> Tensors:
        changed: Tensors = {}
        for name, one in site.tensors(component).items():
            changed |= store(name.removesuffix(".weight"), one) if is_linear(name, one) else {name: one}
        return changed

    return tensors


def both_names(name: str, store: Store, what: str) -> dict[str, Foreign]:
    return {
        f"{name}_diffusers": Foreign(f"{name}.safetensors", lambda s: per_linear(s, store), what, {"format": "pt"}),
        f"{name}_bfl": Foreign(f"{name}-bfl.safetensors", lambda s: per_linear(s, store, names="bfl"), what),
        f"{name}_prefixed": Foreign(
            f"{name}-p.safetensors",
            lambda s: prefixed("model.diffusion_model.", per_linear(s, store, names="bfl")),
            what,
        ),
    }


QUANTIZERS = {
    **both_names("hqq", hqq, "HQQ"),
    **both_names("ct_w4a16", ct_packed, "compressed-tensors"),
    **both_names("ct_nvfp4", ct_nvfp4, "compressed-tensors"),
}

for _name, _store, _what in (
    ("hqq", hqq, "HQQ"),
    ("ct_w4a16", ct_packed, "compressed-tensors"),
    ("ct_nvfp4", ct_nvfp4, "compressed-tensors"),
):
    CASES.add(
        f"t5_in_{_name}",
        refused(WeightsCorrupt, "t5xxl_fp16", _what, "take the GGUF or fp8 file"),
        lambda site, store=_store: site.replace(T5, of(T5, store)(site)),
    )
    CASES.add(
        f"clip_in_{_name}",
        refused(WeightsCorrupt, "clip_l", _what, "take the GGUF or fp8 file"),
        lambda site, store=_store: site.replace(CLIP, of(CLIP, store)(site)),
    )


def with_input_scales(t: Tensors) -> Tensors:
    stored = scaled(scale_shape=(1,))(t)
    return stored | {
        name.replace("weight_scale", "input_scale"): torch.ones(1) for name in stored if "weight_scale" in name
    }


# float-quantized with a scale for each tensor has the names and the meaning of ComfyUI's; with a scale for each row it
# is refused, as is int-quantized.
CASES.add("ct_float8_of_tensors", Right(E4M3), replaced(with_input_scales))
CASES.add(
    "ct_float8_of_rows",
    refused(WeightsCorrupt, FILE, "weight_scale must have one value"),
    replaced(
        lambda t: {
            name: one.expand(len(t[name.removesuffix("_scale")]), 1).clone() if name.endswith("_scale") else one
            for name, one in scaled()(t).items()
        }
    ),
)
CASES.add("ct_int8_of_rows", refused(WeightsCorrupt, FILE, "I8", "take the GGUF or fp8 file"), replaced(int8_rows()))


# Other models ---------------------------------------------------------------------------------------------------------


def keys(prefix: str, *names: str) -> Tensors:
    return {prefix + name: ones(64, 64) for name in names}


COSMOS1 = (
    "x_embedder.proj.1.weight",
    "t_embedder.1.linear_1.weight",
    "t_embedder.1.linear_2.weight",
    "affline_norm.weight",
    "blocks.block0.blocks.0.block.attn.to_q.0.weight",
    "blocks.block0.blocks.0.block.attn.to_q.1.weight",
    "blocks.block0.blocks.0.block.attn.to_out.0.weight",
    "blocks.block0.blocks.0.adaLN_modulation.1.weight",
    "blocks.block0.blocks.1.block.attn.to_k.0.weight",
    "blocks.block0.blocks.2.block.layer1.weight",
    "final_layer.linear.weight",
    "final_layer.adaLN_modulation.1.weight",
)
COSMOS2 = (
    "x_embedder.proj.1.weight",
    "t_embedder.1.linear_1.weight",
    "t_embedding_norm.weight",
    "blocks.0.self_attn.q_proj.weight",
    "blocks.0.self_attn.q_norm.weight",
    "blocks.0.cross_attn.q_proj.weight",
    "blocks.0.cross_attn.output_proj.weight",
    "blocks.0.mlp.layer1.weight",
    "blocks.0.adaln_modulation_self_attn.1.weight",
    "final_layer.linear.weight",
)
COSMOS_DIFFUSERS = (
    "patch_embed.proj.weight",
    "time_embed.t_embedder.linear_1.weight",
    "time_embed.norm.weight",
    "transformer_blocks.0.norm1.linear_1.weight",
    "transformer_blocks.0.attn1.to_q.weight",
    "transformer_blocks.0.attn1.norm_q.weight",
    "transformer_blocks.0.attn2.to_q.weight",
    "transformer_blocks.0.ff.net.0.proj.weight",
    "norm_out.linear_1.weight",
    "proj_out.weight",
)
CASCADE_C = (
    "clip_txt_mapper.weight",
    "clip_txt_pooled_mapper.weight",
    "clip_img_mapper.weight",
    "clip_norm.weight",
    "embedding.1.weight",
    "down_blocks.0.0.channelwise.0.weight",
    "down_blocks.0.2.attention.attn.to_q.weight",
    "up_blocks.0.0.channelwise.0.weight",
    "clf.1.weight",
)
CASCADE_B = (
    "clip_mapper.weight",
    "effnet_mapper.0.weight",
    "pixels_mapper.0.weight",
    "embedding.1.weight",
    "down_blocks.0.0.channelwise.0.weight",
    "up_repeat_mappers.0.0.weight",
    "clf.1.weight",
)
CASCADE_DIFFUSERS = (
    "clip_txt_pooled_mapper.weight",
    "down_blocks.0.0.channelwise.0.weight",
    "down_blocks.0.2.attention.to_q.weight",
    "clf.1.weight",
)
HYDIT = (
    "mlp_t5.0.weight",
    "mlp_t5.2.weight",
    "text_embedding_padding",
    "pooler.positional_embedding",
    "pooler.k_proj.weight",
    "extra_embedder.0.weight",
    "style_embedder.weight",
    "x_embedder.proj.weight",
    "t_embedder.mlp.0.weight",
    "blocks.0.attn1.Wqkv.weight",
    "blocks.0.attn2.kv_proj.weight",
    "blocks.0.mlp.fc1.weight",
    "final_layer.linear.weight",
)
HYDIT_DIFFUSERS = (
    "text_embedder.linear_1.weight",
    "text_embedding_padding",
    "time_extra_emb.pooler.positional_embedding",
    "time_extra_emb.extra_embedder.linear_1.weight",
    "pos_embed.proj.weight",
    "blocks.0.attn1.to_q.weight",
    "blocks.0.attn2.to_k.weight",
    "blocks.0.ff.net.0.proj.weight",
    "norm_out.linear.weight",
)
MOCHI = (
    "t5_yproj.weight",
    "t5_y_embedder.to_kv.weight",
    "x_embedder.proj.weight",
    "pos_frequencies",
    "blocks.0.attn.qkv_x.weight",
    "blocks.0.attn.qkv_y.weight",
    "blocks.0.mod_x.weight",
    "final_layer.linear.weight",
)
UNET = "model.diffusion_model."


def cascade_c_checkpoint(site: Site) -> Tensors:
    """Return ComfyUI's checkpoint of stage C: the model, and CLIP-G in CLIP's names."""
    clip = {name.replace("layers.1", "layers.31"): one for name, one in site.tensors(CLIP).items()}
    return keys(UNET, *CASCADE_C) | prefixed("text_encoder.", clip)


def hydit_checkpoint(site: Site) -> Tensors:
    """Return ComfyUI's checkpoint of Hunyuan-DiT: the model, BERT, mT5 and SDXL's autoencoder."""
    bert = keys("text_encoders.hydit_clip.transformer.bert.", "encoder.layer.0.attention.self.query.weight")
    mt5 = prefixed("text_encoders.mt5xl.transformer.", site.tensors(T5))
    return keys(UNET, *HYDIT) | bert | mt5 | prefixed("vae.", quant_conv(site.tensors(AUTOENCODER)))


def mochi_checkpoint(site: Site) -> Tensors:
    """Return ComfyUI's checkpoint of Mochi, which holds FLUX's T5."""
    vae = keys("vae.", "decoder.blocks.0.0.weight", "encoder.layers.0.weight")
    return keys(UNET, *MOCHI) | prefixed("text_encoders.t5xxl.transformer.", site.tensors(T5)) | vae


_COSMOS, _CASCADE, _HYDIT = "Cosmos", "Stable Cascade", "Hunyuan-DiT"
MODELS = {
    "cosmos_predict1": Foreign("Cosmos-1.0-Text2World.safetensors", lambda _: keys("net.", *COSMOS1), _COSMOS),
    "cosmos_predict1_comfy": Foreign("cosmos_7b.safetensors", lambda _: keys(UNET, *COSMOS1), _COSMOS),
    "cosmos_predict2": Foreign("cosmos_predict2_2B_t2i.safetensors", lambda _: keys("net.", *COSMOS2), _COSMOS),
    "cosmos_predict2_bare": Foreign("cosmos2-bare.safetensors", lambda _: keys("", *COSMOS2), _COSMOS),
    "cosmos_diffusers": Foreign("cosmos_diffusers.safetensors", lambda _: keys("", *COSMOS_DIFFUSERS), _COSMOS),
    "stable_cascade_c": Foreign("stage_c_bf16.safetensors", lambda _: keys("", *CASCADE_C), _CASCADE),
    "stable_cascade_c_checkpoint": Foreign("stable_cascade_stage_c.safetensors", cascade_c_checkpoint, _CASCADE),
    "stable_cascade_b": Foreign("stage_b_bf16.safetensors", lambda _: keys("", *CASCADE_B), _CASCADE),
    "stable_cascade_diffusers": Foreign("prior.safetensors", lambda _: keys("", *CASCADE_DIFFUSERS), _CASCADE),
    "hunyuan_dit": Foreign("hunyuan_dit_1.2.safetensors", hydit_checkpoint, _HYDIT),
    "hunyuan_dit_bare": Foreign("pytorch_model_ema.safetensors", lambda _: keys("", *HYDIT), _HYDIT),
    "hunyuan_dit_diffusers": Foreign("hydit_diffusers.safetensors", lambda _: keys("", *HYDIT_DIFFUSERS), _HYDIT),
    "mochi": Foreign("mochi_preview_bf16.safetensors", lambda _: keys("", *MOCHI), "Mochi"),
    "mochi_checkpoint": Foreign("mochi_preview_fp8_scaled.safetensors", mochi_checkpoint, "Mochi"),
}

for _case, _foreign in (QUANTIZERS | MODELS).items():
    _outcome = refused(WeightsError, _foreign.file.replace(".", r"\."), _foreign.what, ADVICE)
    CASES.add(f"{_case}_in_folder", Same({_foreign.file: _foreign.what}, load=False), in_folder(_foreign))
    CASES.add(f"{_case}_alone", _outcome, alone(_foreign, as_path=False))
    CASES.add(f"{_case}_as_the_path", _outcome, alone(_foreign, as_path=True))


@CASES.case(refused(WeightsError, FILE, "compressed-tensors"))
def compressed_tensors_in_metadata_and_one_layer_only(site: Site) -> None:
    """A mixed model: one block is packed."""
    tensors = site.tensors(TRANSFORMER)
    name = "double_blocks.1.img_mlp.0"
    tensors |= ct_packed(name, tensors.pop(f"{name}.weight"))
    write_transformer(site, tensors, {"quantization_config": json.dumps({"format": "pack-quantized"})})

"""Text encoders and autoencoders in the shapes of public files (page 1.2)."""

from functools import partial

import gguf
import torch

from allaprima.errors import WeightsCorrupt, WeightsError, WeightsMissing
from tests.flux.oracles import autoencoder_oracle, clip_oracle, t5_oracle
from tests.weights.published import CONFIG, Tensors, gguf_t5_name, write_gguf
from tests.weights.shapes.case import (
    AUTOENCODER,
    CLIP,
    T5,
    Cases,
    Outcome,
    Right,
    Same,
    Site,
    Write,
    refused,
)
from tests.weights.shapes.quantizers import Change, in_dtype, is_linear, scaled
from tests.weights.shapes.transformer_cases import prefixed, replaced, unchanged

CASES = Cases()
EMBEDDING = "encoder.embed_tokens.weight"


def add(component: str, name: str, outcome: Outcome, change: Change) -> None:
    CASES.add(name, outcome, replaced(change, component=component))


def renamed(*pairs: tuple[str, str]) -> Change:
    """Return a function that replaces parts of names, in order."""

    def change(tensors: Tensors) -> Tensors:
        changed: Tensors = {}
        for name, tensor in tensors.items():
            new_name = name
            for old, new in pairs:
                new_name = new_name.replace(old, new)
            changed[new_name] = tensor
        return changed

    return change


# T5 -------------------------------------------------------------------------------------------------------------------


def both_embeddings(t: Tensors) -> Tensors:
    """Return T5 with its embedding under both names, as transformers writes it."""
    return t | {EMBEDDING: t["shared.weight"].clone()}


def with_decoder(t: Tensors) -> Tensors:
    """Return T5 with a decoder block and the output layer."""
    decoder = {name.replace("encoder.", "decoder."): one.clone() for name, one in t.items() if "encoder." in name}
    cross = {
        name.replace("layer.0.SelfAttention", "layer.1.EncDecAttention"): one.clone()
        for name, one in decoder.items()
        if "SelfAttention" in name
    }
    return both_embeddings(t) | decoder | cross | {"lm_head.weight": t["shared.weight"].clone()}


add(T5, "t5xxl_fp16_both_embeddings", Right(1e-3), lambda t: in_dtype(torch.float16)(both_embeddings(t)))
add(T5, "t5_shared_alone", Same(), unchanged)
add(T5, "t5_encoder_embedding_alone", Same(), renamed(("shared.weight", EMBEDDING)))
add(T5, "t5_fp8_e4m3fn", Right(0.04), lambda t: in_dtype(torch.float8_e4m3fn)(both_embeddings(t)))
add(
    T5,
    "t5_fp8_scaled",
    Right(0.04),
    lambda t: scaled(".scale_weight")(t) | {"scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn)},
)
add(T5, "t5_comfy_quant_e5m2", Right(0.07), scaled(dtype=torch.float8_e5m2, marker='{"format": "float8_e5m2"}'))
add(T5, "t5_prefix_text_encoders", Same(), partial(prefixed, "text_encoders.t5xxl.transformer."))
add(T5, "t5_prefix_transformer", Same(), partial(prefixed, "transformer."))
add(T5, "t5_prefix_text_encoder_2", Same(), partial(prefixed, "text_encoder_2."))
add(T5, "t5_full_with_decoder", Same(), with_decoder)
add(T5, "t5_f32", Same(), in_dtype(torch.float32))
add(
    T5,
    "t5_embeddings_differ",
    refused(WeightsCorrupt, "t5xxl_fp16", r"shared\.weight|embed_tokens"),
    lambda t: t | {EMBEDDING: t["shared.weight"] * 2},
)
add(T5, "t5_with_spiece_model", Same(), lambda t: t | {"spiece_model": torch.ones(3000, dtype=torch.uint8)})


@CASES.case(Same())
def t5_transformers_shards_and_index(site: Site) -> None:
    t5_oracle(site.published.networks.t5, CONFIG.t5).bfloat16().save_pretrained(site.base(T5), max_shard_size="50KB")
    assert list(site.folder.glob("model-00002-of-*"))


@CASES.case(Same())
def t5_shards_without_index(site: Site) -> None:
    t5_transformers_shards_and_index(site)
    (site.folder / "model.safetensors.index.json").unlink()


@CASES.case(refused(WeightsMissing, r"model-00002-of-0000\d\.safetensors"))
def t5_shards_without_index_and_one_missing(site: Site) -> None:
    t5_shards_without_index(site)
    next(site.folder.glob("model-00002-of-*")).unlink()


@CASES.case(Same())
def t5_full_model_by_transformers(site: Site) -> None:
    """`google/t5-v1_1-xxl` whole, by transformers."""
    from transformers import T5Config, T5ForConditionalGeneration

    encoder = t5_oracle(site.published.networks.t5, CONFIG.t5)
    whole = T5ForConditionalGeneration(
        T5Config(**{**encoder.config.to_dict(), "is_encoder_decoder": True, "use_cache": True, "num_decoder_layers": 1})
    )
    whole.encoder.load_state_dict(encoder.encoder.state_dict())
    whole.shared.load_state_dict(encoder.shared.state_dict())
    whole.bfloat16().save_pretrained(site.base(T5))


def gguf_t5(change: Change = unchanged, architecture: str | None = "t5encoder", name: str = "t5.gguf") -> Write:
    def write(site: Site) -> None:
        site.base(T5)
        write_gguf(site.folder / name, change(site.tensors(T5)), architecture=architecture)

    return write


def llama_names(t: Tensors) -> Tensors:
    return {gguf_t5_name(name): one for name, one in t.items()}


def llama_full(t: Tensors) -> Tensors:
    """Return a full T5 in llama.cpp's names: `dec.*`, `output`."""
    names = llama_names(t)
    decoder = {name.replace("enc.", "dec."): one for name, one in names.items() if name.startswith("enc.")}
    cross = {f"dec.blk.0.cross_attn_{leaf}.weight": names[f"enc.blk.0.attn_{leaf}.weight"] for leaf in "qkvo"}
    return names | decoder | cross | {"output.weight": names["token_embd.weight"]}


CASES.add("t5_gguf_llama_names", Same(), gguf_t5(llama_names))
CASES.add("t5_gguf_sd_cpp_names", Same(), gguf_t5(architecture=None))
CASES.add("t5_gguf_full_with_decoder", Same(), gguf_t5(llama_full, "t5"))
CASES.add(
    "t5_gguf_sd_cpp_full_with_decoder",
    Same(),
    gguf_t5(with_decoder, None),
)


@CASES.case(Same())
def t5_gguf_with_vocabulary(site: Site) -> None:
    """A vocabulary in the header, as llama.cpp's converter writes it, next to tokenizers of the operator's."""
    site.base(T5)
    writer = gguf.GGUFWriter(site.folder / "t5.gguf", "t5encoder", use_temp_file=False)
    writer.add_tokenizer_model("t5")
    writer.add_token_list([f"▁piece{i}" for i in range(32_128)])
    writer.add_token_scores([-float(i) for i in range(32_128)])
    writer.add_token_types([1] * 32_128)
    writer.add_precompiled_charsmap(bytes(range(256)) * 900)
    for name, tensor in llama_names(site.tensors(T5)).items():
        kind = gguf.GGMLQuantizationType.BF16 if tensor.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quantize(tensor.float().numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def bnb_int8(t: Tensors) -> Tensors:
    """Return T5 in bitsandbytes' LLM.int8, as InvokeAI's starter stores it."""
    changed: Tensors = {}
    for name, one in t.items():
        changed[name] = one
        if is_linear(name, one):
            rows = one.float().abs().amax(1)
            changed[name] = (one.float() / rows[:, None] * 127).round().to(torch.int8)
            changed[name.replace(".weight", ".SCB")] = rows
            changed[name.replace(".weight", ".weight_format")] = torch.zeros((), dtype=torch.uint8)
    return changed


def awq(t: Tensors) -> Tensors:
    """Return T5 in nunchaku's AWQ."""
    changed: Tensors = {}
    for name, one in t.items():
        changed[name] = one
        if is_linear(name, one):
            del changed[name]
            rows, columns = one.shape
            layer = name.removesuffix(".weight")
            changed[f"{layer}.qweight"] = torch.ones(rows // 4, columns // 2, dtype=torch.int32)
            changed[f"{layer}.scales"] = torch.ones(1, rows).bfloat16()
            changed[f"{layer}.scaled_zeros"] = torch.ones(1, rows).bfloat16()
    return changed


_TAKE = r"take|use|give|download|fetch"
add(T5, "t5_bnb_int8", refused(WeightsCorrupt, "t5xxl_fp16", "bitsandbytes", "int8|8-bit|8 bits", _TAKE), bnb_int8)
add(T5, "t5_awq_nunchaku", refused(WeightsCorrupt, "t5xxl_fp16", "AWQ", _TAKE), awq)


def umt5(t: Tensors) -> Tensors:
    """Return an UMT5 (Wan's text encoder): T5's names, with position biases in every block, and a larger vocabulary."""
    bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    return t | {
        bias.replace("block.0", "block.1"): t[bias].clone(),
        "shared.weight": torch.randn(700, 32).bfloat16(),
        "spiece_model": torch.ones(3000, dtype=torch.uint8),
    }


add(T5, "umt5_in_place_of_t5", refused(WeightsError, "t5xxl_fp16", "UMT5"), umt5)


@CASES.case(Same({"umt5_xxl_fp8_e4m3fn_scaled.safetensors": "UMT5|umT5"}, load=False))
def umt5_in_folder(site: Site) -> None:
    """ComfyUI's folder of text encoders with Wan's next to FLUX's: both are 4,096 wide."""
    site.neighbour("umt5_xxl_fp8_e4m3fn_scaled.safetensors", umt5(site.tensors(T5)))


@CASES.case(refused(WeightsCorrupt, r"t5xxl_fp16\.safetensors", r"t5xxl_fp8_e4m3fn\.safetensors", "twice|two|both"))
def t5_fp16_and_fp8_in_one_folder(site: Site) -> None:
    site.neighbour("t5xxl_fp8_e4m3fn.safetensors", in_dtype(torch.float8_e4m3fn)(site.tensors(T5)))


# CLIP -----------------------------------------------------------------------------------------------------------------

CLIP_EXTRAS = {
    "text_projection.weight": torch.eye(64).bfloat16(),
    "logit_scale": torch.tensor(4.6),
    "text_model.embeddings.position_ids": torch.arange(77)[None],
}


def openai_names(t: Tensors) -> Tensors:
    """Return CLIP's text encoder in OpenAI's names: q, k and v in one matrix, the projection as a bare parameter."""
    changed: Tensors = {
        "token_embedding.weight": t["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": t["text_model.embeddings.position_embedding.weight"],
        "ln_final.weight": t["text_model.final_layer_norm.weight"],
        "ln_final.bias": t["text_model.final_layer_norm.bias"],
        "text_projection": torch.eye(64).bfloat16(),
        "logit_scale": torch.tensor(4.6),
    }
    for i in range(2):
        theirs, ours = f"transformer.resblocks.{i}", f"text_model.encoder.layers.{i}"
        for leaf in ("weight", "bias"):
            parts = [t[f"{ours}.self_attn.{part}_proj.{leaf}"] for part in "qkv"]
            changed[f"{theirs}.attn.in_proj_{leaf}"] = torch.cat(parts)
            for old, new in (
                ("self_attn.out_proj", "attn.out_proj"),
                ("layer_norm1", "ln_1"),
                ("layer_norm2", "ln_2"),
                ("mlp.fc1", "mlp.c_fc"),
                ("mlp.fc2", "mlp.c_proj"),
            ):
                changed[f"{theirs}.{new}.{leaf}"] = t[f"{ours}.{old}.{leaf}"]
    return changed


def vision(prefix: str = "vision_model.", width: int = 64) -> Tensors:
    """Return a vision encoder of CLIP's or SigLIP's kind."""
    layers = {
        f"{prefix}encoder.layers.0.{name}.weight": torch.ones(width, width)
        for name in (
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.out_proj",
            "mlp.fc1",
            "mlp.fc2",
        )
    }
    return layers | {
        f"{prefix}embeddings.patch_embedding.weight": torch.ones(width, 3, 14, 14),
        f"{prefix}embeddings.position_embedding.weight": torch.ones(50, width),
        f"{prefix}post_layernorm.weight": torch.ones(width),
    }


add(CLIP, "clip_with_projection_scale_and_positions", Same(), lambda t: t | CLIP_EXTRAS)
add(CLIP, "clip_prefix_clip_l", Same(), partial(prefixed, "clip_l."))
add(CLIP, "clip_prefix_clip_l_transformer", Same(), partial(prefixed, "clip_l.transformer."))
add(CLIP, "clip_prefix_cond_stage_model", Same(), partial(prefixed, "cond_stage_model.transformer."))
add(CLIP, "clip_without_text_model_prefix", Same(), renamed(("text_model.", "")))
add(CLIP, "clip_f16", Right(1e-3), in_dtype(torch.float16))
add(
    CLIP,
    "clip_whole_with_vision",
    Same(pixels=True),
    lambda t: t | CLIP_EXTRAS | vision() | {"visual_projection.weight": torch.ones(64, 64)},
)
add(CLIP, "clip_openai_names", Same(pixels=True), openai_names)
add(
    CLIP,
    "clip_openai_names_whole",
    Same(),
    lambda t: (
        openai_names(t)
        | {
            "visual.conv1.weight": torch.ones(64, 3, 14, 14),
            "visual.proj": torch.ones(64, 64),
            "visual.class_embedding": torch.ones(64),
            "visual.transformer.resblocks.0.attn.in_proj_weight": torch.ones(192, 64),
        }
    ),
)
add(CLIP, "clip_openai_names_prefixed", Same(), lambda t: prefixed("cond_stage_model.model.", openai_names(t)))


@CASES.case(Same())
def clip_text_model_by_transformers(site: Site) -> None:
    clip_oracle(site.published.networks.clip, CONFIG.clip).bfloat16().save_pretrained(site.base(CLIP))


@CASES.case(Same())
def clip_whole_by_transformers(site: Site) -> None:
    """`openai/clip-vit-large-patch14`'s model.safetensors: text and vision, by transformers."""
    from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig

    text = clip_oracle(site.published.networks.clip, CONFIG.clip)
    seen = CLIPVisionConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=1, image_size=28, patch_size=14
    )
    whole = CLIPModel(CLIPConfig(text_config=text.config.to_dict(), vision_config=seen.to_dict(), projection_dim=64))
    state = text.state_dict()
    whole.text_model.load_state_dict({name.removeprefix("text_model."): one for name, one in state.items()})
    whole.bfloat16().save_pretrained(site.base(CLIP))


@CASES.case(Same())
def clip_gguf(site: Site) -> None:
    site.base(CLIP)
    write_gguf(site.folder / "clip_l.gguf", site.tensors(CLIP), architecture="pig")


def positions(count: int) -> Change:
    """Return a function that gives CLIP so many positions."""
    name = "text_model.embeddings.position_embedding.weight"
    return lambda t: t | {name: torch.cat((t[name], torch.randn(count - 77, 64).bfloat16()))}


@CASES.case(Same({"siglip_base.safetensors": "SigLIP|vision"}, load=False))
def siglip_whole_of_clips_width_in_folder(site: Site) -> None:
    """SigLIP base has CLIP-L's width, and CLIP's names for its text encoder."""
    siglip = site.tensors(CLIP)
    siglip |= vision() | {
        "text_model.head.weight": torch.ones(64, 64),
        "text_model.head.bias": torch.ones(64),
        "vision_model.head.probe": torch.ones(1, 1, 64),
        "logit_bias": torch.ones(1),
        "logit_scale": torch.ones(1),
        "text_model.embeddings.position_embedding.weight": torch.ones(64, 64),
    }
    site.neighbour("siglip_base.safetensors", siglip)


@CASES.case(Same({"clip_g.safetensors": "(?i)clip"}, load=False))
def clip_g_of_another_width_in_folder(site: Site) -> None:
    wide = {
        f"text_model.{name}": torch.ones(*shape)
        for name, shape in {
            "embeddings.token_embedding.weight": (540, 128),
            "embeddings.position_embedding.weight": (77, 128),
            "encoder.layers.0.self_attn.q_proj.weight": (128, 128),
            "final_layer_norm.weight": (128,),
        }.items()
    }
    site.neighbour("clip_g.safetensors", wide)


# Autoencoder ----------------------------------------------------------------------------------------------------------


def diffusers_vae(site: Site) -> Tensors:
    return dict(autoencoder_oracle(site.published.networks.autoencoder).bfloat16().state_dict())


add(AUTOENCODER, "ae_bf16", Same(), unchanged)
add(AUTOENCODER, "ae_f16", Right(1e-3), in_dtype(torch.float16))
add(AUTOENCODER, "ae_prefix_vae", Same(), partial(prefixed, "vae."))
add(AUTOENCODER, "ae_prefix_first_stage_model", Same(), partial(prefixed, "first_stage_model."))
add(AUTOENCODER, "ae_float8", Right(0.05), in_dtype(torch.float8_e4m3fn))


@CASES.case(Same())
def vae_by_diffusers(site: Site) -> None:
    site.replace(AUTOENCODER, diffusers_vae(site))


@CASES.case(Same())
def vae_prefix_and_diffusers_names(site: Site) -> None:
    site.replace(AUTOENCODER, prefixed("vae.", diffusers_vae(site)))


@CASES.case(Same())
def vae_old_diffusers_attention(site: Site) -> None:
    names = (("to_q.", "query."), ("to_k.", "key."), ("to_v.", "value."), ("to_out.0.", "proj_attn."))
    site.replace(AUTOENCODER, renamed(*names)(diffusers_vae(site)))


@CASES.case(Same())
def vae_gguf(site: Site) -> None:
    site.base(AUTOENCODER)
    path = site.folder / "ae.gguf"
    write_gguf(path, site.tensors(AUTOENCODER), gguf.GGMLQuantizationType.F32, architecture="pig")


def decoder_only(t: Tensors) -> Tensors:
    return {name: one for name, one in t.items() if name.startswith("decoder.")}


def quant_conv(t: Tensors) -> Tensors:
    """Return an autoencoder of Stable Diffusion's kind, with `quant_conv`."""
    return t | {
        "quant_conv.weight": torch.ones(8, 8, 1, 1),
        "quant_conv.bias": torch.ones(8),
        "post_quant_conv.weight": torch.ones(4, 4, 1, 1),
        "post_quant_conv.bias": torch.ones(4),
    }


def taef1(t: Tensors) -> Tensors:
    return {f"{part}.layers.{i}.weight": torch.ones(8, 8, 3, 3) for part in ("encoder", "decoder") for i in range(3)}


_VAE = "Stable Diffusion|SDXL|another model"
add(AUTOENCODER, "vae_of_sdxl_alone", refused(WeightsError, r"ae\.safetensors", _VAE), quant_conv)
add(AUTOENCODER, "taef1_alone", refused(WeightsError, r"ae\.safetensors", "TAE|tae|tiny|small"), taef1)


@CASES.case(Same({"sdxl_vae.safetensors": _VAE}, load=False))
def vae_of_sdxl_in_folder(site: Site) -> None:
    site.neighbour("sdxl_vae.safetensors", quant_conv(site.tensors(AUTOENCODER)))


@CASES.case(Same({"taef1.safetensors": "TAE|tae|tiny|small"}, load=False))
def taef1_in_folder(site: Site) -> None:
    site.neighbour("taef1.safetensors", taef1({}))


@CASES.case(Same({"diffusion_pytorch_model.safetensors": "TAE|tae|tiny|small"}, load=False))
def taef1_of_diffusers_in_folder(site: Site) -> None:
    site.neighbour("diffusion_pytorch_model.safetensors", taef1({}))

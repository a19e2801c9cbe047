"""Maps the tensor names of published FLUX.1 checkpoints to the canonical names in `Networks`.

A signature key, the name of a tensor that no other format has, identifies a checkpoint format; the file's name and a
prefix before all its keys don't matter. A format maps each key to a canonical tensor, or to a range of rows of one. The
canonical names are BFL's for the transformer and the autoencoder, and Hugging Face's for the text encoders.

Sources: black-forest-labs/flux `modules`; huggingface/diffusers `scripts/convert_flux_to_diffusers.py` and
`loaders/single_file_utils.py`; city96/ComfyUI-GGUF `loader.py`.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum


class Component(StrEnum):
    """One of a model's four networks. The value is the name of the attribute in `Networks`."""

    TRANSFORMER = "transformer"
    T5 = "t5"
    CLIP = "clip"
    AUTOENCODER = "autoencoder"


@dataclass(frozen=True, slots=True)
class KeyTarget:
    """The canonical tensor that a key of a checkpoint stores, in whole or in part."""

    #: The canonical name.
    name: str
    #: The canonical tensor is the concatenation of `count` tensors of the file along the rows. The key stores part
    #: `index`.
    index: int = 0
    count: int = 1
    #: Whether the file has the second half of the rows before the first.
    swaps_halves: bool = False
    #: Whether the key duplicates a tensor that the file can also have under another key.
    is_copy: bool = False
    #: The key stores these canonical tensors, of equal sizes, one after another along the rows; `name` is the first.
    fused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckpointFormat:
    """The naming scheme of one kind of checkpoint for the tensors of one component."""

    component: Component
    #: A key that only this format has.
    signature_key: str
    #: Returns the target of a key without its prefix, or None for a key that the format does not have.
    target: Callable[[str], KeyTarget | None]
    #: Keys of this format that FLUX does not use.
    unused_keys: frozenset[str] = frozenset()
    #: Starts of further keys of this format that FLUX does not use, such as those of a vision encoder.
    unused_starts: tuple[str, ...] = ()
    #: With one of these prefixes, the signature key belongs to another format.
    other_prefixes: tuple[str, ...] = ()

    def prefixes_in(self, keys: Iterable[str]) -> list[str]:
        """Return the prefixes of this format's keys in a file in alphabetical order; none for a file without them."""
        found = {key.removesuffix(self.signature_key) for key in keys if key.endswith(self.signature_key)}
        return sorted(
            prefix
            for prefix in found
            if (not prefix or prefix.endswith(".")) and not prefix.endswith(self.other_prefixes)
        )

    def prefix_in(self, keys: Iterable[str]) -> str | None:
        """Return the first prefix of this format's keys in a file, or None when the file is not in this format."""
        return next(iter(self.prefixes_in(keys)), None)

    def is_unused(self, key: str) -> bool:
        """Whether FLUX does not use a key of this format."""
        return key in self.unused_keys or key.startswith(self.unused_starts)


def _same(name: str) -> KeyTarget:
    return KeyTarget(name)


def _bfl_transformer(name: str) -> KeyTarget:
    """Map a key of BFL's format. ComfyUI has saved `weight` for `scale` since February 2026."""
    return KeyTarget(_NORM_WEIGHT.sub(r"\1.scale", name))


_NORM_WEIGHT = re.compile(r"((?:query|key)_norm)\.weight$")


# Transformer in diffusers' names --------------------------------------------------------------------------------------

#: Diffusers' name of a layer, its canonical name, `KeyTarget.index` and `KeyTarget.count`. `N` is the block's number.
_DIFFUSERS_LAYERS: tuple[tuple[str, str, int, int], ...] = (
    ("x_embedder", "img_in", 0, 1),
    ("context_embedder", "txt_in", 0, 1),
    ("time_text_embed.timestep_embedder.linear_1", "time_in.in_layer", 0, 1),
    ("time_text_embed.timestep_embedder.linear_2", "time_in.out_layer", 0, 1),
    ("time_text_embed.text_embedder.linear_1", "vector_in.in_layer", 0, 1),
    ("time_text_embed.text_embedder.linear_2", "vector_in.out_layer", 0, 1),
    ("time_text_embed.guidance_embedder.linear_1", "guidance_in.in_layer", 0, 1),
    ("time_text_embed.guidance_embedder.linear_2", "guidance_in.out_layer", 0, 1),
    ("norm_out.linear", "final_layer.adaLN_modulation.1", 0, 1),
    ("proj_out", "final_layer.linear", 0, 1),
    ("transformer_blocks.N.norm1.linear", "double_blocks.N.img_mod.lin", 0, 1),
    ("transformer_blocks.N.attn.to_q", "double_blocks.N.img_attn.qkv", 0, 3),
    ("transformer_blocks.N.attn.to_k", "double_blocks.N.img_attn.qkv", 1, 3),
    ("transformer_blocks.N.attn.to_v", "double_blocks.N.img_attn.qkv", 2, 3),
    ("transformer_blocks.N.attn.norm_q", "double_blocks.N.img_attn.norm.query_norm", 0, 1),
    ("transformer_blocks.N.attn.norm_k", "double_blocks.N.img_attn.norm.key_norm", 0, 1),
    ("transformer_blocks.N.attn.to_out.0", "double_blocks.N.img_attn.proj", 0, 1),
    ("transformer_blocks.N.ff.net.0.proj", "double_blocks.N.img_mlp.0", 0, 1),
    ("transformer_blocks.N.ff.net.2", "double_blocks.N.img_mlp.2", 0, 1),
    ("transformer_blocks.N.norm1_context.linear", "double_blocks.N.txt_mod.lin", 0, 1),
    ("transformer_blocks.N.attn.add_q_proj", "double_blocks.N.txt_attn.qkv", 0, 3),
    ("transformer_blocks.N.attn.add_k_proj", "double_blocks.N.txt_attn.qkv", 1, 3),
    ("transformer_blocks.N.attn.add_v_proj", "double_blocks.N.txt_attn.qkv", 2, 3),
    ("transformer_blocks.N.attn.norm_added_q", "double_blocks.N.txt_attn.norm.query_norm", 0, 1),
    ("transformer_blocks.N.attn.norm_added_k", "double_blocks.N.txt_attn.norm.key_norm", 0, 1),
    ("transformer_blocks.N.attn.to_add_out", "double_blocks.N.txt_attn.proj", 0, 1),
    ("transformer_blocks.N.ff_context.net.0.proj", "double_blocks.N.txt_mlp.0", 0, 1),
    ("transformer_blocks.N.ff_context.net.2", "double_blocks.N.txt_mlp.2", 0, 1),
    ("single_transformer_blocks.N.norm.linear", "single_blocks.N.modulation.lin", 0, 1),
    ("single_transformer_blocks.N.attn.to_q", "single_blocks.N.linear1", 0, 4),
    ("single_transformer_blocks.N.attn.to_k", "single_blocks.N.linear1", 1, 4),
    ("single_transformer_blocks.N.attn.to_v", "single_blocks.N.linear1", 2, 4),
    ("single_transformer_blocks.N.proj_mlp", "single_blocks.N.linear1", 3, 4),
    ("single_transformer_blocks.N.attn.norm_q", "single_blocks.N.norm.query_norm", 0, 1),
    ("single_transformer_blocks.N.attn.norm_k", "single_blocks.N.norm.key_norm", 0, 1),
    ("single_transformer_blocks.N.proj_out", "single_blocks.N.linear2", 0, 1),
)
_DIFFUSERS = {diffusers: (canonical, index, count) for diffusers, canonical, index, count in _DIFFUSERS_LAYERS}
_BLOCK_NUMBER = re.compile(r"(?<=_blocks\.)\d+")


def _diffusers_transformer(name: str) -> KeyTarget | None:
    layer, _, kind = name.rpartition(".")
    number = _BLOCK_NUMBER.search(layer)
    found = _DIFFUSERS.get(_BLOCK_NUMBER.sub("N", layer))
    if found is None or kind not in ("weight", "bias"):
        return None
    canonical, index, count = found
    if number:
        canonical = canonical.replace("N", number[0])
    if canonical.endswith("_norm"):
        return KeyTarget(f"{canonical}.scale") if kind == "weight" else None
    # In the final modulation, BFL's rows of the shift precede those of the scale; in diffusers' they follow them.
    return KeyTarget(f"{canonical}.{kind}", index, count, swaps_halves=layer == "norm_out.linear")


# Autoencoder in diffusers' names --------------------------------------------------------------------------------------

#: Regular expressions on diffusers' names and their replacements, applied in order. Diffusers numbers the decoder's
#: resolutions from the lowest, the canonical names from the highest: see `REVERSED_LEVEL`.
_AUTOENCODER_RULES = (
    (r"\.down_blocks\.(\d+)\.", r".down.\1."),
    (r"\.up_blocks\.(\d+)\.", r".up.-\1."),
    (r"\.mid_block\.resnets\.0\.", r".mid.block_1."),
    (r"\.mid_block\.resnets\.1\.", r".mid.block_2."),
    (r"\.mid_block\.attentions\.0\.", r".mid.attn_1."),
    (r"\.resnets\.(\d+)\.", r".block.\1."),
    (r"\.(down|up)samplers\.0\.", r".\1sample."),
    (r"\.attn_1\.group_norm\.", r".attn_1.norm."),
    (r"\.attn_1\.(to_q|query)\.", r".attn_1.q."),
    (r"\.attn_1\.(to_k|key)\.", r".attn_1.k."),
    (r"\.attn_1\.(to_v|value)\.", r".attn_1.v."),
    (r"\.attn_1\.(to_out\.0|proj_attn)\.", r".attn_1.proj_out."),
    (r"\.conv_shortcut\.", r".nin_shortcut."),
    (r"\.conv_norm_out\.", r".norm_out."),
)
#: `_AUTOENCODER_RULES` writes the decoder's resolution `n`, numbered from the lowest, as `up.-n`. `components` replaces
#: it by the canonical number, which depends on the number of resolutions in the file.
REVERSED_LEVEL = re.compile(r"(?<=\.up\.)-(\d+)")


def _diffusers_autoencoder(name: str) -> KeyTarget:
    for pattern, canonical in _AUTOENCODER_RULES:
        name = re.sub(pattern, canonical, name)
    return KeyTarget(name)


# Text encoders --------------------------------------------------------------------------------------------------------


def _t5(name: str) -> KeyTarget:
    if name == "encoder.embed_tokens.weight":
        return KeyTarget("shared.weight", is_copy=True)
    return KeyTarget(name)


def _clip_text_model(name: str) -> KeyTarget:
    """Map a key of transformers 5, which saves CLIP's text model without the prefix `text_model.`."""
    return KeyTarget(f"text_model.{name}")


_OPENAI_CLIP = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_OPENAI_CLIP_LAYERS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def _openai_clip(name: str) -> KeyTarget | None:
    """Map a key of openai/CLIP, which stores the projections of q, k and v as one matrix."""
    if name in _OPENAI_CLIP:
        return KeyTarget(f"text_model.{_OPENAI_CLIP[name]}")
    found = re.fullmatch(r"transformer\.resblocks\.(\d{1,6})\.(.+?)[._](weight|bias)", name)
    if found is None:
        return None
    number, layer, kind = found.groups()
    canonical = f"text_model.encoder.layers.{number}"
    if layer == "attn.in_proj":
        fused = tuple(f"{canonical}.self_attn.{one}_proj.{kind}" for one in "qkv")
        return KeyTarget(fused[0], fused=fused)
    return KeyTarget(f"{canonical}.{_OPENAI_CLIP_LAYERS[layer]}.{kind}") if layer in _OPENAI_CLIP_LAYERS else None


_GGUF_T5 = {
    "token_embd.weight": "shared.weight",
    "enc.output_norm.weight": "encoder.final_layer_norm.weight",
}
_GGUF_T5_LAYERS = {
    "attn_q": "layer.0.SelfAttention.q",
    "attn_k": "layer.0.SelfAttention.k",
    "attn_v": "layer.0.SelfAttention.v",
    "attn_o": "layer.0.SelfAttention.o",
    "attn_norm": "layer.0.layer_norm",
    "attn_rel_b": "layer.0.SelfAttention.relative_attention_bias",
    "ffn_gate": "layer.1.DenseReluDense.wi_0",
    "ffn_up": "layer.1.DenseReluDense.wi_1",
    "ffn_down": "layer.1.DenseReluDense.wo",
    "ffn_norm": "layer.1.layer_norm",
}


def _gguf_t5(name: str) -> KeyTarget | None:
    if name in _GGUF_T5:
        return KeyTarget(_GGUF_T5[name])
    found = re.fullmatch(r"enc\.blk\.(\d+)\.(\w+)\.weight", name)
    if found is None or found[2] not in _GGUF_T5_LAYERS:
        return None
    return KeyTarget(f"encoder.block.{found[1]}.{_GGUF_T5_LAYERS[found[2]]}.weight")


#: Keys of the whole CLIP model that are not of its text encoder.
_CLIP_UNUSED = ("text_projection.weight", "visual_projection.weight", "text_model.embeddings.position_ids")
_OPENAI_CLIP_UNUSED = ("text_projection", "attn_mask", "context_length", "input_resolution", "vocab_size")

CHECKPOINT_FORMATS: tuple[CheckpointFormat, ...] = (
    CheckpointFormat(Component.TRANSFORMER, "double_blocks.0.img_attn.norm.key_norm.scale", _bfl_transformer),
    CheckpointFormat(Component.TRANSFORMER, "double_blocks.0.img_attn.norm.key_norm.weight", _bfl_transformer),
    CheckpointFormat(Component.TRANSFORMER, "transformer_blocks.0.attn.norm_added_k.weight", _diffusers_transformer),
    CheckpointFormat(
        Component.T5,
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        _t5,
        frozenset(("lm_head.weight",)),
        ("decoder.",),
    ),
    CheckpointFormat(Component.T5, "enc.blk.0.attn_rel_b.weight", _gguf_t5, frozenset(("output.weight",)), ("dec.",)),
    CheckpointFormat(
        Component.CLIP,
        "text_model.encoder.layers.0.self_attn.q_proj.weight",
        _same,
        frozenset(_CLIP_UNUSED),
        ("vision_model.",),
    ),
    CheckpointFormat(
        Component.CLIP,
        "encoder.layers.0.self_attn.q_proj.weight",
        _clip_text_model,
        frozenset(("embeddings.position_ids",)),
        other_prefixes=("text_model.", "vision_model."),
    ),
    CheckpointFormat(
        Component.CLIP,
        "transformer.resblocks.0.attn.in_proj_weight",
        _openai_clip,
        frozenset(_OPENAI_CLIP_UNUSED),
        ("visual.",),
        ("visual.",),
    ),
    CheckpointFormat(Component.AUTOENCODER, "decoder.mid.block_1.norm1.weight", _same),
    CheckpointFormat(Component.AUTOENCODER, "decoder.mid_block.resnets.0.norm1.weight", _diffusers_autoencoder),
)

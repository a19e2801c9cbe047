"""Recognises files that allaprima can't use: what they are, and which file to take instead.

A file is recognised by marks: names of its tensors that only one kind of file has, the number formats of its tensors,
and its metadata. Sources of the marks: the loaders of Comfy-Org/ComfyUI (`model_detection.py`, `lora.py`),
invoke-ai/InvokeAI and huggingface/diffusers, and the writers of the quantizers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from allaprima.weights.builtin_header import FORMAT
from allaprima.weights.checkpoint.key_maps import CHECKPOINT_FORMATS, Component
from allaprima.weights.formats.container import Container


@dataclass(frozen=True, slots=True)
class Unusable:
    """What a file is that allaprima can't use, and what to do instead."""

    #: Completes the sentence "FILE is ...".
    what: str
    #: One clause.
    advice: str
    #: The component that a readable version of the file would hold; None for a file without one.
    component: Component | None


@dataclass(frozen=True, slots=True)
class _Mark:
    """A kind of file, and the regular expressions on one name each by which it is recognised."""

    what: str
    advice: str
    #: A name that files of this kind have.
    name: str
    #: A name that files of this kind do not have.
    without: str = ""
    component: Component | None = None

    def fits(self, names: str) -> bool:
        """Whether a file is of this kind. names: all names of its tensors, one a line."""
        if re.search(self.name, names, re.MULTILINE) is None:
            return False
        return not self.without or re.search(self.without, names, re.MULTILINE) is None


_LORA = "allaprima does not apply LoRAs"
_OTHER_MODEL = "allaprima supports FLUX.1 [schnell]: take a file of that model, or `allaprima pull flux/schnell`"
_NOT_NEEDED = "FLUX.1 [schnell] does not need it"
_SAME_MODEL = "take the GGUF or fp8 file of the same model"
_TAKE_AE = "take FLUX.1's ae.safetensors"
_BUILTIN = "the weights of a model in the built-in format"
_NUNCHAKU = r"\.(wscales|wtscale|wcscales|smooth_factor|smooth_factor_orig|smooth)$"
_FLUX_BLOCK = r"(double_blocks|transformer_blocks)\.0\."

#: Files that hold changes to a model or additions to it. The first mark that fits counts.
_ADDITIONS = (
    _Mark("a LoKr, a kind of LoRA", _LORA, r"[._]lokr_w[12]"),
    _Mark("a LoHa, a kind of LoRA", _LORA, r"[._]hada_w[12]_[ab]"),
    _Mark("a DoRA, a kind of LoRA", _LORA, r"\.(dora_scale|lora_magnitude_vector)"),
    _Mark("a control LoRA of FLUX.1 [dev]", _LORA, r"img_in\.lora_[AB]\."),
    _Mark("a LoRA (kohya)", _LORA, r"^(lora_(unet|te\d?|transformer|prior)|lycoris)_"),
    _Mark("a LoRA (XLabs)", _LORA, r"\.processor\.\w*_lora\d*\."),
    _Mark("a LoRA (PEFT)", _LORA, r"\.lora_(A|B|embedding_[AB])(\.|$)"),
    _Mark("a LoRA", _LORA, r"[._](lora_(up|down)|lora\.(up|down)|lora_linear_layer\.(up|down))(\.|$)", _NUNCHAKU),
    _Mark("a LoRA of full differences", _LORA, r"\.(diff|diff_b)$"),
    _Mark("an IP-adapter", "allaprima has no image prompts", r"(^|\.)(ip_adapter\w*|image_proj)\."),
    _Mark("a PuLID adapter", "allaprima has no image prompts", r"^pulid_\w+\."),
    _Mark("FLUX.1 Redux, an image adapter", "allaprima has no image prompts", r"(^|\.)redux_(up|down)\."),
    _Mark(
        "a ControlNet",
        "allaprima does not use ControlNets",
        r"(^|\.)(controlnet_(x_embedder|blocks|single_blocks|mode_embedder|down_blocks|mid_block|cond_embedding)"
        r"|control_model|zero_convs|input_hint_block|lllite_\w+)\.",
    ),
    _Mark(
        "an embedding (textual inversion)",
        "allaprima does not use embeddings",
        r"\A(emb_params|string_to_param\S*|clip_[lg](\n(clip_[lg]|t5xxl))*|<[^<>\n]+>)\Z",
    ),
)

#: Files of other models. A checkpoint of another model can hold components that FLUX.1 has too.
_OTHER_MODELS = (
    _Mark(
        "Chroma, a model made from FLUX.1 [schnell] with another structure",
        _OTHER_MODEL,
        r"(^|\.)distilled_guidance_layer\.",
        component=Component.TRANSFORMER,
    ),
    _Mark("FLUX.2", _OTHER_MODEL, r"(^|\.)double_stream_modulation_img\.", component=Component.TRANSFORMER),
    _Mark("HunyuanVideo or a model of its kind", _OTHER_MODEL, r"(^|\.)(txt_in\.individual_)?token_refiner\."),
    _Mark("HunyuanVideo or a model of its kind", _OTHER_MODEL, r"(^|\.)double_blocks\.0\.img_attn_qkv\."),
    _Mark("HiDream", _OTHER_MODEL, r"(^|\.)double_stream_blocks\.\d+\."),
    _Mark("Stable Diffusion 3", _OTHER_MODEL, r"(^|\.)joint_blocks\.\d+\."),
    _Mark("Hunyuan-DiT", _OTHER_MODEL, r"(^|\.)(mlp_t5\.\d|time_extra_emb\.extra_embedder)\."),
    _Mark("Stable Diffusion 3 or PixArt", _OTHER_MODEL, r"(^|\.)pos_embed\.proj\.weight$"),
    _Mark("Stable Diffusion XL", _OTHER_MODEL, r"(^|\.)(conditioner\.embedders\.\d|label_emb\.0\.0)\."),
    _Mark("Stable Diffusion XL", _OTHER_MODEL, r"(^|\.)add_embedding\.linear_1\."),
    _Mark(
        "Stable Diffusion 1 or 2",
        _OTHER_MODEL,
        r"(^|\.)(input_blocks\.\d+\.\d+|down_blocks\.\d+\.attentions\.\d+\.transformer_blocks)\.",
    ),
    _Mark("Qwen-Image", _OTHER_MODEL, r"(^|\.)txt_norm\.weight$"),
    _Mark("Z-Image or Lumina", _OTHER_MODEL, r"(^|\.)(noise_refiner|context_refiner)\.\d+\."),
    _Mark("Wan", _OTHER_MODEL, r"(^|\.)head\.modulation$"),
    _Mark("Wan", _OTHER_MODEL, r"(^|\.)condition_embedder\.text_embedder\."),
    _Mark("AuraFlow", _OTHER_MODEL, r"(^|\.)(double_layers\.\d+\.|register_tokens$)"),
    _Mark("LTX-Video or PixArt", _OTHER_MODEL, r"(^|\.)(patchify_proj|adaln_single)\."),
    _Mark("Cosmos", _OTHER_MODEL, r"(^|\.)(blocks\.(block0\.blocks\.0|0\.cross_attn)|time_embed\.t_embedder)\."),
    _Mark("Stable Cascade", _OTHER_MODEL, r"(^|\.)(clip_txt_pooled_mapper|clf\.1)\."),
    _Mark("Mochi", _OTHER_MODEL, r"(^|\.)t5_yproj\."),
    _Mark(
        "an image encoder of a language model", _NOT_NEEDED, r"^(v\.blk\.\d+|mm\.\d+|(model\.)?visual\.blocks\.\d+)\."
    ),
    _Mark(
        "a language model",
        _NOT_NEEDED,
        r"(^|\.)(model\.(language_model\.)?layers\.\d+\.(self_attn|mlp|input_layernorm)|language_model\.\S*layers\.\d+)\."
        r"|^(blk\.\d+|layers\.\d+\.attention|transformer\.h\.\d+|model\.decoder\.layers\.\d+)\.",
    ),
    _Mark("an upscaler", _NOT_NEEDED, r"(^|\.)(RRDB_trunk\.\d|body\.\d+\.rdb1|model\.1\.sub\.\d+)\."),
    _Mark("an upscaler", _NOT_NEEDED, r"(^|\.)(conv_first\.weight$|layers\.\d+\.residual_group\.)"),
    _Mark(
        "the safety checker of Stable Diffusion", _NOT_NEEDED, r"(^|\.)(special_care_embeds|concept_embeds)(_weights)?$"
    ),
    _Mark("SigLIP, a vision encoder", _NOT_NEEDED, r"(^|\.)text_model\.head\.weight$"),
    _Mark(
        "a vision encoder",
        _NOT_NEEDED,
        r"(^|\.)(vision_model\.(encoder|embeddings)|visual|embeddings\.patch_embeddings|patch_embed\.proj)\.",
        r"(^|\.)(text_model\.encoder\.layers\.0|double_blocks\.0|(?<!visual\.)transformer\.resblocks\.0)\.",
    ),
    _Mark(
        "a CLIP text encoder of another size, such as those of SDXL and SD 2",
        "take clip_l.safetensors",
        r"(^|\.)(text_model\.encoder\.layers|(?<!visual\.)transformer\.resblocks)\.(1[2-9]|[2-9]\d)\.",
    ),
    _Mark(
        "UMT5, the text encoder of other models",
        "take t5xxl_fp16.safetensors",
        r"(^|\.)(encoder\.block\.1\.layer\.0\.SelfAttention\.relative_attention_bias|enc\.blk\.1\.attn_rel_b)\.",
    ),
    _Mark(
        "a T5 of version 1.0",
        "take t5xxl_fp16.safetensors, which is T5 1.1 XXL",
        r"(^|\.)encoder\.block\.0\.layer\.1\.DenseReluDense\.wi\.weight$",
    ),
    _Mark(
        "a small autoencoder for previews (taef1, TAESD)",
        _TAKE_AE,
        r"^((taesd_)?(decoder|encoder)\.(layers\.)?\d+\.(conv\.\d+\.)?(weight|bias)|\d+\.conv\.\d+\.weight)$",
    ),
    _Mark("the autoencoder of another model (it has quant_conv)", _TAKE_AE, r"(^|\.)(post_)?quant_conv\.weight$"),
    _Mark(
        "the autoencoder of a video model or of Qwen-Image",
        _TAKE_AE,
        r"(^|\.)((de|en)coder\.(conv1|middle\.0\.residual)\.|decoder\.conv_in\.conv\.)",
    ),
)

#: Formats of quantizers. The component is that to which the names of the file belong.
_QUANTIZED = (
    _Mark("an SVDQuant file of nunchaku, the quantizer", _SAME_MODEL, _NUNCHAKU),
    _Mark("a file in AWQ or GPTQ", _SAME_MODEL, r"\.(qweight|qzeros|scaled_zeros|g_idx)$"),
    _Mark("a file quantized with torchao", _SAME_MODEL, r"(\.|_|:)(weight_qdata|qdata)$"),
    _Mark("a file quantized with optimum-quanto", _SAME_MODEL, r"\.weight\._(data|packed|scale|shift)$"),
    _Mark("a file compressed with DFloat11", _SAME_MODEL, r"\.(encoded_exponent|sign_mantissa)$"),
    _Mark("a file in bitsandbytes' 8 bits (LLM.int8)", _SAME_MODEL, r"\.SCB$"),
    _Mark("a file quantized with HQQ", _SAME_MODEL, r"\.W_q$"),
    _Mark("a file of compressed-tensors", _SAME_MODEL, r"\.weight_packed$"),
    _Mark("an MLX file (mflux), quantized for Apple's processors", _SAME_MODEL, r"\.scales$"),
    _Mark("a file in NVFP4", _SAME_MODEL, r"\.weight_scale_2$"),
    _Mark(
        "a file quantized with SDNQ",
        _SAME_MODEL,
        r"\.(zero_point|svd_up|svd_down|(?<!query_norm\.)(?<!key_norm\.)scale)$",
    ),
)

#: Number formats that allaprima can't read, and what has tensors in them.
_NUMBERS = {
    "F8_E8M0": "a file in a microscaling format (mxfp8 or mxfp4)",
    "F8_E4M3FNUZ": "a file in float8 for AMD's accelerators",
    "F8_E5M2FNUZ": "a file in float8 for AMD's accelerators",
    "F4": "a file in 4-bit floating point",
    "F6_E2M3": "a file in 6-bit floating point",
    "F6_E3M2": "a file in 6-bit floating point",
    "U32": "a file of packed integers",
    "U16": "a file of packed integers",
    "U64": "a file of packed integers",
    "C64": "a file of complex numbers",
}

#: Names by which a tensor belongs to a component, in a file of any number format.
_COMPONENT_NAMES = (
    (Component.TRANSFORMER, r"(^|\.)((double|single)_blocks|(single_)?transformer_blocks)\.\d+\."),
    (Component.T5, r"(^|\.)(encoder\.block\.\d+\.layer\.\d|enc\.blk\.\d+)\."),
    (Component.CLIP, r"(^|\.)text_model\.encoder\.layers\.\d+\."),
    (
        Component.AUTOENCODER,
        r"(^|\.)(decoder\.(mid|up|mid_block|up_blocks)|encoder\.(mid|down|mid_block|down_blocks))\.",
    ),
)
#: Metadata in which a file says its title: of ModelSpec, of GGUF, and of other writers.
_TITLES = ("modelspec.title", "general.name", "modelspec.architecture", "general.basename", "title", "model_class")
#: Models made from FLUX.1 [dev] that are recognised by a word in their title.
_DEV_TITLES = {
    "kontext": "FLUX.1 Kontext [dev]",
    "krea": "FLUX.1 Krea [dev]",
    "fill": "FLUX.1 Fill [dev]",
    "canny": "FLUX.1 Canny [dev]",
    "depth": "FLUX.1 Depth [dev]",
    "srpo": "FLUX.1 [dev] after SRPO",
}
_DEV = "FLUX.1 [dev] or a model made from it (Krea, Kontext, a merge)"
_DEV_MARK = r"(^|\.)(guidance_in|time_text_embed\.guidance_embedder)\."
_INPUTS, _OUTPUTS = ("img_in", "x_embedder"), ("final_layer.linear", "proj_out")
#: Models made from FLUX.1 [dev] whose input has further channels: the columns of the input for each row of the output.
_DEV_INPUTS = {6: "FLUX.1 Fill [dev]", 2: "FLUX.1 Canny [dev] or Depth [dev]"}
_LONGEST_TITLE = 60


def identify(container: Container) -> Unusable | None:
    """Return what a file is that allaprima can't use; None if nothing is known of it, which `components_in` decides.

    Only names, number formats, shapes and metadata are read.
    """
    names = "\n".join(sorted(container.shapes))
    component = _component(names)
    if (foreign := _foreign(container, names)) is not None or component is None:
        return foreign
    if (sibling := _sibling(container, names)) is not None:
        return Unusable(sibling, _OTHER_MODEL, Component.TRANSFORMER)
    for mark in _QUANTIZED:
        if mark.fits(names):
            return Unusable(mark.what, mark.advice, component)
    for name, number in sorted(container.dtypes.items()):
        if number in _NUMBERS:
            return Unusable(f"{_NUMBERS[number]} ({name} is stored as {number})", _SAME_MODEL, component)
    return None


def incomplete(container: Container) -> Unusable | None:
    """Return what a file without components is, if it has tensors that are named like those of a component."""
    component = _component("\n".join(container.shapes))
    keys = [known.signature_key for known in CHECKPOINT_FORMATS if known.component is component]
    if component is None:
        return None
    lacking = next((key for key in keys if any(key.partition(".")[0] in name for name in container.shapes)), keys[0])
    return Unusable(
        f"no {component} of FLUX.1 [schnell], since it lacks the tensor {lacking}",
        "download it again if it should be one",
        component,
    )


def _foreign(container: Container, names: str) -> Unusable | None:
    """Return what a file is that holds additions to a model, another model, or a model in the built-in format."""
    if container.metadata.get("format") == FORMAT:
        return Unusable(_BUILTIN, "give the model's folder, in which its word list is", Component.TRANSFORMER)
    for mark in (*_ADDITIONS, *_OTHER_MODELS):
        if mark.fits(names):
            return Unusable(mark.what + _architecture(mark, container.metadata), mark.advice, mark.component)
    return None


def _component(names: str) -> Component | None:
    """Return the component to which names belong; the first, if there are several."""
    return next((one for one, name in _COMPONENT_NAMES if re.search(name, names, re.MULTILINE)), None)


def _architecture(mark: _Mark, metadata: Mapping[str, str]) -> str:
    """Return the name that a GGUF file gives to the kind of a language model, in brackets."""
    name = _plain(metadata.get("general.architecture", ""))
    return f" ({name})" if name and mark.what == "a language model" else ""


def _sibling(container: Container, names: str) -> str | None:
    """Return which model of FLUX.1's structure a file is, other than FLUX.1 [schnell]."""
    ratio = _input_ratio(container)
    if ratio is not None and ratio in _DEV_INPUTS:
        return _DEV_INPUTS[ratio]
    if re.search(_DEV_MARK, names, re.MULTILINE) is None:
        return None
    titles = [title for key in _TITLES if (title := _plain(container.metadata.get(key, "")))]
    for word, what in _DEV_TITLES.items():
        if any(word in title.lower() for title in titles):
            return what
    return f"{_DEV}; its metadata calls it {titles[0]!r}" if titles else _DEV


def _input_ratio(container: Container) -> int | None:
    """Return the columns of a transformer's input layer for each row of its output layer, which is 1 in schnell."""
    columns, rows = _size(container, _INPUTS, 1), _size(container, _OUTPUTS, 0)
    return columns // rows if columns and rows and columns % rows == 0 else None


def _size(container: Container, layers: Iterable[str], axis: int) -> int | None:
    """Return the rows (axis 0) or columns (axis 1) of the first layer that the file has."""
    for layer in layers:
        ending = re.compile(rf"((?!.*blocks\.\d+\.)(?:.*\.)?){re.escape(layer)}\.bias")
        prefix = next((found[1] for name in container.shapes if (found := ending.fullmatch(name))), None)
        if prefix is None:
            continue
        shape = container.shapes.get(f"{prefix}{layer}.weight", ())
        rows = container.shapes[f"{prefix}{layer}.bias"]
        if len(rows) != 1 or not rows[0] or len(shape) != 2:
            continue
        if axis == 0:
            return rows[0]
        # Two values of a 4-bit format share a byte.
        is_packed = f"{prefix}{layer}.weight.absmax" in container.shapes
        return 2 * shape[0] * shape[1] // rows[0] if is_packed else shape[1]
    return None


def _plain(text: object) -> str:
    """Return the printable characters of a text of the metadata, cut to a length that fits a sentence."""
    return "".join(one for one in str(text) if one.isprintable()).strip()[:_LONGEST_TITLE]

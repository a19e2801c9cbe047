"""The configuration in the header of the built-in model format: its fields, their bounds, and how they must agree.

The classes have the fields of the configurations in `flux.config`, which imports torch; this module does not.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from allaprima.domain.fields import SIDE_STEP, choice, json_type, problems_in, refusal
from allaprima.weights.json_object import parse_object

#: Longest configuration, in bytes of JSON. That of the built-in model has about 900.
MAX_CONFIG_BYTES = 2**16
#: Most pixels that a model may generate at its native number of tokens, before the image is resized.
MAX_NATIVE_PIXELS = 2**24
#: Most characters of a value in a message.
_MAX_SHOWN = 40


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _whole(low: int, high: int) -> BeforeValidator:
    def check(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise refusal(f"must be a whole number from {low} to {high}; it is {_shown(value)}")
        return value

    return BeforeValidator(check)


def _number(low: float, high: float) -> BeforeValidator:
    """Validate a number above `low`, and at most `high`."""

    def check(value: Any) -> float:
        # NaN is in no range.
        if type(value) not in (int, float) or not low < value <= high:
            raise refusal(f"must be a number above {low:g} and at most {high:g}; it is {_shown(value)}")
        return float(value)

    return BeforeValidator(check)


def _list_of(low: int, high: int, lengths: range) -> BeforeValidator:
    def check(value: Any) -> tuple[int, ...]:
        is_list = isinstance(value, list | tuple) and len(value) in lengths
        if not is_list or not all(type(one) is int and low <= one <= high for one in value):
            count = str(lengths[0]) if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"
            raise refusal(f"must be a list of {count} whole numbers from {low} to {high}; it is {_shown(value)}")
        return tuple(value)

    return BeforeValidator(check)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise refusal(f"must be true or false; it is {_shown(value)}")
    return value


#: The bounds are far above the sizes of FLUX.1 [schnell], and low enough that a network can be described without its
#: tensors in less than a second.
Width = Annotated[int, _whole(1, 2**17)]
Vocabulary = Annotated[int, _whole(6, 2**20)]
Length = Annotated[int, _whole(3, 4096)]
Blocks = Annotated[int, _whole(1, 128)]
Heads = Annotated[int, _whole(1, 1024)]
Epsilon = Annotated[float, _number(1e-12, 1)]


class _Fields(BaseModel):
    # The fields that have another name in the header are read by that name only.
    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=False)

    @model_validator(mode="before")
    @classmethod
    def _is_object(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            raise refusal(f"must be an object; it is {json_type(value)}")
        return value


class TransformerFields(_Fields):
    """The fields of `TransformerConfig`."""

    in_channels: Width
    vec_in_dim: Width
    context_in_dim: Width
    hidden_size: Width
    mlp_ratio: Annotated[float, _number(0, 64)]
    num_heads: Heads
    depth: Blocks
    depth_single_blocks: Annotated[int, _whole(0, 128)]
    axes_dim: Annotated[tuple[int, int, int], _list_of(2, 1024, range(3, 4))]
    theta: Annotated[int, _whole(1, 10**9)]
    pos_embed_channels: Annotated[int, _whole(0, 4096)] = Field(alias="place_channels")
    latent_stats: Annotated[bool, BeforeValidator(_flag)] = Field(alias="canvas_means")

    @property
    def mlp_hidden(self) -> int:
        """Width of the hidden layer of the blocks' MLPs."""
        return int(self.hidden_size * self.mlp_ratio)

    @property
    def input_channels(self) -> int:
        """Values per image token at the input: latents, position features and latent statistics."""
        return self.in_channels + self.pos_embed_channels + (self.in_channels // 4 if self.latent_stats else 0)


class T5Fields(_Fields):
    """The fields of `T5Config`."""

    vocab_size: Vocabulary
    d_model: Width
    d_kv: Width
    d_ff: Width
    num_heads: Heads
    num_layers: Blocks
    length: Length
    relative_attention_num_buckets: Annotated[int, _whole(4, 4096)]
    relative_attention_max_distance: Annotated[int, _whole(2, 2**16)]
    layer_norm_epsilon: Epsilon


class CLIPFields(_Fields):
    """The fields of `CLIPConfig`."""

    vocab_size: Vocabulary
    hidden_size: Width
    intermediate_size: Width
    num_heads: Heads
    num_layers: Blocks
    length: Length
    layer_norm_eps: Epsilon


class AutoencoderFields(_Fields):
    """The fields of `AutoencoderConfig`."""

    ch: Annotated[int, _whole(1, 4096)]
    ch_mult: Annotated[tuple[int, ...], _list_of(1, 64, range(1, 9))]
    num_res_blocks: Annotated[int, _whole(1, 16)]
    z_channels: Annotated[int, _whole(1, 1024)]
    scale_factor: Annotated[float, _number(0.001, 1000)]
    shift_factor: Annotated[float, _number(-1000, 1000)]
    patch: Annotated[int, _whole(1, 64)]
    groups: Annotated[int, _whole(1, 4096)]


class ConfigFields(_Fields):
    """The fields of `ModelConfig`."""

    transformer: TransformerFields
    t5: T5Fields
    clip: CLIPFields
    autoencoder: AutoencoderFields
    native_tokens: Annotated[int, _whole(1, 4096)] | None = Field(alias="canvas_tokens")
    predicts: Annotated[Literal["velocity", "image"], BeforeValidator(choice("velocity", "image"))]

    @property
    def token_px(self) -> int:
        """Pixels per side of an image token."""
        return 2 * self.autoencoder.patch << (len(self.autoencoder.ch_mult) - 1)


def parse_config(text: str) -> ConfigFields:
    """Parse a header's configuration. Raises `ValueError` with a clause that names the invalid field."""
    if len(text) > MAX_CONFIG_BYTES:
        raise ValueError(f"it has {len(text)} characters, and at most {MAX_CONFIG_BYTES} are allowed")
    try:
        values = parse_object(text)
    except ValueError as exc:
        raise ValueError(f"it {exc}") from exc
    try:
        fields = ConfigFields.model_validate(values)
    except ValidationError as exc:
        problem = problems_in(exc)[0]
        name = problem.field.encode("unicode_escape").decode()
        raise ValueError(f"{name} {problem.message}") from exc
    for is_met, clause in _rules(fields):
        if not is_met:
            raise ValueError(clause)
    return fields


def config_text(values: Mapping[str, Any]) -> str:
    """Return a header's configuration as JSON. values: the fields of a `ModelConfig` by their names in `flux.config`.

    Raises pydantic's `ValidationError`, which names the invalid field.
    """
    fields = ConfigFields.model_validate(values, by_alias=False, by_name=True)
    return json.dumps(fields.model_dump(mode="json", by_alias=True))


def _rules(fields: ConfigFields) -> Iterator[tuple[bool, str]]:
    """Yield how fields must agree: whether they do, and the clause that says that they do not."""
    one, autoencoder = fields.transformer, fields.autoencoder
    for name, value, of, divisor in (
        ("transformer.in_channels", one.in_channels, "", 4),
        ("transformer.place_channels", one.pos_embed_channels, "", 4),
        ("transformer.hidden_size", one.hidden_size, "transformer.num_heads, ", one.num_heads),
        ("clip.hidden_size", fields.clip.hidden_size, "clip.num_heads, ", fields.clip.num_heads),
        ("autoencoder.ch", autoencoder.ch, "autoencoder.groups, ", autoencoder.groups),
    ):
        yield value % divisor == 0, f"{name} must be a multiple of {of}{divisor}; it is {value}"
    for name, value, of, expected in (
        ("transformer.in_channels", one.in_channels, "4 x autoencoder.z_channels", 4 * autoencoder.z_channels),
        ("transformer.vec_in_dim", one.vec_in_dim, "clip.hidden_size", fields.clip.hidden_size),
        ("transformer.context_in_dim", one.context_in_dim, "t5.d_model", fields.t5.d_model),
        (
            "the sum of transformer.axes_dim",
            sum(one.axes_dim),
            "transformer.hidden_size / transformer.num_heads",
            one.hidden_size // one.num_heads,
        ),
    ):
        yield value == expected, f"{name} must be {of}, {expected}; it is {value}"
    axes = [*one.axes_dim]
    yield all(axis % 2 == 0 for axis in axes), f"transformer.axes_dim must be even numbers; it is {axes}"
    yield one.mlp_hidden >= 1, f"transformer.mlp_ratio must give a layer of one value or more; it is {one.mlp_ratio}"
    exact, distance = fields.t5.relative_attention_num_buckets // 4, fields.t5.relative_attention_max_distance
    of = "a quarter of t5.relative_attention_num_buckets"
    yield distance > exact, f"t5.relative_attention_max_distance must be above {of}, {exact}; it is {distance}"
    yield from _size_rules(fields)


def _size_rules(fields: ConfigFields) -> Iterator[tuple[bool, str]]:
    """Yield the rules of the image size, as `_rules` does."""
    side, tokens = fields.token_px, fields.native_tokens
    made_of = "an image token, 2 x autoencoder.patch pixels, doubled for each further entry of autoencoder.ch_mult,"
    if tokens is None:
        yield SIDE_STEP % side == 0, f"{made_of} must divide {SIDE_STEP} pixels without canvas_tokens; it has {side}"
    else:
        clause = f"canvas_tokens, with image tokens of {side} x {side} pixels, must be"
        yield tokens * side**2 <= MAX_NATIVE_PIXELS, f"{clause} at most {MAX_NATIVE_PIXELS} pixels; it is {tokens}"


def check_sizes(fields: ConfigFields, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check that a configuration agrees with the shapes of the tensors in its file.

    shapes: by name. Tensors that are missing are not reported. Raises `ValueError` with a clause that names the field.
    """
    for name, value, start in _counted(fields):
        number = re.compile(rf"{re.escape(start)}(\d{{1,6}})\.")
        found = len({match[1] for match in map(number.match, shapes) if match})
        if value != found:
            raise ValueError(f"{name} is {value}, but the file has the tensors of {found} of them")
    for names, tensor, shape in _sized(fields):
        if tensor in shapes and shapes[tensor] != shape:
            raise ValueError(f"the tensor {tensor} has the shape {shapes[tensor]}, and with {names} it has {shape}")


def _counted(fields: ConfigFields) -> Iterator[tuple[str, int, str]]:
    """Yield the fields that are numbers of modules: the field, its value, and the start of the modules' names."""
    one, autoencoder = fields.transformer, fields.autoencoder
    yield "transformer.depth", one.depth, "transformer.double_blocks."
    yield "transformer.depth_single_blocks", one.depth_single_blocks, "transformer.single_blocks."
    yield "t5.num_layers", fields.t5.num_layers, "t5.encoder.block."
    yield "clip.num_layers", fields.clip.num_layers, "clip.text_model.encoder.layers."
    yield "the length of autoencoder.ch_mult", len(autoencoder.ch_mult), "autoencoder.encoder.down."
    yield "autoencoder.num_res_blocks", autoencoder.num_res_blocks, "autoencoder.encoder.down.0.block."


def _sized(fields: ConfigFields) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Yield tensors that contain the other sizes: the fields that determine a shape, the tensor's name, the shape."""
    yield from _transformer_sized(fields.transformer)
    t5, clip, autoencoder = fields.t5, fields.clip, fields.autoencoder
    layers = "t5.encoder.block.0.layer"
    yield "t5.vocab_size and t5.d_model", "t5.shared.weight", (t5.vocab_size, t5.d_model)
    buckets = (t5.relative_attention_num_buckets, t5.num_heads)
    bias = f"{layers}.0.SelfAttention.relative_attention_bias.weight"
    yield "t5.relative_attention_num_buckets and t5.num_heads", bias, buckets
    inner = t5.num_heads * t5.d_kv
    yield "t5.num_heads, t5.d_kv and t5.d_model", f"{layers}.0.SelfAttention.q.weight", (inner, t5.d_model)
    yield "t5.d_ff and t5.d_model", f"{layers}.1.DenseReluDense.wi_0.weight", (t5.d_ff, t5.d_model)
    text = "clip.text_model"
    width = clip.hidden_size
    tokens = f"{text}.embeddings.token_embedding.weight"
    yield "clip.vocab_size and clip.hidden_size", tokens, (clip.vocab_size, width)
    yield "clip.length and clip.hidden_size", f"{text}.embeddings.position_embedding.weight", (clip.length, width)
    hidden = f"{text}.encoder.layers.0.mlp.fc1.weight"
    yield "clip.intermediate_size and clip.hidden_size", hidden, (clip.intermediate_size, width)
    pixels = 3 * autoencoder.patch**2
    yield "autoencoder.ch and autoencoder.patch", "autoencoder.encoder.conv_in.weight", (autoencoder.ch, pixels, 3, 3)
    widths = [autoencoder.ch * mult for mult in autoencoder.ch_mult]
    inputs = (widths[-1], autoencoder.z_channels, 3, 3)
    names = "autoencoder.ch, autoencoder.ch_mult and autoencoder.z_channels"
    yield names, "autoencoder.decoder.conv_in.weight", inputs
    for i, out in enumerate(widths):
        tensor = f"autoencoder.encoder.down.{i}.block.0.conv1.weight"
        yield "autoencoder.ch and autoencoder.ch_mult", tensor, (out, autoencoder.ch if i == 0 else widths[i - 1], 3, 3)


def _transformer_sized(one: TransformerFields) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    width, start = one.hidden_size, "transformer"
    names = ", ".join(f"transformer.{name}" for name in ("hidden_size", "in_channels", "place_channels"))
    yield f"{names} and transformer.canvas_means", f"{start}.img_in.weight", (width, one.input_channels)
    names = "transformer.hidden_size and transformer"
    yield f"{names}.vec_in_dim", f"{start}.vector_in.in_layer.weight", (width, one.vec_in_dim)
    yield f"{names}.context_in_dim", f"{start}.txt_in.weight", (width, one.context_in_dim)
    head = f"{start}.double_blocks.0.img_attn.norm.query_norm.scale"
    yield f"{names}.num_heads", head, (width // one.num_heads,)
    yield f"{names}.mlp_ratio", f"{start}.double_blocks.0.img_mlp.0.weight", (one.mlp_hidden, width)
    yield f"{names}.in_channels", f"{start}.final_layer.linear.weight", (one.in_channels, width)

"""Infers a model's configuration from the shapes of its tensors, so that file names don't matter.

The shapes don't determine some values, which are the same in every published FLUX.1 [schnell]: how the width of a head
is divided among the rotary axes (1/8, 7/16, 7/16), CLIP's head width (64), T5's input length (256 tokens), and the
autoencoder's scale, shift and number of groups (32).
"""

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

from allaprima.flux import SCHNELL, AutoencoderConfig, CLIPConfig, ModelConfig, T5Config, TransformerConfig
from allaprima.weights.checkpoint.key_maps import Component

Shapes = Mapping[str, tuple[int, ...]]
T = TypeVar("T")

_CLIP_HEAD = SCHNELL.clip.hidden_size // SCHNELL.clip.num_heads


class InvalidSizes(Exception):
    """The shapes of a component's tensors are not those of a model."""

    def __init__(self, component: Component, problem: str) -> None:
        """problem: a clause whose subject is the component's file."""
        super().__init__(problem)
        self.component = component


class _MissingDimension(Exception):
    """A tensor whose shape determines the configuration is missing or has too few axes. The argument is its name."""


def infer_config(shapes: Mapping[Component, Shapes]) -> ModelConfig:
    """Return the configuration of a model. shapes: of each component's tensors, by canonical name.

    Raises `InvalidSizes`.
    """
    config = ModelConfig(
        _inferred(Component.TRANSFORMER, _transformer, shapes),
        _inferred(Component.T5, _t5, shapes),
        _inferred(Component.CLIP, _clip, shapes),
        _inferred(Component.AUTOENCODER, _autoencoder, shapes),
    )
    for component, name, expected, found in (
        (Component.T5, "a T5 token", config.transformer.context_in_dim, config.t5.d_model),
        (Component.CLIP, "CLIP's vector", config.transformer.vec_in_dim, config.clip.hidden_size),
        (Component.AUTOENCODER, "an image token", config.transformer.in_channels, 4 * config.autoencoder.z_channels),
    ):
        if expected != found:
            raise InvalidSizes(
                component,
                f"does not belong to the transformer: the transformer expects {name} of {expected} values, not {found}",
            )
    return config


def _inferred(component: Component, infer: Callable[[Shapes], T], shapes: Mapping[Component, Shapes]) -> T:
    try:
        return infer(shapes[component])
    except _MissingDimension as exc:
        raise InvalidSizes(component, f"lacks the tensor {exc}, or it has another shape") from exc
    except (ValueError, ZeroDivisionError) as exc:
        raise InvalidSizes(component, f"has tensors with inconsistent sizes: {exc}") from exc


def _size(shapes: Shapes, name: str, axis: int) -> int:
    try:
        return shapes[name][axis]
    except (KeyError, IndexError) as exc:
        raise _MissingDimension(name) from exc


def _count(shapes: Shapes, start: str) -> int:
    """Return the number of modules whose names are `start` and a number.

    Raises `_MissingDimension` when they are not numbered 0, 1, 2 and so on, or when there is none.
    """
    number = re.compile(rf"{re.escape(start)}(\d{{1,6}})\.")
    found = {int(match[1]) for match in map(number.match, shapes) if match}
    if missing := set(range(max(1, len(found)))) - found:
        raise _MissingDimension(f"{start}{min(missing)}")
    return len(found)


def _transformer(shapes: Shapes) -> TransformerConfig:
    hidden = _size(shapes, "img_in.weight", 0)
    head = _size(shapes, "double_blocks.0.img_attn.norm.key_norm.scale", 0)
    index = head // 8
    return TransformerConfig(
        in_channels=_size(shapes, "img_in.weight", 1),
        vec_in_dim=_size(shapes, "vector_in.in_layer.weight", 1),
        context_in_dim=_size(shapes, "txt_in.weight", 1),
        hidden_size=hidden,
        mlp_ratio=_size(shapes, "double_blocks.0.img_mlp.0.weight", 0) / max(1, hidden),
        num_heads=hidden // max(1, head),
        depth=_count(shapes, "double_blocks."),
        depth_single_blocks=_count(shapes, "single_blocks."),
        axes_dim=(index, (head - index) // 2, (head - index) // 2),
    )


def _t5(shapes: Shapes) -> T5Config:
    attention = "encoder.block.0.layer.0.SelfAttention"
    heads = _size(shapes, f"{attention}.relative_attention_bias.weight", 1)
    return T5Config(
        vocab_size=_size(shapes, "shared.weight", 0),
        d_model=_size(shapes, "shared.weight", 1),
        d_kv=_size(shapes, f"{attention}.q.weight", 0) // max(1, heads),
        d_ff=_size(shapes, "encoder.block.0.layer.1.DenseReluDense.wi_0.weight", 0),
        num_heads=heads,
        num_layers=_count(shapes, "encoder.block."),
        length=SCHNELL.t5.length,
        relative_attention_num_buckets=_size(shapes, f"{attention}.relative_attention_bias.weight", 0),
    )


def _clip(shapes: Shapes) -> CLIPConfig:
    hidden = _size(shapes, "text_model.embeddings.token_embedding.weight", 1)
    return CLIPConfig(
        vocab_size=_size(shapes, "text_model.embeddings.token_embedding.weight", 0),
        hidden_size=hidden,
        intermediate_size=_size(shapes, "text_model.encoder.layers.0.mlp.fc1.weight", 0),
        num_heads=max(1, hidden // _CLIP_HEAD),
        num_layers=_count(shapes, "text_model.encoder.layers."),
        length=_size(shapes, "text_model.embeddings.position_embedding.weight", 0),
    )


def _autoencoder(shapes: Shapes) -> AutoencoderConfig:
    has_encoder = any(name.startswith("encoder.") for name in shapes)
    side = "encoder.down" if has_encoder else "decoder.up"
    levels = _count(shapes, f"{side}.")
    widths = [_size(shapes, f"{side}.{level}.block.0.conv1.weight", 0) for level in range(levels)]
    # The decoder does not have the base number of channels, which is that of the highest resolution in FLUX.1, and has
    # one block more at each resolution.
    ch = _size(shapes, "encoder.conv_in.weight" if has_encoder else "decoder.up.0.block.0.conv1.weight", 0)
    return AutoencoderConfig(
        ch=ch,
        ch_mult=tuple(width // max(1, ch) for width in widths),
        num_res_blocks=_count(shapes, f"{side}.0.block.") - (0 if has_encoder else 1),
        z_channels=_size(shapes, "decoder.conv_in.weight", 1),
        scale_factor=SCHNELL.autoencoder.scale_factor,
        shift_factor=SCHNELL.autoencoder.shift_factor,
        has_encoder=has_encoder,
    )

"""Models of other sizes than FLUX.1 [schnell]'s: read by their shapes, or refused by what does not fit."""

import re
from collections.abc import Callable
from dataclasses import replace

import torch

from allaprima.errors import WeightsCorrupt, WeightsError
from allaprima.flux import ModelConfig
from tests.weights.published import Tensors
from tests.weights.shapes.case import AUTOENCODER, CLIP, T5, Cases, Same, Sized, refused
from tests.weights.shapes.number_cases import FILE
from tests.weights.shapes.quantizers import Change, in_bnb4
from tests.weights.shapes.text_encoder_cases import decoder_only, openai_names, positions
from tests.weights.shapes.transformer_cases import prefixed, replaced

CASES = Cases()


def dropped(pattern: str) -> Change:
    """Return a function that drops the tensors whose names a pattern fits."""
    return lambda t: {name: one for name, one in t.items() if re.search(pattern, name) is None}


def transformer(**sizes: int) -> Callable[[ModelConfig], ModelConfig]:
    return lambda config: replace(config, transformer=replace(config.transformer, **sizes))


# Depth ----------------------------------------------------------------------------------------------------------------

CASES.add("fewer_double_blocks", Sized(transformer(depth=1)), replaced(dropped(r"double_blocks\.1\.")))
CASES.add("fewer_single_blocks", Sized(transformer(depth_single_blocks=1)), replaced(dropped(r"single_blocks\.1\.")))
CASES.add(
    "fewer_blocks_prefixed_in_nf4",
    Sized(transformer(depth_single_blocks=1)),
    replaced(lambda t: in_bnb4()(prefixed("model.diffusion_model.", dropped(r"single_blocks\.1\.")(t)))),
)
CASES.add(
    "no_single_blocks",
    refused(WeightsError, FILE, "single_blocks"),
    replaced(dropped(r"single_blocks\.")),
)
CASES.add(
    "more_blocks_than_published",
    Sized(transformer(depth_single_blocks=4)),
    replaced(
        lambda t: (
            t
            | {
                name.replace("single_blocks.1", f"single_blocks.{number}"): one.clone()
                for name, one in t.items()
                if "single_blocks.1." in name
                for number in (2, 3)
            }
        )
    ),
)
CASES.add(
    "first_block_dropped",
    refused(WeightsCorrupt, FILE, r"single_blocks\.0"),
    replaced(dropped(r"single_blocks\.0\.")),
)
CASES.add(
    "one_layer_of_a_block_dropped",
    refused(WeightsCorrupt, FILE, r"double_blocks\.1\.img_mlp\.0"),
    replaced(dropped(r"double_blocks\.1\.img_mlp\.0\.")),
)
CASES.add(
    "t5_of_fewer_blocks",
    Sized(lambda config: replace(config, t5=replace(config.t5, num_layers=1))),
    replaced(dropped(r"encoder\.block\.1\."), component=T5),
)
CASES.add(
    "clip_of_fewer_layers",
    Sized(lambda config: replace(config, clip=replace(config.clip, num_layers=1))),
    replaced(dropped(r"encoder\.layers\.1\."), component=CLIP),
)


# Without distillation -------------------------------------------------------------------------------------------------


def without_distillation(t: Tensors) -> Tensors:
    """Return weights with the names of schnell, as flux-dev-de-distill, OpenFLUX and LibreFLUX have them."""
    return t | {"img_in.bias": t["img_in.bias"] + 1}


# The structure is exactly schnell's, so nothing tells such a file from a fine-tune of schnell.
CASES.add("dedistilled_without_guidance", Same(load=False), replaced(without_distillation))
CASES.add(
    "dedistilled_with_its_name_in_the_metadata",
    Same(load=False),
    replaced(without_distillation, {"modelspec.title": "flux-dev-de-distill"}),
)
CASES.add(
    "dev_without_its_guidance",
    refused(WeightsError, FILE, r"FLUX\.1 \[dev\]"),
    replaced(lambda t: t | {"guidance_in.in_layer.weight": torch.ones(64, 256)}),
)

# Text encoders and autoencoders ---------------------------------------------------------------------------------------


def with_positions(count: int) -> Callable[[ModelConfig], ModelConfig]:
    return lambda config: replace(config, clip=replace(config.clip, length=count))


def without_encoder(config: ModelConfig) -> ModelConfig:
    return replace(config, autoencoder=replace(config.autoencoder, has_encoder=False))


CASES.add("clip_of_248_positions", Sized(with_positions(248), pixels=True), replaced(positions(248), component=CLIP))
CASES.add(
    "clip_of_248_positions_in_openai_names",
    Sized(with_positions(248), pixels=True),
    replaced(lambda t: openai_names(positions(248)(t)), component=CLIP),
)
CASES.add("vae_decoder_only", Sized(without_encoder, pixels=True), replaced(decoder_only, component=AUTOENCODER))
CASES.add(
    "vae_decoder_only_prefixed",
    Sized(without_encoder, pixels=True),
    replaced(lambda t: prefixed("first_stage_model.", decoder_only(t)), component=AUTOENCODER),
)
CASES.add(
    "vae_encoder_only",
    refused(WeightsError, r"ae\.safetensors", "decoder"),
    replaced(dropped(r"^decoder\."), component=AUTOENCODER),
)
CASES.add(
    "vae_of_16_channels_for_a_transformer_of_4",
    refused(WeightsCorrupt, r"ae\.safetensors", "image token"),
    replaced(
        lambda t: (
            t
            | {"decoder.conv_in.weight": torch.ones(64, 16, 3, 3), "encoder.conv_out.weight": torch.ones(32, 64, 3, 3)}
        ),
        component=AUTOENCODER,
    ),
)
CASES.add(
    "t5_base_of_another_width",
    refused(WeightsCorrupt, "t5xxl_fp16", "T5 token|another shape"),
    replaced(lambda t: t | {"shared.weight": torch.ones(540, 16)}, component=T5),
)

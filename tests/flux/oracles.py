"""The reference networks of diffusers and transformers, with the weights of allaprima's networks.

Each `*_oracle` takes a module of allaprima and returns its counterpart. State dicts are loaded strictly, so a weight
that only one side has is an error. `randomize` draws weights of which none is neutral: norm scales are not one, biases
not zero.

diffusers and transformers take ten seconds to import, so each function imports what it needs: a test that runs no
oracle imports neither.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from allaprima.flux import Autoencoder, CLIPConfig, CLIPTextEncoder, Flux, T5Config, T5Encoder

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextModel, T5EncoderModel

#: Layers outside the blocks: name in allaprima -> name in diffusers.
TRANSFORMER_LAYERS = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
    "final_layer.linear": "proj_out",
}

#: Layers inside a block: name in allaprima -> names in diffusers; a fused layer has several, in the order of its rows.
DOUBLE_BLOCK_LAYERS = {
    "img_mod.lin": ("norm1.linear",),
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "img_attn.norm.query_norm": ("attn.norm_q",),
    "img_attn.norm.key_norm": ("attn.norm_k",),
    "img_attn.proj": ("attn.to_out.0",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "txt_mod.lin": ("norm1_context.linear",),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "txt_attn.norm.query_norm": ("attn.norm_added_q",),
    "txt_attn.norm.key_norm": ("attn.norm_added_k",),
    "txt_attn.proj": ("attn.to_add_out",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
}
SINGLE_BLOCK_LAYERS = {
    "modulation.lin": ("norm.linear",),
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "norm.query_norm": ("attn.norm_q",),
    "norm.key_norm": ("attn.norm_k",),
}

#: Patterns of names in allaprima -> replacements that give the names in diffusers, applied in order.
AUTOENCODER_NAMES = (
    (r"\.down\.(\d+)\.", r".down_blocks.\1."),
    (r"\.block\.(\d+)\.", r".resnets.\1."),
    (r"\.(down|up)sample\.", r".\1samplers.0."),
    (r"\.mid\.block_1\.", r".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", r".mid_block.resnets.1."),
    (r"\.mid\.attn_1\.", r".mid_block.attentions.0."),
    (r"attentions\.0\.norm\.", r"attentions.0.group_norm."),
    (r"attentions\.0\.([qkv])\.", r"attentions.0.to_\1."),
    (r"attentions\.0\.proj_out\.", r"attentions.0.to_out.0."),
    (r"\.nin_shortcut\.", r".conv_shortcut."),
    (r"coder\.norm_out\.", r"coder.conv_norm_out."),
)


def randomize(module: nn.Module, seed: int) -> None:
    """Draw every parameter: norm scales around one, matrices that keep the magnitude of their inputs."""
    generator = torch.Generator().manual_seed(seed)
    for owner in module.modules():
        for name, parameter in owner.named_parameters(recurse=False):
            mean, deviation = 0.0, 1.0
            if name == "bias":
                deviation = 0.3
            elif parameter.ndim == 1:
                mean, deviation = 1.0, 0.3
            elif not isinstance(owner, nn.Embedding):
                deviation = parameter[0].numel() ** -0.5
            parameter.data.normal_(mean, deviation, generator=generator)


def fade(module: nn.Module, layers: tuple[str, ...]) -> None:
    """Divide the named layers by 1000, so that the inputs of the norms are small enough for the epsilon to matter."""
    for name, parameter in module.named_parameters():
        if any(layer in name.split(".") for layer in layers):
            parameter.data /= 1000


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """Return |ours - theirs| / |theirs|, the relative error of two tensors of the same shape."""
    assert ours.shape == theirs.shape
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())


def transformer_layers(layer: str) -> list[str]:
    """Return the diffusers names of a layer."""
    kind, _, rest = layer.partition(".")
    index, _, inner = rest.partition(".")
    if kind == "double_blocks":
        return [f"transformer_blocks.{index}.{name}" for name in DOUBLE_BLOCK_LAYERS[inner]]
    if kind == "single_blocks":
        return [f"single_transformer_blocks.{index}.{name}" for name in SINGLE_BLOCK_LAYERS[inner]]
    return [TRANSFORMER_LAYERS[layer]]


def exchange_halves(weight: Tensor) -> Tensor:
    """Swap the halves of the rows: the order is shift, scale in allaprima and scale, shift in diffusers."""
    shift, scale = weight.chunk(2)
    return torch.cat((scale, shift))


def transformer_oracle(ours: Flux) -> FluxTransformer2DModel:
    """Build the diffusers transformer. Its MLP ratio is always 4 and its theta always 10,000."""
    from diffusers import FluxTransformer2DModel

    config = ours.config
    theirs = FluxTransformer2DModel(
        in_channels=config.in_channels,
        num_layers=config.depth,
        num_single_layers=config.depth_single_blocks,
        attention_head_dim=config.hidden_size // config.num_heads,
        num_attention_heads=config.num_heads,
        joint_attention_dim=config.context_in_dim,
        pooled_projection_dim=config.vec_in_dim,
        axes_dims_rope=config.axes_dim,
    )
    rows = {name: weight.shape[0] for name, weight in theirs.state_dict().items()}
    weights: dict[str, Tensor] = {}
    for name, weight in ours.state_dict().items():
        layer, _, leaf = name.rpartition(".")
        names = [f"{theirs_layer}.{leaf.replace('scale', 'weight')}" for theirs_layer in transformer_layers(layer)]
        weights.update(zip(names, weight.split([rows[part] for part in names]), strict=True))
    for name in ("norm_out.linear.weight", "norm_out.linear.bias"):
        weights[name] = exchange_halves(weights[name])
    theirs.load_state_dict(weights)
    return theirs.eval()


def autoencoder_name(name: str, levels: int) -> str:
    """Return the diffusers name of a weight; its decoder counts levels from the lowest resolution."""
    name = re.sub(r"\.up\.(\d+)\.", lambda match: f".up_blocks.{levels - 1 - int(match[1])}.", name)
    for pattern, replacement in AUTOENCODER_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def autoencoder_oracle(ours: Autoencoder) -> AutoencoderKL:
    """Build the diffusers autoencoder for a config with patch 1; its attention uses linears for 1x1 convolutions."""
    from diffusers import AutoencoderKL

    config = ours.config
    assert config.patch == 1
    levels = len(config.ch_mult)
    theirs = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=tuple(config.ch * mult for mult in config.ch_mult),
        layers_per_block=config.num_res_blocks,
        latent_channels=config.z_channels,
        norm_num_groups=config.groups,
        scaling_factor=config.scale_factor,
        shift_factor=config.shift_factor,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    shapes = {name: weight.shape for name, weight in theirs.state_dict().items()}
    renamed = {autoencoder_name(name, levels): weight for name, weight in ours.state_dict().items()}
    theirs.load_state_dict({name: weight.reshape(shapes[name]) for name, weight in renamed.items()})
    return theirs.eval()


def t5_oracle(ours: T5Encoder, config: T5Config) -> T5EncoderModel:
    """Build the transformers T5 encoder; its state dict holds the embedding under two names."""
    from transformers import T5Config as HFT5Config
    from transformers import T5EncoderModel

    theirs = T5EncoderModel(
        HFT5Config(
            vocab_size=config.vocab_size,
            d_model=config.d_model,
            d_kv=config.d_kv,
            d_ff=config.d_ff,
            num_heads=config.num_heads,
            num_layers=config.num_layers,
            relative_attention_num_buckets=config.relative_attention_num_buckets,
            relative_attention_max_distance=config.relative_attention_max_distance,
            layer_norm_epsilon=config.layer_norm_epsilon,
            feed_forward_proj="gated-gelu",
        )
    )
    weights = ours.state_dict()
    theirs.load_state_dict(weights | {"encoder.embed_tokens.weight": weights["shared.weight"]})
    return theirs.eval()


def clip_oracle(ours: CLIPTextEncoder, config: CLIPConfig) -> CLIPTextModel:
    """Build the transformers CLIP text model. With `eos_token_id=2`, as in FLUX, the largest id is the end token."""
    from transformers import CLIPTextConfig, CLIPTextModel

    theirs = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_attention_heads=config.num_heads,
            num_hidden_layers=config.num_layers,
            max_position_embeddings=config.length,
            layer_norm_eps=config.layer_norm_eps,
            hidden_act="quick_gelu",
            bos_token_id=0,
            pad_token_id=1,
            eos_token_id=2,
        )
    )
    theirs.load_state_dict({name.removeprefix("text_model."): weight for name, weight in ours.state_dict().items()})
    return theirs.eval()


def scheduler_oracle() -> FlowMatchEulerDiscreteScheduler:
    """Build the scheduler as FLUX.1 [schnell] configures it: no shift."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.0, use_dynamic_shifting=False)


def pipeline_oracle(flux: Flux, autoencoder: Autoencoder) -> FluxPipeline:
    """Build the diffusers pipeline without text encoders; it is called with prompt embeddings."""
    from diffusers import FluxPipeline

    pipeline = FluxPipeline(
        scheduler=scheduler_oracle(),
        vae=autoencoder_oracle(autoencoder),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        transformer=transformer_oracle(flux),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline

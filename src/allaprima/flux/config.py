"""The configurations of FLUX.1's four networks, and the two configurations that ship with allaprima.

`SCHNELL` has the published sizes of FLUX.1 [schnell]; `SKETCH`, the built-in model, is a small model of the same
classes. Source of SCHNELL: black-forest-labs/flux `util.py`; the Hugging Face configurations of T5 v1.1 XXL and CLIP-L.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class TransformerConfig:
    """Sizes of the rectified-flow transformer."""

    #: Latent values per image token, at the input and the output: 4 z_channels, a patch of 2x2 latent positions.
    in_channels: int
    #: Width of the pooled CLIP vector.
    vec_in_dim: int
    #: Width of a T5 token.
    context_in_dim: int
    hidden_size: int
    mlp_ratio: float
    num_heads: int
    #: Number of double-stream blocks.
    depth: int
    #: Number of single-stream blocks.
    depth_single_blocks: int
    #: Widths of the rotary axes (index, row, column). Their sum is the width of a head.
    axes_dim: tuple[int, int, int]
    theta: int = 10_000
    #: Number of position features (`layers.position_features`) that are concatenated to each image token's latents, as
    #: other FLUX.1 models concatenate a mask or a depth map. A multiple of 4; 0 for FLUX.1 [schnell].
    pos_embed_channels: int = 0
    #: Whether the image's latent statistics (`layers.latent_stats`) are concatenated to each image token: one value per
    #: latent channel, `in_channels / 4` in all. False for FLUX.1.
    latent_stats: bool = False

    def __post_init__(self) -> None:
        if self.pos_embed_channels % 4:
            raise ValueError(f"pos_embed_channels {self.pos_embed_channels} is not a multiple of 4")
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}")
        if sum(self.axes_dim) != self.hidden_size // self.num_heads:
            raise ValueError(f"axes_dim {self.axes_dim} does not add up to {self.hidden_size // self.num_heads}")

    @property
    def input_channels(self) -> int:
        """Values per image token at the input of `img_in`: latents, position features and latent statistics."""
        return self.in_channels + self.pos_embed_channels + (self.in_channels // 4 if self.latent_stats else 0)


@dataclass(frozen=True, slots=True)
class T5Config:
    """Sizes of the T5 v1.1 encoder. Field names are those of the Hugging Face configuration."""

    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_heads: int
    num_layers: int
    #: Number of tokens that a prompt is padded or truncated to, including the end token.
    length: int
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6


@dataclass(frozen=True, slots=True)
class CLIPConfig:
    """Sizes of the CLIP text encoder. Most field names are those of the Hugging Face configuration."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_layers: int
    #: Number of tokens that a prompt is padded or truncated to, including the begin and end tokens.
    length: int
    layer_norm_eps: float = 1e-5


@dataclass(frozen=True, slots=True)
class AutoencoderConfig:
    """Sizes of the convolutional autoencoder."""

    #: Base number of channels. Resolution i, counted from the highest, has `ch * ch_mult[i]` channels.
    ch: int
    ch_mult: tuple[int, ...]
    num_res_blocks: int
    z_channels: int
    scale_factor: float
    shift_factor: float
    #: Pixels per side of the patches that are folded into channels before the first convolution; 1 for FLUX.
    patch: int = 1
    #: Number of groups of every group norm.
    groups: int = 32
    #: False for a decoder alone, which is all that generating an image needs.
    has_encoder: bool = True

    @property
    def downscale(self) -> int:
        """Pixels per side of a latent position."""
        return self.patch << (len(self.ch_mult) - 1)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The configurations of a model's four networks, and the parameters of its sampling."""

    transformer: TransformerConfig
    t5: T5Config
    clip: CLIPConfig
    autoencoder: AutoencoderConfig
    #: Number of image tokens that the model was trained with. The model generates about that many tokens at the
    #: requested aspect ratio (`latents.token_grid`), and the image is resized to the requested size. None: the model
    #: generates the requested size.
    native_tokens: int | None = None
    #: The output of the transformer: the flow's velocity, as in FLUX, or the noise-free latents ("image"), from which
    #: `sampler.velocity_to` computes the velocity.
    predicts: Literal["velocity", "image"] = "velocity"

    @property
    def token_px(self) -> int:
        """Pixels per side of an image token, which is a patch of 2x2 latent positions."""
        return 2 * self.autoencoder.downscale


SCHNELL = ModelConfig(
    transformer=TransformerConfig(
        in_channels=64,
        vec_in_dim=768,
        context_in_dim=4096,
        hidden_size=3072,
        mlp_ratio=4.0,
        num_heads=24,
        depth=19,
        depth_single_blocks=38,
        axes_dim=(16, 56, 56),
    ),
    t5=T5Config(vocab_size=32128, d_model=4096, d_kv=64, d_ff=10240, num_heads=64, num_layers=24, length=256),
    clip=CLIPConfig(vocab_size=49408, hidden_size=768, intermediate_size=3072, num_heads=12, num_layers=12, length=77),
    autoencoder=AutoencoderConfig(
        ch=128,
        ch_mult=(1, 2, 4, 4),
        num_res_blocks=2,
        z_channels=16,
        scale_factor=0.3611,
        shift_factor=0.1159,
    ),
)

SKETCH = ModelConfig(
    transformer=TransformerConfig(
        in_channels=128,
        vec_in_dim=256,
        context_in_dim=256,
        hidden_size=256,
        mlp_ratio=4.0,
        num_heads=4,
        depth=1,
        depth_single_blocks=6,
        # The token grids are small. The index axis is always 0, so its width leaves more than a third of each head
        # independent of the position. theta is small because a grid of a dozen tokens per side has no long distances.
        axes_dim=(24, 20, 20),
        theta=100,
        pos_embed_channels=32,
        latent_stats=True,
    ),
    t5=T5Config(vocab_size=768, d_model=256, d_kv=48, d_ff=256, num_heads=4, num_layers=2, length=32),
    clip=CLIPConfig(vocab_size=768, hidden_size=256, intermediate_size=256, num_heads=4, num_layers=1, length=34),
    autoencoder=AutoencoderConfig(
        ch=32,
        ch_mult=(3, 4, 4),
        num_res_blocks=1,
        z_channels=32,
        scale_factor=1.0,
        shift_factor=0.0,
        patch=8,
    ),
    native_tokens=144,
    # A velocity contains the noise, 128 values per token, for which a hidden width of 256 is too narrow.
    predicts="image",
)

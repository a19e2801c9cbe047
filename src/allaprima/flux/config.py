"""The sizes of FLUX.1's four networks, as small frozen values, and the two configurations that allaprima knows.

`SCHNELL` has the published sizes of FLUX.1 [schnell]; `SKETCH` is the built-in model: the same classes, small.
Source of SCHNELL: black-forest-labs/flux `util.py`; the Hugging Face configurations of T5 v1.1 XXL and CLIP-L.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class TransformerConfig:
    """Sizes of the rectified-flow transformer."""

    #: Values per image token, in and out: latent channels x 2 x 2.
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
    #: Rotary widths of (index, row, column); they add up to the width of a head.
    axes_dim: tuple[int, int, int]
    theta: int = 10_000
    #: Values per image token that say where on the canvas it is, beside its latents (`layers.places`), as other FLUX.1
    #: models read a mask or a depth there; a multiple of 4, 0 for FLUX.1 [schnell].
    place_channels: int = 0
    #: Whether each image token also brings the canvas's mean of every latent channel (`layers.means`): a value for
    #: every four of its latents. Not in FLUX.1.
    canvas_means: bool = False

    def __post_init__(self) -> None:
        if self.place_channels % 4:
            raise ValueError(f"place_channels {self.place_channels} is not a multiple of 4")
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}")
        if sum(self.axes_dim) != self.hidden_size // self.num_heads:
            raise ValueError(f"axes_dim {self.axes_dim} does not add up to {self.hidden_size // self.num_heads}")

    @property
    def brought_channels(self) -> int:
        """Values that an image token brings with it, its latents and whatever else."""
        return self.in_channels + self.place_channels + (self.in_channels // 4 if self.canvas_means else 0)


@dataclass(frozen=True, slots=True)
class T5Config:
    """Sizes of the T5 v1.1 encoder."""

    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_heads: int
    num_layers: int
    #: Tokens a prompt is padded or truncated to, end token included.
    length: int
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6


@dataclass(frozen=True, slots=True)
class CLIPConfig:
    """Sizes of the CLIP text encoder."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_layers: int
    #: Tokens a prompt is padded or truncated to, begin and end token included.
    length: int
    layer_norm_eps: float = 1e-5


@dataclass(frozen=True, slots=True)
class AutoencoderConfig:
    """Sizes of the convolutional autoencoder."""

    #: Channels of the first level; level i has `ch * ch_mult[i]`.
    ch: int
    ch_mult: tuple[int, ...]
    num_res_blocks: int
    z_channels: int
    scale_factor: float
    shift_factor: float
    #: Pixels per side that are folded into channels before the first convolution; 1 for FLUX.
    patch: int = 1
    #: Groups of every group norm.
    groups: int = 32

    @property
    def downscale(self) -> int:
        """Pixels per side that one latent position covers."""
        return self.patch << (len(self.ch_mult) - 1)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The four networks of one model, and how it paints."""

    transformer: TransformerConfig
    t5: T5Config
    clip: CLIPConfig
    autoencoder: AutoencoderConfig
    #: Image tokens the model is at its best with; it paints that many at the asked ratio, and the picture is resized
    #: to the asked size. None: the model paints the asked size itself.
    canvas_tokens: int | None = None
    #: What the transformer puts out: the flow's velocity, as FLUX's does, or the finished image, from which the
    #: velocity follows (`sampler.velocity_to`).
    predicts: Literal["velocity", "image"] = "velocity"

    @property
    def token_px(self) -> int:
        """Pixels per side that one image token covers: a 2x2 patch of latent positions."""
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
        # Prompts and small canvases: a third of each head reads without regard to place, and no angle is wasted on
        # distances that a canvas of a dozen tokens a side never has.
        axes_dim=(24, 20, 20),
        theta=100,
        place_channels=32,
        canvas_means=True,
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
    canvas_tokens=144,
    # A velocity holds the noise: 128 values a token, which a stream of 256 would have to carry beside everything else.
    predicts="image",
)

"""The convolutional autoencoder: encodes images to latents and decodes latents to images.

It has residual blocks with group norm, one attention layer at the lowest resolution, and nearest-neighbour upsampling.
With `patch` above 1, patches of `patch` x `patch` pixels are folded into channels before the encoder and unfolded after
the decoder; FLUX has patch 1, the built-in model patch 8. Source: Rombach et al. 2022 (2112.10752);
black-forest-labs/flux `modules/autoencoder.py`, which has the same attribute names.

Dimension key: B batch, C channels, Y rows, X columns, d pixels per latent position and side (`downscale`).
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from allaprima.flux.cancel import CancelCheck, never_cancelled
from allaprima.flux.config import AutoencoderConfig
from allaprima.flux.tiled_decode import (
    tiled_attention,
    tiled_convolution,
    tiled_head,
    tiled_resnet,
    tiled_upsample,
)
from allaprima.kernels import attention


def norm(channels: int, groups: int) -> nn.GroupNorm:
    """Return the group norm of the autoencoder: affine, eps 1e-6."""
    return nn.GroupNorm(groups, channels, eps=1e-6)


class ResnetBlock(nn.Module):
    """Group norm, SiLU and 3x3 convolution, twice, with a residual connection."""

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = norm(in_channels, groups)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = norm(out_channels, groups)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Y, X) -> (B, out_channels, Y, X)."""
        hidden = self.conv1(nn.functional.silu(self.norm1(x)))
        hidden = self.conv2(nn.functional.silu(self.norm2(hidden)))
        return hidden + (x if self.nin_shortcut is None else self.nin_shortcut(x))


class AttnBlock(nn.Module):
    """Single-head attention over all positions, with a residual connection."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = norm(channels, groups)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Y, X) -> the same shape."""
        normed = self.norm(x)
        q, k, v = (conv(normed).flatten(2).transpose(1, 2)[:, None] for conv in (self.q, self.k, self.v))
        out = attention(q, k, v)[:, 0].transpose(1, 2).reshape(x.shape)  # (B, C, Y, X)
        return x + self.proj_out(out)


class Downsample(nn.Module):
    """A 3x3 convolution with stride 2, padded at the right and bottom only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Y, X) -> (B, C, Y/2, X/2)."""
        return self.conv(nn.functional.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Nearest-neighbour upsampling by 2, then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Y, X) -> (B, C, 2 Y, 2 X)."""
        return self.conv(nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))


class Middle(nn.Module):
    """The blocks at the lowest resolution: residual block, attention, residual block."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels, groups)
        self.attn_1 = AttnBlock(channels, groups)
        self.block_2 = ResnetBlock(channels, channels, groups)

    def stages(self) -> Iterator[nn.Module]:
        """Yield the layers in order."""
        yield from (self.block_1, self.attn_1, self.block_2)


class Resolution(nn.Module):
    """The residual blocks at one resolution, followed by a downsampling or upsampling layer unless it is the last."""

    def __init__(
        self, blocks: list[ResnetBlock], *, down: Downsample | None = None, up: Upsample | None = None
    ) -> None:
        super().__init__()
        self.block = nn.ModuleList(blocks)
        if down is not None:
            self.downsample = down
        if up is not None:
            self.upsample = up

    def stages(self) -> Iterator[nn.Module]:
        """Yield the layers in order."""
        yield from self.block
        for name in ("downsample", "upsample"):
            if name in self._modules:
                yield getattr(self, name)


class Encoder(nn.Module):
    """Computes the mean and log variance of the latents from pixels."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        groups = config.groups
        self.patch = config.patch
        self.conv_in = nn.Conv2d(3 * config.patch**2, config.ch, 3, padding=1)
        widths = [config.ch * mult for mult in config.ch_mult]
        self.down = nn.ModuleList()
        channels = config.ch
        for i, width in enumerate(widths):
            blocks = [ResnetBlock(channels if j == 0 else width, width, groups) for j in range(config.num_res_blocks)]
            self.down.append(Resolution(blocks, down=Downsample(width) if i < len(widths) - 1 else None))
            channels = width
        self.mid = Middle(channels, groups)
        self.norm_out = norm(channels, groups)
        self.conv_out = nn.Conv2d(channels, 2 * config.z_channels, 3, padding=1)

    def resolutions(self) -> Iterator["Resolution | Middle"]:
        """Yield the resolutions, highest first."""
        for resolution in self.down:
            assert isinstance(resolution, Resolution)
            yield resolution
        yield self.mid

    def forward(self, x: Tensor, check_cancelled: CancelCheck) -> Tensor:
        """(B, 3, Y, X) in [-1, 1] -> (B, 2 z_channels, Y / d, X / d): the mean, then the log variance."""
        x = self.conv_in(nn.functional.pixel_unshuffle(x, self.patch) if self.patch > 1 else x)
        for stages in self.resolutions():
            for stage in stages.stages():
                check_cancelled()
                x = stage(x)
        return self.conv_out(nn.functional.silu(self.norm_out(x)))


class Decoder(nn.Module):
    """Computes pixels from unscaled latents."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        groups = config.groups
        self.patch = config.patch
        widths = [config.ch * mult for mult in config.ch_mult]
        channels = widths[-1]
        self.conv_in = nn.Conv2d(config.z_channels, channels, 3, padding=1)
        self.mid = Middle(channels, groups)
        resolutions = []
        for i, width in reversed(list(enumerate(widths))):
            blocks = [
                ResnetBlock(channels if j == 0 else width, width, groups) for j in range(config.num_res_blocks + 1)
            ]
            resolutions.append(Resolution(blocks, up=Upsample(width) if i > 0 else None))
            channels = width
        # Checkpoints number the resolutions from the highest; the decoder runs from the lowest.
        self.up = nn.ModuleList(reversed(resolutions))
        self.norm_out = norm(channels, groups)
        self.conv_out = nn.Conv2d(channels, 3 * config.patch**2, 3, padding=1)

    def resolutions(self) -> Iterator["Resolution | Middle"]:
        """Yield the resolutions, lowest first."""
        yield self.mid
        for resolution in reversed(self.up):
            assert isinstance(resolution, Resolution)
            yield resolution

    def forward(self, z: Tensor, check_cancelled: CancelCheck) -> Tensor:
        """(B, z_channels, Y, X) -> (B, 3, d Y, d X), mostly in [-1, 1]."""
        x = self.conv_in(z)
        for stages in self.resolutions():
            for stage in stages.stages():
                check_cancelled()
                x = stage(x)
        x = self.conv_out(nn.functional.silu(self.norm_out(x)))
        return nn.functional.pixel_shuffle(x, self.patch) if self.patch > 1 else x

    @torch.no_grad()
    def decode_tiled(self, z: Tensor, check_cancelled: CancelCheck) -> Tensor:
        """Compute `forward` in tiles (`tiled_decode`), in the memory of two activations of the highest resolution."""
        return torch.cat([self._decode_sample(sample, check_cancelled) for sample in z.split(1)])

    def _decode_sample(self, z: Tensor, check_cancelled: CancelCheck) -> Tensor:
        x = tiled_convolution(self.conv_in, z, check_cancelled)
        for stages in self.resolutions():
            for stage in stages.stages():
                if isinstance(stage, Upsample):
                    x = tiled_upsample(stage.conv, x, check_cancelled)
                elif isinstance(stage, AttnBlock):
                    x = tiled_attention(stage, x, check_cancelled)
                else:
                    assert isinstance(stage, ResnetBlock)
                    x = tiled_resnet(stage, x, check_cancelled)
        x = tiled_head(self.norm_out, self.conv_out, x, check_cancelled)
        return nn.functional.pixel_shuffle(x, self.patch) if self.patch > 1 else x.contiguous()


class Autoencoder(nn.Module):
    """Encoder and decoder, and the scale and shift that normalise the latents for the transformer."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        if config.has_encoder:
            self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def encode(self, pixels: Tensor, check_cancelled: CancelCheck = never_cancelled) -> Tensor:
        """Return the normalised mean latents of images.

        pixels: (B, 3, Y, X) in [-1, 1]; Y and X are multiples of d. Returns (B, z_channels, Y / d, X / d). Raises
        `ValueError` if the autoencoder has no encoder.
        """
        if not self.config.has_encoder:
            raise ValueError("the autoencoder has no encoder")
        mean, _log_variance = self.encoder(pixels, check_cancelled).chunk(2, dim=1)
        return (mean - self.config.shift_factor) * self.config.scale_factor

    def decode(self, z: Tensor, check_cancelled: CancelCheck = never_cancelled) -> Tensor:
        """Return the images of normalised latents, mostly in [-1, 1] (not clamped).

        z: (B, z_channels, Y, X). Returns (B, 3, d Y, d X). Without gradients, images are decoded in tiles
        (`tiled_decode`).
        """
        z = z / self.config.scale_factor + self.config.shift_factor
        decode = self.decoder if torch.is_grad_enabled() else self.decoder.decode_tiled
        return decode(z, check_cancelled)

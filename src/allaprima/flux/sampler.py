"""The flow sampler: from noise to image in a few Euler steps.

Source: Liu et al. 2022 (2209.03003), eq. 1; black-forest-labs/flux `sampling.py`, `get_schedule` and `denoise`.

Dimension key: B batch, L image tokens, C latent values per token.
"""

from torch import Tensor


def schedule(steps: int) -> list[float]:
    """Return the steps + 1 times of the flow, evenly spaced from 1 (noise) to 0 (image); schnell has no shift."""
    return [1.0 - i / steps for i in range(steps)] + [0.0]


def euler_step(img: Tensor, velocity: Tensor, t: float, t_next: float) -> Tensor:
    """Move the latents along the flow from time t down to t_next, in float32.

    img, velocity: (B, L, C). Returns (B, L, C), float32.
    """
    return img.float() + (t_next - t) * velocity.float()


def velocity_to(x0: Tensor, img: Tensor, t: float) -> Tensor:
    """Return the velocity at `img`, time t, of the straight path that ends in the clean latents `x0` at time 0.

    x0, img: (B, L, C); t: in (0, 1]. Returns (B, L, C), float32. On the path img = (1 - t) x0 + t noise, so the
    velocity noise - x0 equals (img - x0) / t. Source: Li and He 2025 (2511.13720), who show why a network narrower than
    its tokens should predict the clean data.
    """
    return (img.float() - x0.float()) / t

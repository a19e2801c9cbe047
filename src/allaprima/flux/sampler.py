"""The flow sampler: Euler steps from noise to image.

Source: Liu et al. 2022 (2209.03003), eq. 1; black-forest-labs/flux `sampling.py`, `get_schedule` and `denoise`.

Dimension key: B batch, L image tokens, C latent values per token.
"""

from torch import Tensor


def schedule(steps: int) -> list[float]:
    """Return the steps + 1 times of the flow, evenly spaced from 1 (noise) to 0 (image). Schnell has no time shift."""
    return [1.0 - i / steps for i in range(steps)] + [0.0]


def euler_step(img: Tensor, velocity: Tensor, t: float, t_next: float) -> Tensor:
    """Integrate the flow from time t to t_next < t with one Euler step, in float32.

    img, velocity: (B, L, C), any floating-point dtype. Returns (B, L, C), float32.
    """
    return img.float() + (t_next - t) * velocity.float()


def velocity_to(x0: Tensor, img: Tensor, t: float) -> Tensor:
    """Return the velocity at time t of the straight path from `img` to the noise-free latents `x0` at time 0.

    x0, img: (B, L, C); t: in (0, 1]. Returns (B, L, C), float32. On the path, img = (1 - t) x0 + t noise, so the
    velocity noise - x0 equals (img - x0) / t. Source: Li and He 2025 (2511.13720), which shows why a narrow network
    should predict the clean data.
    """
    return (img.float() - x0.float()) / t

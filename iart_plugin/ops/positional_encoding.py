"""Sinusoidal encoding of sub-pixel positions (Eq. 7 and 18)."""

import math

import torch
from torch import Tensor

TEMPERATURE = 0.01
"""T of Eq. 18: the angular speeds run geometrically from 2 pi up to almost 2 pi / T^2."""


def sinusoidal_encoding(position: Tensor, channels: int) -> Tensor:
    r"""Encodes positions as sines and cosines of geometrically growing angular speed.

    Each axis has D = channels / 2 channels. Channel m of an axis with position s is the sine
    (m even) or cosine (m odd) of :math:`2 \pi s / T^{2 \lfloor m / 2 \rfloor / D}`. All channels of
    y come first, then all of x. This is Eq. 7 as the released program computes it; the paper gives
    the progression as :math:`\omega = T^{-D}`.

    Args:
        position: (..., 2) positions (y, x), normalised to about [0, 1]; float32 or float64, because
            half precision cannot represent the fastest angles.
        channels: the number of channels to encode into; even.

    Returns:
        (..., channels) encoding in [-1, 1], in ``position``'s dtype.

    Raises:
        ValueError: if ``channels`` is odd or not positive.
    """
    if channels <= 0 or channels % 2:
        raise ValueError(
            f"channels must be even and positive (half encode y, half x), got {channels}"
        )
    per_axis = channels // 2
    divisors = angle_divisors(per_axis, device=position.device, dtype=position.dtype)
    # Keep this order of operations: angles reach some hundreds of radians, where float32 has errors
    # of 1e-5, and another order would change the results by as much.
    angle = (position * (2 * math.pi)).unsqueeze(-1) / divisors  # (..., 2, per_axis)
    is_sine = torch.arange(per_axis, device=position.device) % 2 == 0
    return torch.where(is_sine, angle.sin(), angle.cos()).flatten(-2)


def angle_divisors(per_axis: int, *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Returns the (per_axis,) divisors of the angles of one axis, from 1 down to almost T^2."""
    index = torch.arange(per_axis, device=device)
    return TEMPERATURE ** (2 * (index // 2).to(dtype) / per_axis)

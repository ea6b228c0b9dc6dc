"""Backward warping with an explicit resampling (Eq. 1-5): nearest, bilinear, bicubic."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .constants import kept
from .precision import full_precision, wide_dtype
from .tracing import is_traced

MODES = ("nearest", "bilinear", "bicubic")
PADDINGS = ("zeros", "border")


def pixel_grid(height: int, width: int, *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Returns the (2, height, width) coordinates of every pixel, x then y."""
    y = torch.arange(height, device=device, dtype=dtype)
    x = torch.arange(width, device=device, dtype=dtype)
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack((grid_x, grid_y))


def per_axis(x: float, y: float, like: Tensor) -> Tensor:
    """Returns x and y as (1, 2, 1, 1) in ``like``'s dtype, on its device.

    The tensor is shared and must not be written to.
    """
    return kept(_per_axis, x, y, device=like.device, dtype=like.dtype)


def _per_axis(x: float, y: float, *, device: torch.device, dtype: torch.dtype) -> Tensor:
    # Filled on the device, because a copy from the host would wait for all of the GPU's work.
    values = torch.empty(1, 2, 1, 1, device=device, dtype=dtype)
    values[:, 0], values[:, 1] = x, y
    return values


def check_flow(x: Tensor, flow: Tensor) -> None:
    """Raises ValueError unless ``flow`` is (n, 2, h, w) for an ``x`` of (n, c, h, w)."""
    if x.dim() != 4 or flow.dim() != 4 or flow.shape[1] != 2:
        raise ValueError(
            f"expected features (n, c, h, w) and flow (n, 2, h, w), "
            f"got {tuple(x.shape)} and {tuple(flow.shape)}"
        )
    if x.shape[0] != flow.shape[0] or x.shape[2:] != flow.shape[2:]:
        raise ValueError(
            f"flow {tuple(flow.shape)} does not match features {tuple(x.shape)}: "
            f"batch, height and width must be equal"
        )


def without_nan(position: Tensor) -> tuple[Tensor, Tensor | None]:
    """Makes positions safe for PyTorch's samplers, which on a CPU would index memory by NaN.

    Args:
        position: (n, c, h, w).

    Returns:
        The positions with 0 for NaN; and the pixels with a NaN, (n, 1, h, w) bool, or None if there
        are none. Whoever samples writes NaN to these pixels, so that the NaN is noticed.
    """
    if position.device.type != "cpu" or is_traced(position) or not position.isnan().any():
        return position, None
    return position.nan_to_num(nan=0.0), position.isnan().any(1, keepdim=True)


def warp(x: Tensor, flow: Tensor, *, mode: str = "bilinear", padding: str = "zeros") -> Tensor:
    """Samples ``x`` at every pixel's position plus its flow (Eq. 2).

    Args:
        x: (n, c, h, w) reference frame or features.
        flow: (n, 2, h, w) displacements in pixels, x then y, from the current frame to ``x``.
        mode: 'nearest', 'bilinear' or 'bicubic' (Sec. 3.2; bicubic is Keys' with a = -0.75).
        padding: outside the frame, 'zeros' or the nearest pixel of the 'border'.

    Returns:
        (n, c, h, w) in ``x``'s dtype. Positions are computed in float32 at least. Pixels whose flow
        is NaN are NaN.

    Raises:
        ValueError: if a name is unknown or the shapes do not match.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {MODES}, got {mode!r}")
    if padding not in PADDINGS:
        raise ValueError(f"padding must be one of {PADDINGS}, got {padding!r}")
    check_flow(x, flow)
    height, width = x.shape[-2:]
    dtype = wide_dtype(x, flow)
    position = flow.to(dtype) + kept(pixel_grid, height, width, device=x.device, dtype=dtype)
    position, unknown = without_nan(position)
    # The released weights were trained with align_corners=True. It is undefined for a single row
    # or column; False samples the same points there.
    size = per_axis(width, height, position)
    if height > 1 and width > 1:
        grid, align_corners = 2 * position / (size - 1) - 1, True
    else:
        grid, align_corners = (2 * position + 1) / size - 1, False
    with full_precision(x.device):
        out = F.grid_sample(
            x.to(dtype),
            grid.permute(0, 2, 3, 1),
            mode=mode,
            padding_mode=padding,
            align_corners=align_corners,
        )
    if unknown is not None:
        out = out.masked_fill(unknown, torch.nan)
    return out.to(x.dtype)

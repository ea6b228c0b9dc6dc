"""Measures flicker without ground truth by the temporal warping error (Lai et al., ECCV 2018).

Each frame is compared with the next frame, warped to it by optical flow. Where nothing is occluded,
motion does not explain a difference that remains, so it is flicker. Blur lowers the error too.
Read it together with a measure of the quality of single frames.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from torch import Tensor

from iart_plugin.ops import pixel_grid, warp

SMALLEST_SIDE = 32
"""Pixels; OpenCV estimates no flow on smaller pictures."""


def estimate_flow(earlier: np.ndarray, later: np.ndarray) -> Tensor:
    """Estimates optical flow by OpenCV's dense inverse search (Kroeger et al., ECCV 2016).

    Args:
        earlier: (h, w, 3) RGB, uint8.
        later: a picture of the same size.

    Returns:
        (1, 2, h, w) displacements in pixels, x then y, from ``earlier`` to ``later``.

    Raises:
        ValueError: if the pictures are smaller than :data:`SMALLEST_SIDE`.
    """
    if min(earlier.shape[:2]) < SMALLEST_SIDE:
        height, width = earlier.shape[:2]
        raise ValueError(
            f"frames of {width}x{height} are too small for optical flow, which needs "
            f"{SMALLEST_SIDE}x{SMALLEST_SIDE}"
        )
    grey = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (earlier, later)]
    estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return torch.from_numpy(estimator.calc(*grey, None)).permute(2, 0, 1).unsqueeze(0)


def visible(forward: Tensor, backward: Tensor) -> Tensor:
    """Which pixels are seen in both frames: following the flow there and back returns to them.

    This is the criterion of Sundaram et al. (ECCV 2010), which Lai et al. use.

    Args:
        forward: (1, 2, h, w) flow from this frame to the other.
        backward: (1, 2, h, w) flow from the other frame to this one.

    Returns:
        (h, w) booleans.
    """
    back = warp(backward, forward, padding="border")
    gap = (forward + back).square().sum(1)
    motion = forward.square().sum(1) + back.square().sum(1)
    height, width = forward.shape[-2:]
    grid = pixel_grid(height, width, device=forward.device, dtype=forward.dtype)
    target = grid + forward[0]
    inside = (target[0] >= 0) & (target[0] <= width - 1)
    inside &= (target[1] >= 0) & (target[1] <= height - 1)
    return (gap <= 0.01 * motion + 0.5)[0] & inside


def warping_error(
    earlier: np.ndarray,
    later: np.ndarray,
    guides: tuple[np.ndarray, np.ndarray] | None = None,
) -> float:
    """The mean squared difference between a frame and the next frame warped to it.

    Args:
        earlier: (h, w, 3) RGB, uint8.
        later: the next frame.
        guides: two pictures of the same moments, of any size. The flow is estimated on them instead
            of on the frames, so that the results of several methods are compared with one flow.

    Returns:
        The error over all pixels that are seen in both frames, for values in [0, 1]; NaN if there
        is no such pixel.
    """
    first, second = guides or (earlier, later)
    forward, backward = estimate_flow(first, second), estimate_flow(second, first)
    size = earlier.shape[:2]
    forward, backward = _resized(forward, size), _resized(backward, size)
    this, other = (
        torch.from_numpy(frame).permute(2, 0, 1).unsqueeze(0) / 255 for frame in (earlier, later)
    )
    mask = visible(forward, backward)
    if not mask.any():
        return math.nan
    return float((this - warp(other, forward))[0, :, mask].square().mean())


def _resized(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a flow to another picture size, and scale its displacements accordingly."""
    height, width = flow.shape[-2:]
    if (height, width) == tuple(size):
        return flow
    flow = torch.nn.functional.interpolate(flow, size, mode="bilinear", align_corners=False)
    return flow * flow.new_tensor([size[1] / width, size[0] / height]).view(1, 2, 1, 1)

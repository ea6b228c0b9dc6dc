"""Converts ground-truth flow from the grid of the frames to that of the low-resolution frames."""

import numpy as np


def downsample_flow(
    flow: np.ndarray,
    scale: int,
    *,
    void: np.ndarray,
    hidden: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Convert ground-truth flow to the low-resolution grid.

    A low-resolution pixel stands for a block of ``scale`` x ``scale`` pixels. Its vector is the
    mean of the block's known vectors, divided by ``scale``, or zero if none is known. Rows and
    columns that do not fill a block are dropped.

    Args:
        flow: ``(h, w, 2)`` in high-resolution pixels. A vector that is not finite is unknown.
        scale: Factor between the grids.
        void: bool ``(h, w)``, True where the vector is not valid.
        hidden: bool ``(h, w)``, True where the next frame does not show the pixel.

    Returns:
        Flow ``(h // scale, w // scale, 2)`` float32 in low-resolution pixels, and a bool mask
        ``(h // scale, w // scale)``: True where at least half of the block has a match and the
        mean vector ends inside the frame.
    """
    height, width = (side // scale * scale for side in flow.shape[:2])
    flow = flow[:height, :width]
    known = np.isfinite(flow).all(axis=2) & ~void[:height, :width]
    matched = known & ~hidden[:height, :width]
    weight = known[..., None].astype(np.float64)
    total = block_mean(np.where(weight > 0, flow, 0.0), scale)
    low = total / np.maximum(block_mean(weight, scale), 1e-12) / scale
    low = low.astype(np.float32)
    valid = (block_mean(matched.astype(np.float64), scale) >= 0.5) & lands_inside(low)
    return low, valid


def block_mean(image: np.ndarray, scale: int) -> np.ndarray:
    """The mean of every block of ``scale`` x ``scale``: ``(h, w[, c])`` to ``(h / s, w / s[, c])``.

    ``scale`` must divide both sides.
    """
    height, width = (side // scale for side in image.shape[:2])
    blocks = image.reshape(height, scale, width, scale, *image.shape[2:])
    return blocks.mean(axis=(1, 3))


def lands_inside(flow: np.ndarray) -> np.ndarray:
    """Whether each vector of ``(h, w, 2)`` points into the frame, bool ``(h, w)``."""
    height, width = flow.shape[:2]
    x = np.arange(width)[None, :] + flow[..., 0]
    y = np.arange(height)[:, None] + flow[..., 1]
    # A pixel covers half a step on either side of its centre.
    return (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)

"""Prepares what TensorBoard shows of a validation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class SetLogger:
    """A TensorBoard writer for one of several validation sets; it adds the set's name to tags."""

    def __init__(self, writer: Any, name: str) -> None:
        self.writer = writer
        self.name = name

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Writes a figure, a metric under the data set's name."""
        self.writer.add_scalar(tag.replace("metrics/", f"metrics/{self.name}/", 1), value, step)


def side_by_side(visuals: dict[str, Tensor]) -> Tensor:
    """The middle frames of a clip, next to each other: input (nearest), output, ground truth.

    Args:
        visuals: ``lq`` (1, t, 3, h, w), ``result`` and perhaps ``gt`` (1, t, 3, 4h, 4w), or
            (1, 3, 4h, 4w) where only the centre frame is tested.

    Returns:
        (3, 4h, 8w or 12w), in [0, 1].
    """
    frames = []
    for name in ("lq", "result", "gt"):
        if name in visuals:
            clip = visuals[name][0]
            frames.append(clip[clip.shape[0] // 2] if clip.dim() == 4 else clip)
    size = frames[1].shape[-2:]
    frames[0] = nn.functional.interpolate(frames[0][None], size=size, mode="nearest")[0]
    return torch.cat(frames, dim=-1).float().clamp(0, 1)

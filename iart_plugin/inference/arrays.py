"""Moves pictures between main memory, where they are arrays, and a device's tensors."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def to_tensor(frames: list[np.ndarray], device: torch.device) -> Tensor:
    """Make a clip (1, t, 3, h, w), float32 in [0, 1], from (h, w, 3) uint8, uint16 or float."""
    stacked = np.stack(frames)
    peak = np.iinfo(stacked.dtype).max if stacked.dtype.kind == "u" else 1.0
    if device.type == "cuda" and stacked.dtype == np.uint8:
        # The copy from page-locked memory does not block, and uint8 is a quarter of float32's size.
        values = torch.from_numpy(stacked).pin_memory().to(device, non_blocking=True).float()
    else:
        values = torch.from_numpy(stacked.astype(np.float32)).to(device)
    return values.div_(peak).permute(0, 3, 1, 2)[None].contiguous()


def smaller(frame: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Reduce a picture (3, h, w) to a height and width without aliasing, on its device."""
    if size is None or tuple(frame.shape[-2:]) == size:
        return frame
    frame = frame.float()[None]
    return F.interpolate(frame, size, mode="bicubic", align_corners=False, antialias=True)[0]


class ArrayCopy:
    """Copies one upscaled picture to main memory.

    The picture is rounded on its device first, because 8-bit values are a quarter of the size to
    copy. A GPU copies it to page-locked memory while it works on the next picture.

    Args:
        frame: (3, h, w) in [0, 1].
        dtype: uint8, uint16 or a float type.
    """

    def __init__(self, frame: Tensor, dtype: np.dtype) -> None:
        self._dtype = dtype
        finite = frame.isfinite().all()
        frame = frame.float().clamp(0, 1).permute(1, 2, 0)
        if dtype.kind == "u":
            frame = (frame * np.iinfo(dtype).max).round_()
            frame = frame.to(torch.uint8 if dtype == np.uint8 else torch.int32)
        self._arrived: torch.cuda.Event | None = None
        if frame.device.type != "cuda":
            self._picture, self._finite = frame.cpu(), finite
            return
        self._picture, self._finite = (
            torch.empty(value.shape, dtype=value.dtype, pin_memory=True).copy_(
                value, non_blocking=True
            )
            for value in (frame, finite)
        )
        self._arrived = torch.cuda.Event()
        self._arrived.record(torch.cuda.current_stream(frame.device))

    def result(self) -> np.ndarray | None:
        """Wait for the picture (h, w, 3); None if it has values that are not finite."""
        if self._arrived is not None:
            self._arrived.synchronize()
        if not bool(self._finite):
            return None
        return np.ascontiguousarray(self._picture.numpy().astype(self._dtype, copy=False))

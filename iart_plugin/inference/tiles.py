"""Cuts frames into overlapping tiles and puts their results together without visible seams.

At a tile's border a network sees padding instead of picture, and its result is worse there. In the
overlap of two tiles the outermost quarter of each tile gets almost no weight, and the rest is
blended.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

GRID = 8
"""Tiles start at multiples of this, so that attention windows lie as they do in a whole frame."""


@dataclass(frozen=True)
class Tiling:
    """How frames are cut into overlapping tiles.

    Attributes:
        size: The largest height and width of a tile, in low-resolution pixels. If it is at least
            the frame's, there is one tile.
        overlap: The fewest low-resolution pixels that neighbouring tiles share.
    """

    size: tuple[int, int]
    overlap: int

    def __post_init__(self) -> None:
        if self.overlap < 0 or min(self.size) < 1:
            raise ValueError(f"tiles of {self.size} sharing {self.overlap} do not work")

    def boxes(self, height: int, width: int) -> list[tuple[slice, slice]]:
        """The rows and columns of each tile of a frame, evenly spread.

        Raises:
            ValueError: The frame must be cut, but the overlap is as large as a tile.
        """
        rows = _spread(height, self.size[0], self.overlap)
        columns = _spread(width, self.size[1], self.overlap)
        return [(r, c) for r in rows for c in columns]

    def count(self, height: int, width: int) -> int:
        """The number of tiles in a frame."""
        return len(self.boxes(height, width))

    def turned(self) -> Tiling:
        """The same tiles for a frame that was turned by 90 degrees."""
        return Tiling((self.size[1], self.size[0]), self.overlap)

    @classmethod
    def of_counts(cls, height: int, width: int, counts: tuple[int, int], overlap: int) -> Tiling:
        """The smallest tiles with which ``counts``, (rows, columns) of tiles, cover a frame."""
        size = (_side(height, counts[0], overlap), _side(width, counts[1], overlap))
        return cls(size, overlap)

    def halved(self, height: int, width: int, *, smallest: int) -> Tiling | None:
        """Cut the tiles' longer side in two; None if the new tiles would be too small."""
        counts = [
            len(_spread(length, side, self.overlap))
            for length, side in zip((height, width), self.size, strict=True)
        ]
        shown = (min(self.size[0], height), min(self.size[1], width))
        axis = 0 if shown[0] > shown[1] else 1
        counts[axis] *= 2
        finer = Tiling.of_counts(height, width, (counts[0], counts[1]), self.overlap)
        side = finer.size[axis]
        if side >= shown[axis] or side < max(smallest, 2 * self.overlap):
            return None
        kept = 1 - axis  # the other side keeps its length
        size = (side, shown[kept]) if axis == 0 else (shown[kept], side)
        return Tiling(size, self.overlap)


def _side(length: int, count: int, overlap: int) -> int:
    """The side with which ``count`` tiles that start on the grid cover ``length`` pixels."""
    shared = ceil(overlap / GRID) * GRID
    return length if count == 1 else ceil((length - shared) / count / GRID) * GRID + shared


def _spread(length: int, size: int, overlap: int) -> list[slice]:
    """Slices that start on the grid, are at most ``size`` long, and reach the end of ``length``."""
    if size >= length:
        return [slice(0, length)]
    if size <= overlap:
        raise ValueError(
            f"tiles of {size} pixels that overlap by {overlap} do not work: the overlap must be "
            "smaller than a tile, and is best at most half of it"
        )
    grid = GRID if size - overlap >= GRID else 1
    stride = (size - overlap) // grid * grid
    last = -(-(length - size) // grid) * grid
    steps = ceil(last / stride)
    starts = [i * last // steps // grid * grid for i in range(steps + 1)]
    return [slice(s, min(s + size, length)) for s in starts]


class Blend:
    """Puts the tiles of a clip's frames together, tile after tile.

    Args:
        tiling: The tiles.
        height: Low-resolution height of a frame.
        width: Low-resolution width of a frame.
        scale: High-resolution pixels per low-resolution pixel, along each side.
    """

    def __init__(self, tiling: Tiling, height: int, width: int, scale: int) -> None:
        self._tiling, self._size, self._scale = tiling, (height, width), scale
        self._weight = torch.zeros(height * scale, width * scale)
        self._frames: dict[int, Tensor] = {}

    def begin(self, box: tuple[slice, slice]) -> None:
        """Begin a tile: the next calls of :meth:`add` give the frames of this tile."""
        vertical, horizontal = (
            _weights(span, length, self._tiling.overlap, self._scale)
            for span, length in zip(box, self._size, strict=True)
        )
        self._at = tuple(slice(s.start * self._scale, s.stop * self._scale) for s in box)
        self._mask = vertical[:, None] * horizontal
        self._weight[self._at] += self._mask

    def add(self, index: int, tile: Tensor) -> None:
        """Add the current tile of frame ``index``: (3, tile h, tile w), float32 on the CPU."""
        if index not in self._frames:
            self._frames[index] = torch.zeros(tile.shape[0], *self._weight.shape)
        self._frames[index][(..., *self._at)] += tile * self._mask

    def result(self) -> Iterator[Tensor]:
        """Yield the frames (3, h, w) in order, and free the memory of each as it is taken."""
        for index in sorted(self._frames):
            yield self._frames.pop(index).div_(self._weight)


def _weights(span: slice, length: int, overlap: int, scale: int) -> Tensor:
    """Weights along an axis of a tile: 1 inside, falling smoothly to almost 0 at a neighbour."""
    weights = torch.ones((span.stop - span.start) * scale)
    # No weight is exactly 0, because with a very small overlap a pixel could then have none at all.
    ramp = torch.tensor(list(_ramp(overlap * scale))).clamp_(min=1e-6)
    if ramp.numel() and span.start > 0:
        weights[: ramp.numel()] = ramp
    if ramp.numel() and span.stop < length:
        weights[-ramp.numel() :] *= ramp.flip(0)
    return weights


def _ramp(length: int) -> Iterator[float]:
    margin = length // 4
    inner = length - 2 * margin
    for i in range(length):
        x = min(max((i - margin + 0.5) / inner, 0.0), 1.0)
        yield x * x * (3 - 2 * x)

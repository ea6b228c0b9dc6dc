"""Finds out what is wrong with pairs of low-resolution and ground-truth frames.

Opening the files shows which are missing, unreadable or of mismatched sizes. Comparing the
low-resolution frame with the reduced ground truth shows a wrong kernel, a shift or a wrong frame.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from iart_plugin.pictures import checked_size, read_picture

from .degradation import bicubic_downsample
from .preparation import DEGRADATIONS

# Rounding to 8 bits alone gives 59 dB; another implementation of the same kernel gives over 45 dB.
SAME_KERNEL_DB = 42.0
MAX_SHIFT = 6  # high-resolution pixels


class FramePair(NamedTuple):
    """One ground-truth frame and its low-resolution counterpart, as files."""

    gt: Path
    lq: Path


class Comparison(NamedTuple):
    """How a low-resolution frame was most probably made from its ground truth.

    Attributes:
        degradation: a name in :data:`iart_plugin.data.preparation.DEGRADATIONS`.
        shift: (rows, columns) in high-resolution pixels by which the ground truth is moved.
        psnr: PSNR in dB of the low-resolution frame and the reduced ground truth; inf if they are
            equal.
    """

    degradation: str
    shift: tuple[int, int]
    psnr: float

    @property
    def explained(self) -> bool:
        """Whether this degradation, without a shift, gives the low-resolution frame."""
        return self.psnr >= SAME_KERNEL_DB and self.shift == (0, 0)


def missing_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the files that do not exist.

    Each folder is listed only once, which is faster than checking every file.
    """
    listed: dict[Path, set[str]] = {}
    for path in paths:
        folder = path.parent
        if folder not in listed:
            there = folder.is_dir()
            listed[folder] = {entry.name for entry in folder.iterdir()} if there else set()
        if path.name not in listed[folder]:
            yield path


def check_sizes(pair: FramePair, scale: int) -> tuple[int, int]:
    """Read both frames through and compare their sizes.

    Returns:
        The ground truth's (height, width).

    Raises:
        ValueError: if one is unreadable, or the ground truth is not ``scale`` times as large.
    """
    (gt_h, gt_w), (lq_h, lq_w) = checked_size(pair.gt), checked_size(pair.lq)
    if (gt_h, gt_w) != (scale * lq_h, scale * lq_w):
        raise ValueError(
            f"{pair.gt} is {gt_w}x{gt_h} and {pair.lq} is {lq_w}x{lq_h} (width x height); "
            f"at scale {scale} they do not match."
        )
    return gt_h, gt_w


def compare(pair: FramePair, scale: int = 4) -> Comparison:
    """Find out by which degradation a low-resolution frame was made from its ground truth.

    Raises:
        ValueError: if a frame cannot be read.
    """
    gt, lq = read_picture(pair.gt), read_picture(pair.lq)
    found = [
        Comparison(name, (0, 0), _psnr(lq, reduce(gt, scale)))
        for name, reduce in DEGRADATIONS.items()
    ]
    best = max(found, key=lambda comparison: comparison.psnr)
    return best if best.explained else max([best, _find_shift(gt, lq, scale)], key=lambda c: c.psnr)


def _find_shift(gt: np.ndarray, lq: np.ndarray, scale: int) -> Comparison:
    """The shift of the ground truth whose bicubic reduction is nearest to the frame."""
    border = -(-MAX_SHIFT // scale)
    inner = (slice(border, -border), slice(border, -border))
    best = Comparison("BI", (0, 0), 0.0)
    for dy in range(-MAX_SHIFT, MAX_SHIFT + 1):
        for dx in range(-MAX_SHIFT, MAX_SHIFT + 1):
            reduced = bicubic_downsample(np.roll(gt, (-dy, -dx), (0, 1)), scale)
            psnr = _psnr(lq[inner], reduced[inner])
            if psnr > best.psnr:
                best = Comparison("BI", (dy, dx), psnr)
    return best


def even_sample(items: Sequence, count: int) -> list:
    """At most ``count`` of ``items``, evenly spaced, including the first and the last."""
    if len(items) <= count:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]


def _psnr(one: np.ndarray, two: np.ndarray) -> float:
    mse = np.mean((one.astype(np.float64) - two) ** 2) if one.size else np.inf
    return float("inf") if mse == 0 else float(10 * np.log10(255**2 / mse))

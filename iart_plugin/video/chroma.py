"""Resamples chroma planes between their own size and the size of luma.

Both directions work on strips (:mod:`.strips`) and read a few rows above and below a strip. Beyond
a picture's edges, the samples at the edge count.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from .strips import Scratch

_ONE, _BORDER = np.ones(1, np.float32), cv2.BORDER_REPLICATE


def enlarged_rows(
    plane: np.ndarray,
    top: int,
    factors: tuple[int, int],
    centred: bool,
    out: np.ndarray,
    scratch: Scratch,
) -> None:
    """Write a strip of a chroma plane at the size of luma, by cubic interpolation.

    Args:
        plane: The whole chroma plane (h', w').
        top: The strip's first row at the size of luma, divisible by 4.
        factors: Luma samples per chroma sample, down and across: 1, 2 or 4.
        centred: Whether chroma samples lie midway between luma columns, and not at the left one.
        out: Where to write, float32: (rows, down, w', across). These are the strip's pixels, and
            perhaps a few beyond its bottom and right edge.
        scratch: For passing results.
    """
    down, across = factors
    first, rows = top // down, len(out)
    if down == across == 1:
        out[:, 0, :, 0] = plane[top : top + rows]
        return
    above = min(first, 2)
    part = plane[first - above : first + rows + 2]
    samples = scratch("chroma", *part.shape)
    np.copyto(samples, part)
    for row, (vertical, y) in enumerate(_between(down, centred=True)):
        phases = []
        for column, (horizontal, x) in enumerate(_between(across, centred)):
            phase = scratch(column, *part.shape)
            cv2.sepFilter2D(samples, -1, horizontal, vertical, phase, (x, y), 0, _BORDER)
            phases.append(phase[above : above + rows])
        cv2.merge(phases, out[:, row])


def with_margin(
    rgb: np.ndarray, top: int, rows: int, down: int, scratch: Scratch
) -> tuple[np.ndarray, int]:
    """Rows of a picture, complete for :func:`reduced_rows`.

    Args:
        rgb: The whole picture.
        top: The first row, divisible by ``down``.
        rows: How many there are, divisible by ``down``.
        down: Luma rows per chroma row.
        scratch: For the result.

    Returns:
        The rows as float32, with a margin above and below, and the height of the margin.
    """
    margin = 2 * down if down > 1 else 0
    rows = min(rows, -(-(len(rgb) - top) // down) * down)
    wanted = np.arange(top - margin, top + rows + margin)
    part = scratch("part", len(wanted), *rgb.shape[1:])
    if wanted[0] >= 0 and wanted[-1] < len(rgb):
        np.copyto(part, rgb[wanted[0] : wanted[-1] + 1])
    else:
        np.copyto(part, rgb[wanted.clip(0, len(rgb) - 1)])
    return part, margin


def reduced_rows(samples: np.ndarray, factors: tuple[int, int], scratch: Scratch) -> np.ndarray:
    """Samples at the size of their chroma plane, through a cubic low-pass filter.

    Args:
        samples: (h, w) float32, with the margin of :func:`with_margin`.
        factors: Luma samples per chroma sample, down and across: 1, 2 or 4.
        scratch: For the result.
    """
    down, across = factors
    if down > 1:
        taps, reach = _low_pass(down, centred=True)
        start, rows = 2 * down - reach, len(samples) // down - 4
        total = scratch("rows", rows, samples.shape[1])
        total.fill(0)
        for place, tap in enumerate(taps, start):
            cv2.scaleAdd(samples[place : place + down * rows : down], float(tap), total, total)
        samples = total
    if across > 1:
        taps, reach = _low_pass(across, centred=False)
        filtered = scratch("columns", *samples.shape)
        cv2.sepFilter2D(samples, -1, taps, _ONE, filtered, (reach, 0), 0, _BORDER)
        samples = scratch("reduced", len(samples), -(-samples.shape[1] // across))
        np.copyto(samples, filtered[:, ::across])
    return samples


@lru_cache
def _between(factor: int, centred: bool) -> list[tuple[np.ndarray, int]]:
    """Filter taps that give the values at each of ``factor`` places from a sample on.

    The taps are those of Keys' cubic convolution with -0.75, as OpenCV's. With each filter comes
    the index of its tap at the sample itself.
    """
    filters = []
    for place in np.arange(factor) / factor + ((0.5 / factor - 0.5) if centred else 0):
        taps = _cubic(np.arange(-2, 3) - place, -0.75)
        used = np.flatnonzero(taps)
        taps = taps[used[0] : used[-1] + 1]
        filters.append((taps.astype(np.float32), int(2 - used[0])))
    return filters


@lru_cache
def _low_pass(factor: int, *, centred: bool) -> tuple[np.ndarray, int]:
    """Filter taps for reduction by ``factor``, and the index of the tap at the sample itself."""
    places = np.arange(1 - 2 * factor, 2 * factor + (factor - 1 if centred else 0))
    taps = _cubic((places - ((factor - 1) / 2 if centred else 0)) / factor, -0.5)
    return (taps / taps.sum()).astype(np.float32), 2 * factor - 1


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel (1981) with the parameter ``a``."""
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))

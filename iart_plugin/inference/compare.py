"""Before and after in one picture: the source enlarged with bicubic beside the result."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from iart_plugin.png_files import write_png

from .colour import MATRIX_RGB, SRGB_AS_VIDEO, Colour
from .encoding import Encoding, choose_encoding, container_of
from .engine import SCALE
from .muxing import assemble
from .options import UpscaleOptions
from .reader import ImageSource, VideoInfo, VideoSource, open_source, to_dtype
from .writer import VideoSegment

SWEEP_SECONDS = 4  # from one edge to the other and back


def write_comparison(options: UpscaleOptions, result: Path) -> Path:
    """Write ``RESULT.compare.mp4`` (its own container for a video) and ``RESULT.compare.png``.

    Args:
        options: Of the run; its input is read again. ``compare`` is "side" by side, or a dividing
            line that "slide"s across the picture.
        result: What the run wrote.

    Returns:
        The video's path. The PNG beside it shows the frame in the middle.
    """
    rate = options.fps if result.is_dir() else None
    with (
        closing(open_source(options.input, rate=options.fps)) as before,
        closing(open_source(result, rate=rate)) as after,
    ):
        return _write(options, result, before, after)


def _write(
    options: UpscaleOptions,
    result: Path,
    before: VideoSource | ImageSource,
    after: VideoSource | ImageSource,
) -> Path:
    path = comparison_path(result, to_images=result.is_dir())
    info = after.info
    encoding = comparison_encoding(options, path, before.info, info.colour)
    packets = path.with_name(path.name + ".packets")
    unfinished = path.with_name(f"{path.stem}.unfinished{path.suffix}")
    segment = VideoSegment(packets, encoding)
    middle = (info.frames or 1) // 2
    try:
        for low, high in zip_longest(before, after):
            if low is None or high is None:
                break
            seconds = Fraction(low.index) / before.info.rate
            position = _sweep(float(seconds))
            picture = combine(low.rgb, high.rgb, options.compare, position=position)
            segment.write(low, picture)
            if low.index <= middle:
                still = combine(low.rgb, high.rgb, options.compare, position=0.5)
        segment.close()
        assemble([packets], encoding, unfinished)
        unfinished.replace(path)
    finally:
        segment.abort()
        for leftover in (packets, unfinished):
            leftover.unlink(missing_ok=True)
    write_png(path.with_suffix(".png"), still)
    return path


def comparison_path(result: Path, *, to_images: bool) -> Path:
    """The comparison video's path, of a result in one file or in images."""
    return result.with_name(f"{result.stem}.compare{'.mp4' if to_images else result.suffix}")


def comparison_encoding(
    options: UpscaleOptions, path: Path, before: VideoInfo, colour: Colour
) -> Encoding:
    """How a comparison is written.

    Args:
        options: Of the run.
        path: Where to.
        before: The source.
        colour: The result's tags.
    """
    both = before if options.compare == "slide" else replace(before, width=before.width * 2)
    if colour.matrix == MATRIX_RGB:
        colour = SRGB_AS_VIDEO
    # The container's usual encoder, to which another's numbers mean nothing.
    quality = {} if options.codec else {"crf": options.crf, "preset": options.preset}
    return choose_encoding(both, container_of(path), colour, scale=SCALE, **quality)


def combine(
    low: np.ndarray, high: np.ndarray, mode: Literal["side", "slide"], *, position: float
) -> np.ndarray:
    """One picture of two.

    Args:
        low: (h, w, 3).
        high: (4h, 4w, 3).
        mode: "side": (4h, 8w, 3); "slide": (4h, 4w, 3), the low one left of a white line.
        position: Of the line, 0 to 1.
    """
    height, width = high.shape[:2]
    large = cv2.resize(low, (width, height), interpolation=cv2.INTER_CUBIC)
    large = to_dtype(large, high.dtype)
    if mode == "side":
        return np.concatenate([large, high], axis=1)
    column = min(max(round(position * width), 0), width)
    out = high.copy()
    out[:, :column] = large[:, :column]
    out[:, max(column - 1, 0) : column + 1] = np.iinfo(high.dtype).max
    return out


def _sweep(seconds: float) -> float:
    """Goes 0 to 1 and back, smoothly."""
    return 0.5 - 0.5 * float(np.cos(2 * np.pi * seconds / SWEEP_SECONDS))

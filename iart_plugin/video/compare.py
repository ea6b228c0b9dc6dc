"""Shows before and after in one picture: the source, enlarged with bicubic, and the result."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from iart_plugin.files import AtomicFile
from iart_plugin.pictures import write_png

from .colour import MATRIX_RGB, SRGB_AS_VIDEO, Colour
from .encoding import Encoding, choose_encoding, container_of
from .muxing import assemble
from .reader import ImageSource, VideoInfo, VideoSource, open_source, to_dtype
from .writer import VideoSegment

Mode = Literal["side", "slide"]
SWEEP_SECONDS = 4  # from one edge to the other and back


def write_comparison(
    source: str,
    result: Path,
    mode: Mode,
    *,
    rate: Fraction | None = None,
    quality: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``RESULT.compare.mp4`` and ``RESULT.compare.png``.

    If the result is a video, its comparison has the same suffix as the result instead of ``.mp4``.

    Args:
        source: The video or the images that were upscaled; they are read again.
        result: The upscaled video or folder of images.
        mode: "side" by side, or a dividing line that "slide"s across the picture.
        rate: Frames a second, if the source is images.
        quality: ``crf`` and ``preset`` of the comparison's encoder.

    Returns:
        The video's path. The PNG beside it shows the frame in the middle.
    """
    with (
        closing(open_source(source, rate=rate)) as before,
        closing(open_source(result, rate=rate if result.is_dir() else None)) as after,
    ):
        return _write(result, before, after, mode, quality or {})


def _write(
    result: Path,
    before: VideoSource | ImageSource,
    after: VideoSource | ImageSource,
    mode: Mode,
    quality: Mapping[str, Any],
) -> Path:
    path = comparison_path(result, to_images=result.is_dir())
    info = after.info
    scale = info.width // before.info.width
    encoding = comparison_encoding(path, before.info, info.colour, mode, scale, quality)
    packets = AtomicFile(path).temporary
    segment = VideoSegment(packets, encoding)
    middle = (info.frames or 1) // 2
    try:
        for low, high in zip_longest(before, after):
            if low is None or high is None:
                break
            seconds = Fraction(low.index) / before.info.rate
            position = _sweep(float(seconds))
            picture = combine(low.rgb, high.rgb, mode, position=position)
            segment.write(low, picture)
            if low.index <= middle:
                still = combine(low.rgb, high.rgb, mode, position=0.5)
        segment.close()
        with AtomicFile(path) as unfinished:
            assemble([packets], encoding, unfinished)
    finally:
        segment.abort()
        packets.unlink(missing_ok=True)
    write_png(path.with_suffix(".png"), still)
    return path


def comparison_path(result: Path, *, to_images: bool) -> Path:
    """The path of the comparison video for a result that is one file or a folder of images."""
    return result.with_name(f"{result.stem}.compare{'.mp4' if to_images else result.suffix}")


def comparison_encoding(
    path: Path,
    before: VideoInfo,
    colour: Colour,
    mode: Mode,
    scale: int,
    quality: Mapping[str, Any],
) -> Encoding:
    """How a comparison is encoded.

    Args:
        path: The file to write.
        before: The source.
        colour: The result's tags.
        mode: "side" or "slide".
        scale: How many times larger the result is than the source.
        quality: ``crf`` and ``preset`` of the encoder.
    """
    both = before if mode == "slide" else replace(before, width=before.width * 2)
    if colour.matrix == MATRIX_RGB:
        colour = SRGB_AS_VIDEO
    return choose_encoding(both, container_of(path), colour, scale=scale, **quality)


def combine(low: np.ndarray, high: np.ndarray, mode: Mode, *, position: float) -> np.ndarray:
    """Make one picture from two.

    Args:
        low: (h, w, 3).
        high: (4h, 4w, 3).
        mode: "side" gives (4h, 8w, 3). "slide" gives (4h, 4w, 3), where ``low`` is to the left of
            a white line.
        position: The line's position, 0 (left edge) to 1 (right edge).
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

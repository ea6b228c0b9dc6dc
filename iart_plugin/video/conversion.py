"""Exact conversion between the samples of a video and R'G'B'.

The equations are those of ITU-T H.273 (8-5 and following), computed in float32 and rounded once.
libswscale only repacks samples here and never changes them: its own conversion of 8-bit full-range
video makes both chroma planes half a level too low.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

import av
import cv2
import numpy as np

from .colour import JPEG_RANGE, MATRIX_RGB, Colour, pixel_depth

# H.273 matrix coefficients: the code -> (K_R, K_B).
_LUMA_WEIGHTS = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
    10: (0.2627, 0.0593),
}
_PLANAR = re.compile(
    r"(?:yuv|yuvj|yuva)(444|440|422|420|411|410)p(\d+le)?|gbrp(\d+le)?|gray(\d+le)?"
)
_STRIP = 64  # rows that are converted at a time: few enough for a processor's cache
_REACH = 16  # the filters reach at most this many rows beyond a strip; divisible by subsamplings
_PLANAR_DEPTHS = (8, 9, 10, 12, 14, 16)


@dataclass(frozen=True)
class _Layout:
    """How the planes of a planar format are read: what they hold, and in how many bits."""

    kind: Literal["yuv", "rgb", "grey"]
    depth: int
    across: int = 1  # luma samples per chroma sample, horizontally; `down`: vertically
    down: int = 1

    @property
    def highest(self) -> int:
        """The largest code."""
        return 2**self.depth - 1

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.uint8 if self.depth <= 8 else "<u2")


def _layout(name: str) -> _Layout | None:
    """The layout of a planar format of whole samples; None for any other format."""
    if not _PLANAR.fullmatch(name):
        return None
    kind = {"y": "yuv", "g": "rgb"}[name[0]] if not name.startswith("gray") else "grey"
    fmt = av.VideoFormat(name, 64, 64)
    if kind != "yuv":
        return _Layout(kind, pixel_depth(name))
    chroma = fmt.components[1]
    return _Layout(kind, pixel_depth(name), 64 // chroma.width, 64 // chroma.height)


def planar_format(name: str) -> str:
    """The planar format that holds a pixel format's samples unchanged, without transparency."""
    if _layout(name):
        return name
    fmt = av.VideoFormat(name, 64, 64)
    bits = next((d for d in _PLANAR_DEPTHS if d >= pixel_depth(name)), 16)
    deep = "" if bits == 8 else f"{bits}le"
    if fmt.is_rgb or fmt.has_palette:
        return f"gbrp{deep}"
    if len(fmt.components) < 3:
        return f"gray{deep}"
    chroma = fmt.components[1]
    sampling = {(64, 64): 444, (64, 32): 440, (32, 64): 422, (16, 64): 411, (16, 16): 410}
    return f"yuv{sampling.get((chroma.width, chroma.height), 420)}p{deep}"


class _Repacker:
    """Changes how samples are stored, and nothing else."""

    def __init__(self, target: str, colour: Colour) -> None:
        self._target = target
        name = "pc" if colour.range == JPEG_RANGE else "tv"
        # Without these options the filter guesses the output's range, and may convert the samples.
        self._options = f"in_range={name}:out_range={name}"
        if colour.matrix != MATRIX_RGB:
            self._options += ":in_color_matrix=bt709:out_color_matrix=bt709"
        self._graph: av.filter.Graph | None = None
        self._key: tuple[int, int, str] | None = None

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        if frame.format.name == self._target:
            return frame
        key = (frame.width, frame.height, frame.format.name)
        if self._key != key:
            self._graph, self._key = self._build(*key), key
        frame.pts, frame.time_base = 0, Fraction(1)
        self._graph.vpush(frame)
        return self._graph.vpull()

    def _build(self, width: int, height: int, source: str) -> av.filter.Graph:
        graph = av.filter.Graph()
        size = f"video_size={width}x{height}:pix_fmt={source}:time_base=1/1:pixel_aspect=1/1"
        graph.link_nodes(
            graph.add("buffer", size),
            graph.add("scale", f"flags=accurate_rnd+full_chroma_int+bitexact:{self._options}"),
            graph.add("format", self._target),
            graph.add("buffersink"),
        ).configure()
        return graph


class ToRGB:
    """Decoded frames to R'G'B' arrays.

    Args:
        colour: Resolved tags of the video.
        centred: Whether chroma samples of 4:2:0 lie midway between luma columns, as in JPEG and
            MPEG-1. In all later codecs they lie at the left luma sample's column.

    Raises:
        ValueError: The matrix is not linear in R'G'B' or not supported (ICtCp, chromaticity-derived
            matrices).
    """

    def __init__(self, colour: Colour, *, centred: bool = False) -> None:
        self._colour, self._centred = colour, centred
        self._repack: dict[str, _Repacker] = {}
        if colour.matrix != MATRIX_RGB:
            _weights(colour)

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """(h, w, 3) uint8; or uint16, full range, if the source has more than 8 bits."""
        name = planar_format(frame.format.name)
        if name not in self._repack:
            self._repack[name] = _Repacker(name, self._colour)
        layout = _layout(name)
        planes = _plane_views(self._repack[name](frame), layout)
        white = 255 if layout.depth <= 8 else 65535
        if layout.kind == "rgb":
            stored = np.dstack([planes[2], planes[0], planes[1]])
            if layout.depth in (8, 16):
                return stored
            return _rounded(stored.astype(np.float32) * (white / layout.highest), white)
        offsets, scales = _codes(self._colour, layout.depth)
        if layout.kind == "grey":
            grey = (planes[0].astype(np.float32) - offsets[0]) * (white / scales[0])
            return np.repeat(_rounded(grey, white)[..., None], 3, 2)
        size = planes[0].shape
        chroma = [_enlarged(p.astype(np.float32), size, layout, self._centred) for p in planes[1:]]
        samples = cv2.merge([planes[0].astype(np.float32), *chroma])
        matrix = white * np.linalg.inv(_rgb_to_ycc(self._colour)) / scales
        return _rounded(cv2.transform(samples, _affine(matrix, -matrix @ offsets)), white)


class FromRGB:
    """R'G'B' arrays to frames for an encoder, the inverse of :class:`ToRGB`.

    Chroma samples of 4:2:0 lie at the left luma sample's column: :data:`CHROMA_LOCATION`.

    Args:
        pix_fmt: The encoder's pixel format.
        colour: Resolved tags of the output; the matrix is ignored where ``pix_fmt`` is RGB.

    Raises:
        ValueError: As :class:`ToRGB`.
    """

    def __init__(self, pix_fmt: str, colour: Colour) -> None:
        self.colour = colour
        self._planar = planar_format(pix_fmt)
        self._layout = _layout(self._planar)
        if self._layout.kind == "rgb":
            self.colour = replace(colour, matrix=MATRIX_RGB, range=JPEG_RANGE)
        else:
            _weights(colour)
        self._repack = _Repacker(pix_fmt, self.colour)

    def __call__(self, rgb: np.ndarray) -> av.VideoFrame:
        """A frame in the encoder's format, tagged; ``rgb`` is (h, w, 3) uint8 or uint16."""
        frame = self._planar_frame(rgb)
        frame = self._repack(frame)
        frame.colorspace = self.colour.matrix
        frame.color_range = self.colour.range
        frame.color_primaries = self.colour.primaries
        frame.color_trc = self.colour.transfer
        return frame

    def planes(self, rgb: np.ndarray) -> list[np.ndarray]:
        """The samples of the planar form of the encoder's format, each plane (h', w')."""
        return _plane_views(self._planar_frame(rgb), self._layout)

    def _planar_frame(self, rgb: np.ndarray) -> av.VideoFrame:
        height, width = rgb.shape[:2]
        frame = av.VideoFrame(width, height, self._planar)
        planes = _plane_views(frame, self._layout)
        with ThreadPoolExecutor(max(1, cv2.getNumThreads())) as pool:
            list(pool.map(lambda top: self._fill(planes, rgb, top), range(0, height, _STRIP)))
        return frame

    def _fill(self, planes: list[np.ndarray], rgb: np.ndarray, top: int) -> None:
        """Convert one strip of ``rgb``, which starts at row ``top``, and write it to the planes."""
        layout, bottom = self._layout, top + _STRIP
        if layout.kind == "rgb":
            for plane, channel in zip(planes, (1, 2, 0), strict=True):
                plane[top:bottom] = self._scaled(rgb[top:bottom, :, channel])
            return
        # The low-pass filter of chroma also reads rows above and below the strip.
        above = min(top, _REACH)
        part = rgb[top - above : bottom + _REACH].astype(np.float32)
        offsets, scales = _codes(self.colour, layout.depth)
        matrix = _rgb_to_ycc(self.colour) * scales[:, None] / np.iinfo(rgb.dtype).max
        luma = cv2.transform(part[above : above + _STRIP], _affine(matrix, offsets)[:1])
        planes[0][top:bottom] = _rounded(luma, layout.highest)
        if layout.kind == "grey":
            return
        chroma = _reduced(cv2.transform(part, _affine(matrix, offsets)[1:]), layout)
        first, last = top // layout.down, -(-bottom // layout.down)
        chroma = chroma[above // layout.down :][: last - first]
        for plane, channel in zip(
            planes[1:], cv2.split(_rounded(chroma, layout.highest)), strict=True
        ):
            plane[first:last] = channel

    def _scaled(self, samples: np.ndarray) -> np.ndarray:
        white, highest = np.iinfo(samples.dtype).max, self._layout.highest
        if white == highest:
            return samples
        return _rounded(samples.astype(np.float32) * (highest / white), highest)


CHROMA_LOCATION = "left"
"""FFmpeg's name for the position at which :class:`FromRGB` puts the chroma samples of 4:2:0."""


def _weights(colour: Colour) -> tuple[float, float]:
    try:
        return _LUMA_WEIGHTS[colour.matrix]
    except KeyError:
        raise ValueError(
            f"matrix coefficients {colour.matrix} (ITU-T H.273) cannot be converted to RGB here; "
            f"convert the video to one of {sorted(_LUMA_WEIGHTS)} first"
        ) from None


def _rgb_to_ycc(colour: Colour) -> np.ndarray:
    """The 3x3 matrix from R'G'B' to E'Y, E'PB, E'PR: luma in [0, 1], chroma in [-0.5, 0.5]."""
    red, blue = _weights(colour)
    luma = np.array([red, 1 - red - blue, blue])
    blue_minus_luma = (np.array([0, 0, 1]) - luma) / (2 * (1 - blue))
    red_minus_luma = (np.array([1, 0, 0]) - luma) / (2 * (1 - red))
    return np.stack([luma, blue_minus_luma, red_minus_luma])


def _codes(colour: Colour, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """The codes that stand for 0, and the codes per unit, of luma and both chroma components."""
    if colour.range == JPEG_RANGE:
        highest = 2**depth - 1
        return np.array([0.0, 2 ** (depth - 1), 2 ** (depth - 1)]), np.full(3, float(highest))
    unit = 2 ** (depth - 8)
    return unit * np.array([16.0, 128, 128]), unit * np.array([219.0, 224, 224])


def _affine(matrix: np.ndarray, offset: np.ndarray) -> np.ndarray:
    return np.column_stack([matrix, offset])


def _rounded(values: np.ndarray, highest: int) -> np.ndarray:
    """The nearest codes from 0 to ``highest``."""
    depth = cv2.CV_8U if highest <= 255 else cv2.CV_16U
    codes = cv2.addWeighted(values, 1, values, 0, 0, dtype=depth)  # rounds and saturates
    return codes if highest in (255, 65535) else np.minimum(codes, highest, out=codes)


def _plane_views(frame: av.VideoFrame, layout: _Layout) -> list[np.ndarray]:
    """The frame's own memory: (h, w) luma and (h', w') chroma, or G, B and R; without padding."""
    views = []
    for plane in frame.planes[: 1 if layout.kind == "grey" else 3]:
        samples = np.frombuffer(plane, layout.dtype)
        samples = samples[: plane.height * (plane.line_size // samples.itemsize)]
        views.append(samples.reshape(plane.height, -1)[:, : plane.width])
    return views


def _enlarged(
    plane: np.ndarray, size: tuple[int, int], layout: _Layout, centred: bool
) -> np.ndarray:
    """A chroma plane at the size of luma, by cubic interpolation at the luma samples' positions."""
    if layout.across == layout.down == 1:
        return plane
    middle = (0.5 / layout.across - 0.5) if centred and layout.down > 1 else 0.0
    where = np.array([
        [1 / layout.across, 0, middle],
        [0, 1 / layout.down, 0.5 / layout.down - 0.5],
    ])  # fmt: skip
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(plane, where, size[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _reduced(chroma: np.ndarray, layout: _Layout) -> np.ndarray:
    """Chroma (h, w, 2) at the size of its planes, through a cubic low-pass filter."""
    one, border = np.ones(1), cv2.BORDER_REPLICATE
    if layout.across > 1:
        kernel, anchor = _low_pass(layout.across, centred=False)
        chroma = cv2.sepFilter2D(chroma, -1, kernel, one, None, (anchor, 0), 0, border)
        chroma = chroma[:, :: layout.across]
    if layout.down > 1:
        kernel, anchor = _low_pass(layout.down, centred=True)
        chroma = cv2.sepFilter2D(chroma, -1, one, kernel, None, (0, anchor), 0, border)
        chroma = chroma[:: layout.down]
    return np.ascontiguousarray(chroma)


def _low_pass(factor: int, *, centred: bool) -> tuple[np.ndarray, int]:
    """Filter taps for reduction by ``factor``, and the index of the tap at the sample itself."""
    places = np.arange(1 - 2 * factor, 2 * factor + (factor - 1 if centred else 0))
    x = np.abs((places - ((factor - 1) / 2 if centred else 0)) / factor)
    taps = np.where(x < 1, 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2)
    taps[x >= 2] = 0
    return taps / taps.sum(), 2 * factor - 1

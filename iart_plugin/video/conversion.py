"""Exact conversion between the samples of a video and R'G'B'.

The equations are those of ITU-T H.273 (8-5 and following), computed in float32 and rounded once.
libswscale only repacks samples here and never changes them: its own conversion of 8-bit full-range
video makes both chroma planes half a level too low.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Literal

import av
import cv2
import numpy as np

from .chroma import enlarged_rows, reduced_rows, with_margin
from .colour import JPEG_RANGE, MATRIX_RGB, Colour, pixel_depth
from .strips import ROWS, Scratch, Strips

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
        self._strips = Strips()
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
            return _rounded(stored.astype(np.float32) * (white / layout.highest / 2), white)
        rgb = np.empty((*planes[0].shape, 3), np.uint8 if white == 255 else np.uint16)
        self._strips.run(partial(self._fill, rgb, planes, layout), len(rgb))
        return rgb

    def _fill(
        self, rgb: np.ndarray, planes: list[np.ndarray], layout: _Layout, top: int, scratch: Scratch
    ) -> None:
        """Convert one strip of the planes, which starts at row ``top``, and write it to ``rgb``."""
        white = np.iinfo(rgb.dtype).max
        rgb, luma = rgb[top : top + ROWS], planes[0][top : top + ROWS]
        offsets, scales = _codes(self._colour, layout.depth)
        if layout.kind == "grey":
            grey = (luma.astype(np.float32) - offsets[0]) * (white / scales[0] / 2)
            rgb[:] = _rounded(grey, white)[..., None]
            return
        components = [scratch("luma", *luma.shape)]
        np.copyto(components[0], luma)
        down, across = factors = layout.down, layout.across
        for number, plane in enumerate(planes[1:]):
            large = scratch(("large", number), -(-len(luma) // down), down, plane.shape[1], across)
            enlarged_rows(plane, top, factors, self._centred and down > 1, large, scratch)
            large = large.reshape(-1, plane.shape[1] * across)
            components.append(large[: luma.shape[0], : luma.shape[1]])
        matrix = white * np.linalg.inv(_rgb_to_ycc(self._colour)) / scales
        matrix = _affine(matrix, -matrix @ offsets) / 2  # :func:`_rounded` doubles
        samples, halves = scratch("samples", *rgb.shape), scratch("halves", *rgb.shape)
        cv2.merge(components, samples)
        _rounded(cv2.transform(samples, matrix, halves), white, rgb)


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
        self._strips = Strips()

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
        self._strips.run(partial(self._fill, planes, rgb), height)
        return frame

    def _fill(self, planes: list[np.ndarray], rgb: np.ndarray, top: int, scratch: Scratch) -> None:
        """Convert one strip of ``rgb``, which starts at row ``top``, and write it to the planes."""
        layout, bottom = self._layout, top + ROWS
        if layout.kind == "rgb":
            for plane, channel in zip(planes, (1, 2, 0), strict=True):
                plane[top:bottom] = self._scaled(rgb[top:bottom, :, channel])
            return
        offsets, scales = _codes(self.colour, layout.depth)
        matrix = _rgb_to_ycc(self.colour) * scales[:, None] / np.iinfo(rgb.dtype).max
        matrix = _affine(matrix, offsets) / 2  # :func:`_rounded` doubles
        if layout.kind == "grey":
            part = rgb[top:bottom].astype(np.float32)
            _rounded(cv2.transform(part, matrix[:1]), layout.highest, planes[0][top:bottom])
            return
        # The low-pass filter of chroma also reads rows above and below the strip.
        part, margin = with_margin(rgb, top, ROWS, layout.down, scratch)
        samples = cv2.transform(part, matrix, scratch("samples", *part.shape))
        luma, *chroma = (scratch(name, *part.shape[:2]) for name in ("luma", "blue", "red"))
        cv2.split(samples, [luma, *chroma])
        shown = min(ROWS, rgb.shape[0] - top)
        _rounded(luma[margin : margin + shown], layout.highest, planes[0][top:bottom])
        rows = slice(top // layout.down, -(-bottom // layout.down))
        for plane, samples in zip(planes[1:], chroma, strict=True):
            small = reduced_rows(samples, (layout.down, layout.across), scratch)
            _rounded(small, layout.highest, plane[rows])

    def _scaled(self, samples: np.ndarray) -> np.ndarray:
        white, highest = np.iinfo(samples.dtype).max, self._layout.highest
        if white == highest:
            return samples
        return _rounded(samples.astype(np.float32) * (highest / white / 2), highest)


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


def _rounded(halves: np.ndarray, highest: int, codes: np.ndarray | None = None) -> np.ndarray:
    """The codes from 0 to ``highest`` that are nearest to twice the given numbers.

    OpenCV's fastest function that rounds and saturates is a sum, and doubling is exact.

    Args:
        halves: float32.
        highest: The largest code.
        codes: Where to write them, if it is given.
    """
    depth = cv2.CV_8U if highest <= 255 else cv2.CV_16U
    codes = cv2.add(halves, halves, codes, dtype=depth)
    return codes if highest in (255, 65535) else np.minimum(codes, highest, out=codes)


def _plane_views(frame: av.VideoFrame, layout: _Layout) -> list[np.ndarray]:
    """The frame's own memory: (h, w) luma and (h', w') chroma, or G, B and R; without padding."""
    views = []
    for plane in frame.planes[: 1 if layout.kind == "grey" else 3]:
        samples = np.frombuffer(plane, layout.dtype)
        samples = samples[: plane.height * (plane.line_size // samples.itemsize)]
        views.append(samples.reshape(plane.height, -1)[:, : plane.width])
    return views

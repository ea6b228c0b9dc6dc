"""What the numbers of a video's samples mean, and exact conversion between them and RGB.

A decoder hands out Y'CbCr (or RGB) samples together with tags: the matrix, the range, the
primaries and the transfer function. The networks work on R'G'B' in [0, 1], so only the matrix and
the range take part in the conversion; primaries and transfer pass through to the output's tags.
Tags are the code points of ITU-T H.273, as PyAV reports them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import av
import numpy as np

UNSPECIFIED = 2  # H.273's code for matrix, primaries and transfer alike
MPEG_RANGE, JPEG_RANGE = 1, 2
MATRIX_RGB, MATRIX_BT709, MATRIX_SMPTE170M = 0, 1, 6
# H.273 matrix code -> what libswscale calls it.
_SWSCALE_MATRIX = {
    1: "bt709",
    4: "fcc",
    5: "bt470",
    6: "smpte170m",
    7: "smpte240m",
    9: "bt2020",
    10: "bt2020",
}
_FLAGS = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp+bitexact"


@dataclass(frozen=True)
class Colour:
    """Colour tags of a video.

    Attributes:
        matrix: H.273 matrix coefficients; 0 is RGB, 2 unspecified.
        range: 1 limited ("tv"), 2 full ("pc"), 0 unspecified.
        primaries: H.273 colour primaries.
        transfer: H.273 transfer characteristics.
    """

    matrix: int = UNSPECIFIED
    range: int = 0
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED

    def resolved(self, width: int, height: int) -> Colour:
        """The same with matrix and range made definite, as players guess them.

        The guess depends on the picture's size, which upscaling changes: an untagged SD clip would
        be shown in other colours after x4. So it is made once, on the source, and written down.

        Args:
            width: Source width in pixels.
            height: Source height in pixels.
        """
        matrix = self.matrix
        if matrix == UNSPECIFIED:
            high_definition = width >= 1280 or height > 576
            matrix = MATRIX_BT709 if high_definition else MATRIX_SMPTE170M
        return replace(self, matrix=matrix, range=self.range or MPEG_RANGE)


# What an image file holds, written to a video: sRGB through the HD matrix.
SRGB_AS_VIDEO = Colour(MATRIX_BT709, MPEG_RANGE, primaries=1, transfer=13)
RGB_FULL = Colour(MATRIX_RGB, JPEG_RANGE, primaries=1, transfer=13)


def pixel_depth(pix_fmt: str) -> int:
    """Bits of one component of a pixel format, e.g. 10 for ``yuv420p10le``."""
    return max(c.bits for c in av.VideoFormat(pix_fmt, 1, 1).components)


def chroma_subsampling(pix_fmt: str) -> str:
    """``"420"``, ``"422"`` or ``"444"`` (also for RGB and grey), by the size of a chroma plane."""
    fmt = av.VideoFormat(pix_fmt, 16, 16)
    if fmt.is_rgb or len(fmt.components) < 3:
        return "420" if len(fmt.components) < 3 else "444"
    chroma = fmt.components[1]
    if chroma.width == 16:
        return "444"
    return "422" if chroma.height == 16 else "420"


class _Converter:
    """A one-format swscale graph: the flags that matter cannot be set on PyAV's own reformatter."""

    def __init__(self, width: int, height: int, source: str, target: str, options: str) -> None:
        self.key = (width, height, source)
        graph = av.filter.Graph()
        size = f"video_size={width}x{height}:pix_fmt={source}:time_base=1/1:pixel_aspect=1/1"
        nodes = [
            graph.add("buffer", size),
            graph.add("scale", f"{_FLAGS}:{options}"),
            graph.add("format", target),
            graph.add("buffersink"),
        ]
        graph.link_nodes(*nodes).configure()
        self._graph = graph

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        frame.pts, frame.time_base = 0, Fraction(1, 1)
        self._graph.vpush(frame)
        return self._graph.vpull()


class ToRGB:
    """Decoded frames to R'G'B' arrays.

    Chroma of 4:2:0 and 4:2:2 is taken as sited at the left, MPEG-2's and H.264's default;
    libswscale alone would take it as centred and shift colour by a quarter pixel, a whole one
    after x4.

    Args:
        colour: Resolved tags of the source.

    Raises:
        ValueError: A matrix that libswscale does not know (YCgCo, constant luminance, ICtCp).
    """

    def __init__(self, colour: Colour) -> None:
        self._options = f"in_range={_range_name(colour)}:out_range=pc"
        self._options += ":in_h_chr_pos=0:in_v_chr_pos=128"
        if colour.matrix != MATRIX_RGB:
            self._options += f":in_color_matrix={_matrix_name(colour)}"
        self._converter: _Converter | None = None

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """(h, w, 3) uint8, or uint16 over its whole range where the source has more than 8 bits."""
        key = (frame.width, frame.height, frame.format.name)
        if self._converter is None or self._converter.key != key:
            target = "rgb24" if pixel_depth(frame.format.name) <= 8 else "rgb48le"
            self._converter = _Converter(*key, target, self._options)
        return self._converter(frame).to_ndarray()


class FromRGB:
    """R'G'B' arrays to frames for an encoder, the inverse of :class:`ToRGB`.

    Args:
        pix_fmt: The encoder's pixel format.
        colour: Resolved tags of the output; ignored matrix where ``pix_fmt`` is RGB.
    """

    def __init__(self, pix_fmt: str, colour: Colour) -> None:
        self._pix_fmt = pix_fmt
        self.colour = colour
        if av.VideoFormat(pix_fmt, 1, 1).is_rgb:
            self.colour = replace(colour, matrix=MATRIX_RGB, range=JPEG_RANGE)
            self._options = "in_range=pc:out_range=pc"
        else:
            self._options = (
                f"in_range=pc:out_range={_range_name(colour)}"
                f":out_color_matrix={_matrix_name(colour)}:out_h_chr_pos=0:out_v_chr_pos=128"
            )
        self._converter: _Converter | None = None

    def __call__(self, rgb: np.ndarray) -> av.VideoFrame:
        """A frame in the encoder's format, tagged; ``rgb`` is (h, w, 3) uint8 or uint16."""
        source = "rgb24" if rgb.dtype == np.uint8 else "rgb48le"
        key = (rgb.shape[1], rgb.shape[0], source)
        if self._converter is None or self._converter.key != key:
            self._converter = _Converter(*key, self._pix_fmt, self._options)
        frame = self._converter(av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), source))
        frame.colorspace = self.colour.matrix
        frame.color_range = self.colour.range
        frame.color_primaries = self.colour.primaries
        frame.color_trc = self.colour.transfer
        return frame


def _range_name(colour: Colour) -> str:
    return "pc" if colour.range == JPEG_RANGE else "tv"


def _matrix_name(colour: Colour) -> str:
    try:
        return _SWSCALE_MATRIX[colour.matrix]
    except KeyError:
        raise ValueError(
            f"matrix coefficients {colour.matrix} (ITU-T H.273) cannot be converted to RGB here; "
            f"convert the video to one of {sorted(_SWSCALE_MATRIX)} first"
        ) from None

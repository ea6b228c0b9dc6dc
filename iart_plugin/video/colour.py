"""What the numbers of a video's samples mean.

A decoder hands out Y'CbCr (or RGB) samples together with tags: the matrix, the range, the
primaries and the transfer function. The networks work on R'G'B' in [0, 1], so only the matrix and
the range take part in the conversion (:mod:`.conversion`); primaries and transfer pass through to
the output's tags. Tags are the code points of ITU-T H.273, as PyAV reports them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import av

UNSPECIFIED = 2  # H.273's code for matrix, primaries and transfer alike
MPEG_RANGE, JPEG_RANGE = 1, 2
MATRIX_RGB, MATRIX_BT709, MATRIX_SMPTE170M = 0, 1, 6


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
        """These tags with a definite matrix and range, guessed as players do if they are missing.

        The guess depends on the picture's size, which upscaling changes: an untagged SD clip would
        be shown in other colours after x4. So the guess is made once, for the source, and written
        into the output's tags.

        Args:
            width: Source width in pixels.
            height: Source height in pixels.
        """
        matrix = self.matrix
        if matrix == UNSPECIFIED:
            high_definition = width >= 1280 or height > 576
            matrix = MATRIX_BT709 if high_definition else MATRIX_SMPTE170M
        return replace(self, matrix=matrix, range=self.range or MPEG_RANGE)


# The tags of a video that is made from image files: sRGB through the HD matrix.
SRGB_AS_VIDEO = Colour(MATRIX_BT709, MPEG_RANGE, primaries=1, transfer=13)
RGB_FULL = Colour(MATRIX_RGB, JPEG_RANGE, primaries=1, transfer=13)


def pixel_depth(pix_fmt: str) -> int:
    """Bits of one component of a pixel format, e.g. 10 for ``yuv420p10le``."""
    return max(c.bits for c in av.VideoFormat(pix_fmt, 1, 1).components)


def pixel_components(pix_fmt: str) -> int:
    """The number of components of a pixel format, transparency included."""
    return len(av.VideoFormat(pix_fmt, 1, 1).components)


def chroma_subsampling(pix_fmt: str) -> str:
    """``"420"``, ``"422"`` or ``"444"`` (also for RGB and grey), by the size of a chroma plane."""
    fmt = av.VideoFormat(pix_fmt, 16, 16)
    if fmt.is_rgb or len(fmt.components) < 3:
        return "420" if len(fmt.components) < 3 else "444"
    chroma = fmt.components[1]
    if chroma.width == 16:
        return "444"
    return "422" if chroma.height == 16 else "420"

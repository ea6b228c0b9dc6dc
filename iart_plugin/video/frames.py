"""The description that every source of frames gives, and the frames that it yields."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

from .colour import Colour

logger = logging.getLogger(__name__)

OnError = Literal["conceal", "fail"]
"""What happens at a broken frame: a neighbour replaces it ("conceal"), or the run ends ("fail")."""


class BrokenFrameError(ValueError):
    """A frame could not be decoded, or a file was cut short, and ``on_error`` is "fail"."""


@dataclass(frozen=True)
class VideoInfo:
    """What a source holds.

    Attributes:
        width: Pixels across, after rotation.
        height: Pixels down, after rotation.
        rate: Frames a second on average.
        time_base: Seconds in one unit of a timestamp.
        sample_aspect_ratio: Width over height of one pixel, after rotation.
        depth: Bits per component.
        chroma: "420", "422" or "444".
        colour: Resolved tags.
        frames: The number of frames that the header gives, or None. It is only a hint for progress
            and estimates, because headers may be wrong.
        is_video: False for pictures and animations, whose samples were RGB to begin with.
    """

    width: int
    height: int
    rate: Fraction
    time_base: Fraction
    sample_aspect_ratio: Fraction
    depth: int
    chroma: str
    colour: Colour
    frames: int | None
    is_video: bool


@dataclass
class Frame:
    """One frame: R'G'B' (h, w, 3) uint8 or uint16, and its place in time.

    Attributes:
        index: Counted from 0 in display order.
        pts: Presentation time in ``time_base`` by :class:`Clock`, strictly increasing.
        duration: In ``time_base``.
        rgb: The picture.
        name: File name without its suffix, for images.
    """

    index: int
    pts: int
    duration: int
    rgb: np.ndarray
    name: str | None = None


class Problems(list[str]):
    """The problems that were found in a source, as one line each.

    Args:
        path: The source, for messages.
        on_error: Whether a problem is concealed or ends the run.
    """

    def __init__(self, path: object, on_error: OnError) -> None:
        super().__init__()
        self._path, self._on_error = path, on_error

    def conceal(self, problem: str) -> None:
        """Record a problem that is concealed.

        Raises:
            BrokenFrameError: ``on_error`` is "fail".
        """
        if self._on_error == "fail":
            raise BrokenFrameError(f"{self._path}: {problem}")
        self.append(problem)
        logger.warning("%s: %s; concealed", self._path, problem)

    def note(self, problem: str) -> None:
        """Record a problem that does no harm."""
        self.append(problem)
        logger.warning("%s: %s", self._path, problem)


def to_dtype(image: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Convert a picture between uint8 and uint16 so that white stays white."""
    if image.dtype == dtype:
        return image
    return image.astype(np.uint16) * 257 if dtype == np.uint16 else (image >> 8).astype(np.uint8)

"""What every source of frames says of itself, and what it yields."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

from .colour import Colour

logger = logging.getLogger(__name__)

OnError = Literal["conceal", "fail"]
"""What a broken frame does: its neighbour takes its place, or it ends the run."""


class BrokenFrameError(ValueError):
    """A frame could not be decoded, and broken frames were asked to be fatal."""


@dataclass(frozen=True)
class VideoInfo:
    """What a source holds.

    Attributes:
        width: Pixels across, after rotation.
        height: Pixels down, after rotation.
        rate: Frames a second on average.
        time_base: Seconds in one unit of a timestamp.
        sample_aspect_ratio: Width over height of one pixel, after rotation.
        depth: Bits a component.
        chroma: "420", "422" or "444".
        colour: Resolved tags.
        frames: The number of frames that the file speaks of, or None. It is a hint for progress and
            estimates: what can be decoded is what there is.
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
    """What was wrong with a source, a line each.

    Args:
        path: The source, for messages.
        on_error: Whether a problem is concealed or ends the run.
    """

    def __init__(self, path: object, on_error: OnError) -> None:
        super().__init__()
        self._path, self._on_error = path, on_error

    def conceal(self, problem: str) -> None:
        """Take note of a problem that is concealed.

        Raises:
            BrokenFrameError: Problems were asked to be fatal.
        """
        if self._on_error == "fail":
            raise BrokenFrameError(f"{self._path}: {problem}")
        self.append(problem)
        logger.warning("%s: %s; concealed", self._path, problem)

    def note(self, problem: str) -> None:
        """Take note of a problem that does no harm."""
        self.append(problem)
        logger.warning("%s: %s", self._path, problem)


def to_dtype(image: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """A uint8 or uint16 picture as the other of the two, white staying white."""
    if image.dtype == dtype:
        return image
    return image.astype(np.uint16) * 257 if dtype == np.uint16 else (image >> 8).astype(np.uint8)

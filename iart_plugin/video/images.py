"""Reads frames from image files: a folder, a glob, an animation, or the pages of a TIFF."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from iart_plugin.pictures import (
    SUFFIXES,
    PictureTooLargeError,
    natural_order,
    picture_sizes,
    read_picture,
    read_pictures,
)

from .colour import RGB_FULL
from .frames import Frame, OnError, Problems, VideoInfo, to_dtype

DEFAULT_RATE = Fraction(24)
_MILLISECOND = Fraction(1, 1000)


def find_images(spec: str | Path) -> list[Path]:
    """Image files of a folder or a glob, in natural order; empty where it is neither.

    Hidden files are skipped, because a Mac puts a ``._NAME.png`` beside every file on disks that
    are not formatted for it.

    Raises:
        ValueError: A folder or glob without images.
    """
    path = Path(spec)
    if path.is_dir():
        found = [p for p in path.iterdir() if not p.name.startswith(".")]
    elif path.is_file():
        return [path] if path.suffix.lower() in SUFFIXES else []
    elif not path.exists() and any(c in str(spec) for c in "*?["):
        found = _matches(path)
    else:
        return []
    found = [p for p in found if p.suffix.lower() in SUFFIXES]
    if not found:
        raise ValueError(f"{spec}: no images in it ({', '.join(sorted(SUFFIXES))})")
    return natural_order(found)


def _matches(pattern: Path) -> list[Path]:
    """The files that match; the path of an existing folder is taken literally, not as a pattern."""
    folder, parts = Path(pattern.anchor), list(pattern.parts[bool(pattern.anchor) :])
    while len(parts) > 1 and (folder / parts[0]).is_dir():
        folder /= parts.pop(0)
    escaped = os.path.join(glob.escape(str(folder)), *parts)
    return [Path(p) for p in glob.glob(escaped, recursive=True) if Path(p).is_file()]


class ImageSource:
    """A sequence of image files of one size.

    Args:
        paths: Files in order.
        rate: Frames per second, for outputs that have times; None means 24.
        on_error: Whether an image that cannot be read is replaced or ends the run.

    Raises:
        ValueError: No image can be read, the images differ in size, or one of several images is an
            animation.
    """

    def __init__(
        self, paths: Sequence[Path], *, rate: Fraction | None, on_error: OnError = "conceal"
    ) -> None:
        self.paths = list(paths)
        self.path = self.paths[0].parent
        self.problems = Problems(self.path, on_error)
        self._check_sizes()
        first = next((im for im in map(_readable, self.paths) if im is not None), None)
        if first is None:
            raise ValueError(f"{self.path}: none of its images can be read")
        self._first = first
        self.info = _describe(first, rate or DEFAULT_RATE, len(self.paths))

    def _check_sizes(self) -> None:
        """Compare the sizes in all headers now: this takes seconds, and upscaling takes hours."""
        first: tuple[Path, tuple[int, int]] | None = None
        for path in self.paths:
            try:
                sizes = picture_sizes(path)
            except PictureTooLargeError:
                raise
            except ValueError:
                continue  # an unreadable image is reported when it is read
            if len(sizes) > 1:
                raise ValueError(
                    f"{path} holds {len(sizes)} pictures: an animation among other images has no "
                    "place in time; give it by itself"
                )
            first = first or (path, sizes[0])
            if sizes[0] != first[1]:
                raise _other_size(path, sizes[0], *first)

    def __iter__(self) -> Iterator[Frame]:
        last = self._first
        for index, path in enumerate(self.paths):
            image = _readable(path)
            if image is None:
                self.problems.conceal(f"frame {index} ({path.name}) cannot be read")
                image = last
            if image.shape != self._first.shape:
                raise _other_size(path, image.shape, self.paths[0], self._first.shape)
            last = to_dtype(image, self._first.dtype)
            yield Frame(index, index, 1, last, path.stem)

    def close(self) -> None:
        """Do nothing: no file is held open."""


class AnimationSource(ImageSource):
    """An animated WebP with its own times, or the pages of a TIFF at a constant rate.

    Args:
        path: The file.
        rate: Frames per second to use instead of the file's own times.
        on_error: A picture that cannot be decoded ends the film here ("conceal"), or ends the run
            with an error ("fail").

    Raises:
        ValueError: The pictures differ in size, or the first one cannot be decoded.
    """

    def __init__(self, path: Path, *, rate: Fraction | None, on_error: OnError = "conceal") -> None:
        self.paths, self.path = [path], path
        self.problems = Problems(path, on_error)
        sizes = picture_sizes(path)
        for number, size in enumerate(sizes):
            if size != sizes[0]:
                raise _other_size(f"page {number} of {path}", size, "page 0", sizes[0])
        self._first, seconds = next(read_pictures(path))
        self._timed = rate is None and seconds is not None
        if self._timed:
            rate = 1 / Fraction(seconds).limit_denominator(1000)
        self.info = _describe(
            self._first, rate or DEFAULT_RATE, len(sizes), _MILLISECOND if self._timed else None
        )

    def __iter__(self) -> Iterator[Frame]:
        pts = 0
        try:
            for index, (image, seconds) in enumerate(read_pictures(self.path)):
                duration = max(1, round((seconds or 0) * 1000)) if self._timed else 1
                yield Frame(index, pts, duration, to_dtype(image, self._first.dtype))
                pts += duration
        except ValueError as error:
            self.problems.conceal(f"it ends early: {error}")


def _describe(
    image: np.ndarray, rate: Fraction, count: int, time_base: Fraction | None = None
) -> VideoInfo:
    return VideoInfo(
        width=image.shape[1],
        height=image.shape[0],
        rate=rate,
        time_base=time_base or 1 / rate,
        sample_aspect_ratio=Fraction(1),
        depth=8 if image.dtype == np.uint8 else 16,
        chroma="444",
        colour=RGB_FULL,
        frames=count,
        is_video=False,
    )


def _readable(path: Path) -> np.ndarray | None:
    try:
        return read_picture(path, deep=True)
    except PictureTooLargeError:
        raise
    except ValueError:
        return None


def _other_size(
    name: object, size: Sequence[int], first_name: object, first: Sequence[int]
) -> ValueError:
    return ValueError(
        f"{name} is {size[1]}x{size[0]}, and {first_name} is {first[1]}x{first[0]}: all frames of "
        "a film need one size, so upscale them apart"
    )

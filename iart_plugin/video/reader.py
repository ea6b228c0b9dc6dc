"""Opens any kind of input: a video, images, an animation or a pipe.

Every source describes itself (:class:`VideoInfo`). It can be iterated once, and yields upright
R'G'B' frames with the exact timestamps of the file.
"""

from __future__ import annotations

import logging
from fractions import Fraction
from pathlib import Path

from iart_plugin.pictures import picture_sizes

from .containers import is_pipe
from .deinterlace import Deinterlace
from .film import VideoSource
from .frames import BrokenFrameError, Frame, OnError, VideoInfo, to_dtype
from .images import AnimationSource, ImageSource, find_images

__all__ = [
    "BrokenFrameError",
    "Frame",
    "ImageSource",
    "VideoInfo",
    "VideoSource",
    "find_images",
    "is_pipe",
    "open_source",
    "to_dtype",
]

logger = logging.getLogger(__name__)

UNREAD_PICTURES = frozenset(
    {".avif", ".cr2", ".dng", ".dpx", ".exr", ".gif", ".heic", ".heif", ".jp2", ".jxl", ".nef"}
)
"""Suffixes of pictures that are not read. A folder that has some must not lose them in silence."""


def open_source(
    spec: str | Path,
    *,
    rate: Fraction | None = None,
    on_error: OnError = "conceal",
    deinterlace: Deinterlace = "auto",
) -> VideoSource | ImageSource:
    """Open the input that ``spec`` names.

    Args:
        spec: A video file, a folder of images, a glob, an image or an animation, a named pipe, or
            ``-`` for a video on standard input.
        rate: Frames per second for images (default 24), or for an animation in place of its own
            times. A video has a rate of its own, so this argument is refused for a video.
        on_error: Whether a broken frame is replaced by a neighbour or ends the run.
        deinterlace: Whether a video's interlaced frames are deinterlaced.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: There are no images, no video stream, or nothing that can be decoded.
        BrokenFrameError: The file was cut short, and ``on_error`` is "fail".
    """
    images = [] if is_pipe(spec) else find_images(spec)
    if len(images) == 1 and images[0] == Path(spec) and _is_animated(images[0]):
        if images[0].suffix.lower() != ".png":
            return AnimationSource(images[0], rate=rate, on_error=on_error)
        images = []  # FFmpeg reads an animated PNG at its full depth and with its times
    if images:
        _warn_of_unread(Path(spec))
        return ImageSource(images, rate=rate, on_error=on_error)
    if rate is not None:
        raise ValueError(f"{spec}: --fps sets the rate of images; a video carries its own")
    return VideoSource(spec, on_error=on_error, deinterlace=deinterlace)


def _warn_of_unread(path: Path) -> None:
    if not path.is_dir():
        return
    unread = [p.name for p in path.iterdir() if p.suffix.lower() in UNREAD_PICTURES]
    unread = [name for name in unread if not name.startswith(".")]
    if unread:
        logger.warning(
            "%s: %d of its pictures are left out, such as %s; convert them to PNG to keep them",
            *(path, len(unread), min(unread)),
        )


def _is_animated(path: Path) -> bool:
    try:
        return len(picture_sizes(path)) > 1
    except ValueError:
        return False  # an unreadable file is reported when it is read

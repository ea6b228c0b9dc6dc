"""Writes frames as segments of a video, or as PNG files.

A sink takes the frames of one segment: consecutive frames that are encoded on their own. The files
of a finished segment are complete. The files of an unfinished one are ignored.
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
import cv2
import numpy as np

from iart_plugin.files import write_atomically
from iart_plugin.pictures import write_png

from .conversion import FromRGB
from .encoding import Encoding, encoder_options, set_up
from .frames import Frame
from .packets import PacketWriter


class Sink(Protocol):
    """An object that takes a segment's frames."""

    def write(self, frame: Frame, rgb: np.ndarray) -> None:
        """Take one upscaled picture and the frame that it was made from."""

    def close(self) -> None:
        """Complete the segment."""

    def abort(self) -> None:
        """Give the segment up."""


class VideoSegment:
    """Encodes frames to a packet file.

    Args:
        path: The packet file.
        encoding: The encoder's settings.
    """

    def __init__(self, path: Path, encoding: Encoding) -> None:
        self._convert = FromRGB(encoding.pix_fmt, encoding.colour)
        self._encoder = av.CodecContext.create(encoding.codec, "w")
        set_up(self._encoder, encoding)
        self._encoder.options = encoder_options(encoding)
        # Parameter sets go into the container's header, because MP4 and Matroska need them there.
        self._encoder.flags |= av.codec.context.Flags.global_header
        self._time_base = encoding.time_base
        self._durations: dict[int, int] = {}
        self.path = Path(path)
        self._packets = PacketWriter(path)
        self.count = 0

    def write(self, frame: Frame, rgb: np.ndarray) -> None:
        """Encode one picture."""
        self.write_at(frame.pts, frame.duration, rgb)

    def write_at(self, pts: int, duration: int, rgb: np.ndarray) -> None:
        """Encode one picture for a time and a duration in the encoding's units."""
        picture = self._convert(rgb)
        picture.pts, picture.time_base = pts, self._time_base
        self._durations[pts] = duration
        self.count += 1
        for packet in self._encoder.encode(picture):
            self._store(packet)

    def _store(self, packet: av.Packet) -> None:
        # Not every encoder passes the duration on.
        packet.duration = self._durations.pop(packet.pts, packet.duration)
        self._packets.write(packet)

    def close(self, path: Path | None = None) -> None:
        """Flush the encoder and complete the file, under the name ``path`` if it is given."""
        for packet in self._encoder.encode(None):
            self._store(packet)
        self._packets.close(path)

    def abort(self) -> None:
        """Delete the file."""
        self._packets.abort()


class ImageSegment:
    """Writes PNG files of 8 or 16 bits, and a list of them when the segment is complete.

    Args:
        marker: The list's file. If it exists, the segment is complete.
        folder: The folder for the images.
        compression: zlib's level.
    """

    def __init__(self, marker: Path, folder: Path, *, compression: int = 3) -> None:
        self._marker, self._folder = marker, folder
        self._options = [cv2.IMWRITE_PNG_COMPRESSION, compression]
        self._sizes: dict[str, int] = {}

    def write(self, frame: Frame, rgb: np.ndarray) -> None:
        """Write one picture under its source's name, or under its number if it has no name."""
        name = frame.name if frame.name is not None else f"{frame.index:08d}"
        path = self._folder / f"{name}.png"
        write_png(path, rgb, self._options)
        self._sizes[path.name] = path.stat().st_size

    def close(self) -> None:
        """Write the list."""
        write_atomically(self._marker, json.dumps(self._sizes))

    def abort(self) -> None:
        """Keep the images. Because there is no list, they are written again later."""


def images_of(marker: Path) -> dict[str, int]:
    """The names of a segment's images and their sizes in bytes; empty if the list is damaged."""
    try:
        sizes = json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return sizes if isinstance(sizes, dict) else {}


def write_timestamps(path: Path, times: list[int], time_base: Fraction) -> None:
    """Frame times in milliseconds, in the "timestamp format v2" that mkvmerge and others read."""
    lines = [f"{float(t * time_base * 1000):.6f}" for t in times]
    path.write_text("# timestamp format v2\n" + "\n".join(lines) + "\n", encoding="utf-8")

"""Opening media files and pipes, and finding out whether a file was cut short."""

from __future__ import annotations

import os
import stat
import struct
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av

from . import ebml

_IS_19 = int(av.__version__.split(".")[0]) >= 19
LENIENT = {} if _IS_19 else {"metadata_errors": "surrogateescape"}
"""Options of :func:`av.open`, because titles may be in any text encoding, not only UTF-8."""
_TIMED_HEADERS = frozenset({"flv", "asf"})
_UNKNOWN_RIFF_SIZES = (0, 0xFFFFFFFF)
_SLACK = Fraction(1)  # a header may claim this many seconds too much


def is_pipe(spec: str | Path) -> bool:
    """Whether an input can be read only once: ``-``, a named pipe, a socket or a device."""
    if str(spec) == "-":
        return True
    try:
        mode = os.stat(spec).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)


def open_container(path: str | Path) -> av.container.InputContainer:
    """Open a media file, or a pipe; ``-`` is standard input.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It cannot be opened.
    """
    try:
        return av.open(_openable(path), "r", **LENIENT)
    except av.FFmpegError as error:
        raise ValueError(f"{path}: not a video that can be opened ({error.strerror})") from error


def _openable(path: str | Path) -> str | BinaryIO:
    if str(path) == "-":
        return sys.stdin.buffer
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    name = str(Path(path).absolute())  # or FFmpeg would take what is before a colon for a protocol
    try:
        name.encode()
    except UnicodeEncodeError:
        return open(path, "rb")
    return open(path, "rb") if is_pipe(path) else name


def readable_text(metadata: dict[str, str]) -> dict[str, str]:
    """Tags as valid text: bytes that are not UTF-8 become the replacement character."""
    return {_valid(key): _valid(value) for key, value in metadata.items()}


def _valid(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def cut_short(path: Path, container: av.container.InputContainer) -> str | None:
    """Say why a file must have been cut short; return None if nothing shows that it was.

    Frame counts and durations in headers prove nothing, because recorders get them wrong. The sizes
    of a file's parts, and the positions in its index, do prove it.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        claimed = max(_claimed_ends(file, size), default=0)
    if claimed > size:
        return f"it is cut short: {size:,} of {claimed:,} bytes are there"
    last = max((entry for stream in container.streams for entry in _index_ends(stream)), default=0)
    if last > size:
        return f"it is cut short: its index reaches to byte {last:,}, and {size:,} are there"
    return None


def _index_ends(stream: av.stream.Stream) -> Iterator[int]:
    return (entry.pos + max(entry.size, 0) for entry in stream.index_entries)


def _claimed_ends(file: BinaryIO, size: int) -> Iterator[int]:
    """The positions where the outermost parts of an MP4, AVI or Matroska file claim to end."""
    head = file.read(12)
    if head[:4] == ebml.MAGIC:
        yield from ebml.segment_ends(file)
    elif head[:4] == b"RIFF":
        yield from _riff_ends(file, size)
    elif head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        yield from _box_ends(file, size)


def _box_ends(file: BinaryIO, size: int) -> Iterator[int]:
    start = 0
    while start + 8 <= size:
        file.seek(start)
        head = file.read(16)
        (length,) = struct.unpack(">I", head[:4])
        if length == 1 and len(head) == 16:
            (length,) = struct.unpack(">Q", head[8:])
        if length < 8 or not head[4:8].isascii():  # 0 means to the end; the rest is no box
            return
        start += length
        yield start


def _riff_ends(file: BinaryIO, size: int) -> Iterator[int]:
    start = 0
    while start + 12 <= size:
        file.seek(start)
        name, length = struct.unpack("<4sI", file.read(8))
        if name != b"RIFF" or length in _UNKNOWN_RIFF_SIZES:
            return
        start += 8 + length
        yield start
        start += length % 2


def declared_end(path: Path, container: av.container.InputContainer) -> Fraction | None:
    """The end in seconds that the header gives, for formats whose part sizes prove nothing."""
    if "matroska" in container.format.name:
        with path.open("rb") as file:
            return ebml.duration_of_unknown_size(file)
    if container.format.name in _TIMED_HEADERS and container.duration is not None:
        start = container.start_time or 0
        return Fraction(container.duration + start, av.time_base)
    return None


def ends_before(path: Path, end: Fraction) -> bool:
    """Whether every stream of a file ends more than a second before ``end`` seconds."""
    last = Fraction(0)
    with open_container(path) as container:
        packets = container.demux()
        while True:
            try:
                packet = next(packets)
            except (StopIteration, av.FFmpegError):
                return last < end - _SLACK
            stamp = packet.pts if packet.pts is not None else packet.dts
            if stamp is not None:
                last = max(last, (stamp + (packet.duration or 0)) * Fraction(packet.time_base))

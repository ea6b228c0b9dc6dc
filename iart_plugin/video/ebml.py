"""Reads and writes the few elements of Matroska and WebM files that PyAV has no access to.

A file is a tree of elements. Each has an identifier, a size and that many bytes (RFC 8794). The
elements that are needed here are near the start, before the first cluster of pictures and sound.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

MAGIC = b"\x1aE\xdf\xa3"
_SEGMENT, _CLUSTER, _SEEK_HEAD, _VOID = 0x18538067, 0x1F43B675, 0x114D9B74, 0xEC
_INFO, _TIMESTAMP_SCALE, _DURATION = 0x1549A966, 0x2AD7B1, 0x4489
_TRACKS, _TRACK, _TRACK_TYPE, _VIDEO = 0x1654AE6B, 0xAE, 0x83, 0xE0
_DISPLAY_WIDTH, _DISPLAY_HEIGHT, _DISPLAY_UNIT = 0x54B0, 0x54BA, 0x54B2
_SEEK, _SEEK_ID, _SEEK_POSITION = 0x4DBB, 0x53AB, 0x53AC
_VIDEO_TRACK = 1
_LARGEST_HEADER = 2**24


@dataclass(frozen=True)
class _Element:
    """An element: its identifier, where it and its data start, and the size of its data in bytes.

    ``size`` is None where the writer left it open, as it is in live recordings.
    """

    id: int
    start: int
    data: int
    size: int | None

    @property
    def end(self) -> int:
        return self.data + (self.size or 0)


def _element(buffer: bytes, start: int) -> _Element | None:
    """The element at a position; None at the end, or where there is none."""
    identifier, position = _number(buffer, start, keep_marker=True)
    size, data = _number(buffer, position)
    if not identifier or data == position:
        return None
    unknown = size == (1 << 7 * (data - position)) - 1
    return _Element(identifier, start, data, None if unknown else size)


def _number(buffer: bytes, start: int, *, keep_marker: bool = False) -> tuple[int, int]:
    """A number of 1 to 8 bytes and the position after it; the same position where there is none."""
    if start >= len(buffer) or not buffer[start]:
        return 0, start
    length = 9 - buffer[start].bit_length()
    if start + length > len(buffer):
        return 0, start
    value = int.from_bytes(buffer[start : start + length], "big")
    return (value if keep_marker else value & ((1 << 7 * length) - 1)), start + length


def _children(buffer: bytes, start: int, end: int) -> Iterator[_Element]:
    while start < end and (element := _element(buffer, start)) is not None:
        yield element
        if element.size is None:
            return
        start = element.end


def _segment(head: bytes) -> _Element | None:
    return next((e for e in _children(head, 0, len(head)) if e.id == _SEGMENT), None)


def segment_ends(file: BinaryIO) -> Iterator[int]:
    """Yield the position where the file's segment claims to end; nothing if it gives no size."""
    file.seek(0)
    segment = _segment(file.read(_LARGEST_HEADER))
    if segment is not None and segment.size is not None:
        yield segment.end


def duration_of_unknown_size(file: BinaryIO) -> Fraction | None:
    """The duration in seconds that a segment gives, but only if it gives no size in bytes."""
    file.seek(0)
    head = file.read(_LARGEST_HEADER)
    segment = _segment(head)
    if segment is None or segment.size is not None:
        return None
    info = next((e for e in _children(head, segment.data, len(head)) if e.id == _INFO), None)
    if info is None:
        return None
    fields = {e.id: head[e.data : e.end] for e in _children(head, info.data, info.end)}
    raw = fields.get(_DURATION, b"")
    if len(raw) not in (4, 8):
        return None
    (ticks,) = struct.unpack(">f" if len(raw) == 4 else ">d", raw)
    scale = int.from_bytes(fields.get(_TIMESTAMP_SCALE, b"\x0f\x42\x40"), "big")
    return Fraction(ticks) * scale / 10**9


def display_size(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """The smallest size in square pixels that has a picture's exact shape and contains the picture.

    Where the exact shape needs too large a size, the width is rounded instead.

    Args:
        width: Pixels across.
        height: Pixels down.
        aspect: Width over height of one pixel.
    """
    shape = Fraction(width, height) * aspect
    times = max(-(-width // shape.numerator), -(-height // shape.denominator))
    if times * shape.numerator > 4 * max(width, height):  # a shape that no small numbers have
        return max(1, round(width * aspect)), height
    return times * shape.numerator, times * shape.denominator


def set_display_size(path: Path, width: int, height: int) -> None:
    """Write the display size of the first video track, for pixels that are not square.

    FFmpeg's muxer takes the pixels' shape from a field that PyAV cannot set. So this function puts
    the element into the track's description. Everything before it moves to the left, into the
    unused space (a void element) that the muxer leaves after the index of parts.

    Args:
        path: A complete Matroska or WebM file of FFmpeg's muxer.
        width: Columns of square pixels.
        height: Rows of square pixels.

    Raises:
        ValueError: The file has no video track, or not enough unused space.
    """
    with path.open("rb+") as file:
        head = file.read(_LARGEST_HEADER)
        segment = _segment(head)
        parts = {} if segment is None else _parts_before_clusters(head, segment)
        if not {_TRACKS, _VOID} <= parts.keys() or parts[_VOID].end > parts[_TRACKS].start:
            raise ValueError(f"{path}: not a file of FFmpeg's Matroska muxer")
        void, tracks = parts[_VOID], parts[_TRACKS]
        described = _with_display_size(head, tracks, width, height)
        growth = len(described) - (tracks.end - tracks.start)
        room = void.end - void.start - growth
        if room < 2 or room > 0x7F + 2:
            filler = _encode(_VOID, bytes(max(0, room - 9)), size_bytes=8)
        else:
            filler = _encode(_VOID, bytes(room - 2), size_bytes=1)
        if len(filler) != room:
            raise ValueError(f"{path}: no space for the pixels' shape in its header")
        moved = head[void.end : tracks.start]
        index = _moved_index(head, parts.get(_SEEK_HEAD), segment, void.end, tracks.end, growth)
        file.seek(void.start)
        file.write(filler + moved + described)
        if index is not None:
            file.seek(parts[_SEEK_HEAD].start)
            file.write(index)


def _parts_before_clusters(head: bytes, segment: _Element) -> dict[int, _Element]:
    parts: dict[int, _Element] = {}
    for part in _children(head, segment.data, len(head)):
        if part.id == _CLUSTER:
            break
        parts.setdefault(part.id, part)
    return parts


def _with_display_size(head: bytes, tracks: _Element, width: int, height: int) -> bytes:
    """The element of all tracks, with the display size added to the first video track."""
    added = _encode(_DISPLAY_WIDTH, _unsigned(width)) + _encode(_DISPLAY_HEIGHT, _unsigned(height))
    data, done = b"", False
    for track in _children(head, tracks.data, tracks.end):
        fields = list(_children(head, track.data, track.end)) if track.id == _TRACK else []
        kind = next((head[f.data : f.end] for f in fields if f.id == _TRACK_TYPE), b"")
        if done or int.from_bytes(kind, "big") != _VIDEO_TRACK:
            data += head[track.start : track.end]
            continue
        inner = b"".join(
            _encode(_VIDEO, _without_unit(head, f) + added)
            if f.id == _VIDEO
            else head[f.start : f.end]
            for f in fields
        )
        data, done = data + _encode(_TRACK, inner), True
    return _encode(_TRACKS, data)


def _without_unit(head: bytes, video: _Element) -> bytes:
    """A track's description without the unit of its display size: the default unit is pixels."""
    fields = _children(head, video.data, video.end)
    return b"".join(head[f.start : f.end] for f in fields if f.id != _DISPLAY_UNIT)


def _moved_index(
    head: bytes, index: _Element | None, segment: _Element, first: int, last: int, shift: int
) -> bytes | None:
    """The index of parts after the parts that start in [first, last) moved left by ``shift``."""
    if index is None:
        return None
    data = b""
    for entry in _children(head, index.data, index.end):
        fields = b""
        for field in _children(head, entry.data, entry.end) if entry.id == _SEEK else ():
            value = head[field.data : field.end]
            position = segment.data + int.from_bytes(value, "big")
            if field.id == _SEEK_POSITION and first <= position < last:
                value = (position - shift - segment.data).to_bytes(len(value), "big")
            fields += head[field.start : field.data] + value
        data += head[entry.start : entry.data] + (fields or head[entry.data : entry.end])
    return head[index.start : index.data] + data


def _encode(identifier: int, data: bytes, *, size_bytes: int = 4) -> bytes:
    name = identifier.to_bytes((identifier.bit_length() + 7) // 8, "big")
    size = (len(data) | 1 << 7 * size_bytes).to_bytes(size_bytes, "big")
    return name + size + data


def _unsigned(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8 or 1, "big")

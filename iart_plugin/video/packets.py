"""Packet files: finished segments of the output wait in them on disk until they are muxed.

Every segment of an output file is encoded on its own. So a run can be interrupted and resumed, or
shared among processes, and the output is always the same. A segment could be stored in a container
too, but Matroska would round its times to milliseconds and MP4 would add edit lists. A packet file
keeps exactly what the encoder gave.

Layout: an 8-byte magic, then one record for each packet: six int64 (pts, dts, duration, stream,
key, size), followed by ``size`` bytes. The last record has the stream number -1, and its bytes are
the SHA-256 of everything before it.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from iart_plugin.files import AtomicFile

_MAGIC = b"IARTPKT2"
_END = -1
_RECORD = struct.Struct("<6q")
_NO_TIME = -(2**63)


@dataclass(frozen=True)
class PacketTimes:
    """Times of one packet, in its stream's time base; None where the encoder gave none."""

    pts: int | None
    dts: int | None
    duration: int
    stream: int
    is_keyframe: bool


class PacketWriter:
    """Writes packets to a temporary file, which gets its final name only when it is complete.

    Args:
        path: The final name.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._target = AtomicFile(self.path)
        self._file = self._target.temporary.open("wb")
        self._digest = hashlib.sha256()
        self._put(_MAGIC)

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)

    def write(self, packet: av.Packet, *, stream: int = 0) -> None:
        """Append one packet."""
        pts = _NO_TIME if packet.pts is None else packet.pts
        dts = _NO_TIME if packet.dts is None else packet.dts
        record = (pts, dts, packet.duration or 0, stream, int(packet.is_keyframe), packet.size)
        self._put(_RECORD.pack(*record) + bytes(packet))

    def close(self, path: Path | None = None) -> None:
        """Complete the file: flush it to disk, then rename it to its final name (or ``path``)."""
        digest = self._digest.digest()
        self._file.write(_RECORD.pack(0, 0, 0, _END, 0, len(digest)) + digest)
        self._file.close()
        self._target.commit(path)

    def abort(self) -> None:
        """Delete what was written."""
        self._file.close()
        self._target.discard()


def read_times(path: Path) -> Iterator[PacketTimes]:
    """Times of a file's packets, without reading their data."""
    for times, _ in _records(path, with_data=False):
        yield times


def read_packets(path: Path, time_base: Fraction) -> Iterator[tuple[av.Packet, PacketTimes]]:
    """A file's packets, ready to be muxed once a stream is set on them."""
    for times, data in _records(path, with_data=True):
        packet = av.Packet(data)
        packet.time_base = time_base
        packet.pts, packet.dts, packet.duration = times.pts, times.dts, times.duration
        packet.is_keyframe = times.is_keyframe
        yield packet, times


def is_whole(path: Path) -> bool:
    """Whether a file is complete and unchanged since it was written."""
    try:
        for _ in _records(path, with_data=True):
            pass
    except (OSError, ValueError, MemoryError):
        return False
    return True


def _records(path: Path, *, with_data: bool) -> Iterator[tuple[PacketTimes, bytes]]:
    with Path(path).open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError(f"{path}: not a segment of an unfinished run")
        digest = hashlib.sha256(_MAGIC)
        length = os.fstat(file.fileno()).st_size
        while True:
            head = file.read(_RECORD.size)
            size = _RECORD.unpack(head)[-1] if len(head) == _RECORD.size else -1
            if not 0 <= size <= length - file.tell():
                raise ValueError(f"{path}: cut short; run again with --resume")
            pts, dts, duration, stream, key, _ = _RECORD.unpack(head)
            if stream == _END:
                if with_data and file.read(size) != digest.digest():
                    raise ValueError(f"{path}: damaged; run again with --resume")
                return
            data = file.read(size) if with_data else b""
            if with_data:
                digest.update(head + data)
            else:
                file.seek(size, os.SEEK_CUR)
            yield _times(pts, dts, duration, stream, key), data


def _times(pts: int, dts: int, duration: int, stream: int, key: int) -> PacketTimes:
    return PacketTimes(
        None if pts == _NO_TIME else pts,
        None if dts == _NO_TIME else dts,
        duration,
        stream,
        bool(key),
    )

"""Writes raw frames to standard output: as YUV4MPEG2, or as NUT with timestamps."""

from __future__ import annotations

import sys
from collections.abc import Callable
from fractions import Fraction
from typing import Literal

import av
import numpy as np

from .colour import JPEG_RANGE
from .conversion import FromRGB
from .encoding import Encoding, set_up
from .frames import Frame

PipeFormat = Literal["y4m", "nut"]
_NUT_STREAM = b"NS\x11\x40\x5b\xf2\xf9\xdb"
_CRC_POLYNOMIAL = 0x04C11DB7


def pipe_sink(encoding: Encoding, form: PipeFormat) -> Y4MSink | NutSink:
    """Open a sink that writes frames to standard output.

    Args:
        encoding: The output's encoding. Its codec is ignored, because the frames are raw.
        form: "y4m" (constant frame rate) or "nut" (raw video with timestamps).

    Raises:
        ValueError: ``form`` does not support the pixel format.
    """
    return {"y4m": Y4MSink, "nut": NutSink}[form](encoding)


class Y4MSink:
    """Writes YUV4MPEG2. FFmpeg's muxer cannot be given pixels' shape or chroma samples' place."""

    def __init__(self, encoding: Encoding) -> None:
        self._convert = FromRGB(encoding.pix_fmt, encoding.colour)
        self._file = sys.stdout.buffer
        rate, aspect = encoding.rate, encoding.sample_aspect_ratio
        colours = _y4m_colours(encoding.pix_fmt)
        full = "FULL" if encoding.colour.range == JPEG_RANGE else "LIMITED"
        self._file.write(
            f"YUV4MPEG2 W{encoding.width} H{encoding.height} F{rate.numerator}:{rate.denominator} "
            f"Ip A{aspect.numerator}:{aspect.denominator} C{colours} XCOLORRANGE={full}\n".encode()
        )

    def write(self, frame: Frame, rgb: np.ndarray) -> None:
        """Send one picture."""
        self._file.write(b"FRAME\n")
        for plane in self._convert.planes(rgb):
            self._file.write(np.ascontiguousarray(plane).data)

    def close(self) -> None:
        """Send what is left."""
        self._file.flush()

    def abort(self) -> None:
        """Stop sending. What was already sent cannot be taken back."""


def _y4m_colours(pix_fmt: str) -> str:
    sampling, _, depth = pix_fmt.removeprefix("yuv").removesuffix("le").partition("p")
    if sampling not in ("420", "422", "444") or depth not in ("", "9", "10", "12", "14", "16"):
        raise ValueError(
            f"--pixel-format {pix_fmt}: y4m takes yuv420p, yuv422p, yuv444p and their forms with "
            "more bits (yuv420p10le, …); take --pipe-format nut for others"
        )
    if depth:
        return f"{sampling}p{depth} XYSCSS={sampling}P{depth}"
    return "420mpeg2 XYSCSS=420MPEG2" if sampling == "420" else sampling


class NutSink:
    """Writes raw video with timestamps in NUT."""

    def __init__(self, encoding: Encoding) -> None:
        self._convert = FromRGB(encoding.pix_fmt, encoding.colour)
        file = _Shaped(sys.stdout.buffer.write, encoding.sample_aspect_ratio)
        self._container = av.open(file, "w", format="nut")
        self._stream = self._container.add_stream("rawvideo", rate=encoding.rate)
        set_up(self._stream.codec_context, encoding)
        self._time_base = encoding.time_base

    def write(self, frame: Frame, rgb: np.ndarray) -> None:
        """Send one picture."""
        picture = self._convert(rgb)
        picture.pts, picture.time_base = frame.pts, self._time_base
        self._container.mux(self._stream.encode(picture))

    def close(self) -> None:
        """Send what is left."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
        sys.stdout.buffer.flush()

    def abort(self) -> None:
        """Stop sending. What was already sent cannot be taken back."""
        self._container.close()


class _Shaped:
    """Passes a NUT file on and puts the pixels' shape into its stream header.

    FFmpeg's muxer takes the shape from a field that PyAV cannot set. The muxer writes all headers
    at once, at the start. The headers that it repeats later are only for readers that start there,
    so they are passed on unchanged.
    """

    def __init__(self, write: Callable[[bytes], int], aspect: Fraction) -> None:
        self._write, self._aspect = write, aspect

    def write(self, data: bytes) -> int:
        """Write a part of the file."""
        if self._aspect is not None and _NUT_STREAM in data:
            self._write(_with_aspect(bytes(data), self._aspect))
            self._aspect = None
        else:
            self._write(data)
        return len(data)


def _with_aspect(data: bytes, aspect: Fraction) -> bytes:
    """The start of a NUT file, with the width and height of a pixel put into its stream header."""
    start = data.index(_NUT_STREAM) + len(_NUT_STREAM)
    length, payload = _nut_number(data, start)
    end, position = payload + length - 4, payload
    for _ in range(2):  # the stream's number and class
        _, position = _nut_number(data, position)
    size, position = _nut_number(data, position)  # the code of the pixel format
    position += size
    for _ in range(5):  # time base, two limits of times, delay, flags
        _, position = _nut_number(data, position)
    size, position = _nut_number(data, position)  # codec-specific data
    position += size
    for _ in range(2):  # width and height
        _, position = _nut_number(data, position)
    after = position
    for _ in range(2):  # width and height of a pixel, which are 0 here
        _, after = _nut_number(data, after)
    shape = _nut_bytes(aspect.numerator) + _nut_bytes(aspect.denominator)
    body = data[payload:position] + shape + data[after:end]
    header = _nut_bytes(len(body) + 4) + body + _crc(body).to_bytes(4, "big")
    return data[:start] + header + data[end + 4 :]


def _nut_number(data: bytes, position: int) -> tuple[int, int]:
    """Read a number that is stored with seven bits per byte; return it and the position after."""
    value = 0
    while True:
        byte = data[position]
        value, position = value << 7 | byte & 0x7F, position + 1
        if byte < 0x80:
            return value, position


def _nut_bytes(value: int) -> bytes:
    data = bytes([value & 0x7F])
    while value := value >> 7:
        data = bytes([value & 0x7F | 0x80]) + data
    return data


def _crc(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (_CRC_POLYNOMIAL if crc >> 31 else 0)) & 0xFFFFFFFF
    return crc

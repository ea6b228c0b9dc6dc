"""Frames in: a video file, a folder or glob of images, or a pipe.

Every source says what it is (:class:`VideoInfo`) and is iterated once, yielding upright R'G'B'
frames with the exact timestamps of the file.
"""

from __future__ import annotations

import glob
import heapq
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import cv2
import numpy as np

from .clock import Clock
from .colour import RGB_FULL, Colour, ToRGB, chroma_subsampling, pixel_depth
from .packets import PacketWriter

logger = logging.getLogger(__name__)

OnError = Literal["conceal", "fail"]
"""What a broken frame does: its neighbour takes its place, or it ends the run."""

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True)
class VideoInfo:
    """What a source holds.

    Attributes:
        width: Pixels across, after rotation.
        height: Pixels down, after rotation.
        rate: Frames a second on average.
        time_base: Seconds a timestamp unit.
        sample_aspect_ratio: Width over height of one pixel, after rotation.
        depth: Bits a component.
        chroma: "420", "422" or "444".
        colour: Resolved tags.
        frames: The number of frames the file promises, or None; a promise, not a count.
        is_video: False for images, which have neither timestamps nor other streams.
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


class BrokenFrameError(ValueError):
    """A frame could not be decoded, and broken frames were asked to be fatal."""


def natural_key(path: str | Path) -> list[tuple[int, int, str]]:
    """Sort key that puts ``frame_9`` before ``frame_10``."""
    parts = re.split(r"(\d+)", str(path))
    return [(1, int(p), "") if p.isdigit() else (0, 0, p.casefold()) for p in parts]


def find_images(spec: str | Path) -> list[Path]:
    """Image files of a folder or a glob, in natural order; empty where it is neither.

    Raises:
        ValueError: A folder or glob without images.
    """
    path = Path(spec)
    if path.is_dir():
        found = [p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES]
    elif not path.exists() and any(c in str(spec) for c in "*?["):
        found = [Path(p) for p in glob.glob(str(spec), recursive=True)]
        found = [p for p in found if p.suffix.lower() in IMAGE_SUFFIXES]
    elif path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
        found = [path]
    else:
        return []
    if not found:
        raise ValueError(f"{spec}: no images in it ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return sorted(found, key=natural_key)


def open_source(
    spec: str | Path,
    *,
    rate: Fraction | None = None,
    on_error: OnError = "conceal",
) -> VideoSource | ImageSource:
    """Open whatever ``spec`` names.

    Args:
        spec: A video file, a folder of images, a glob, or ``-`` for a video on standard input.
        rate: Frames a second of images (default 24); of a video, overrides nothing and is refused.
        on_error: What a broken frame does: is concealed by its neighbour, or ends the run.

    Raises:
        FileNotFoundError: No such file.
        ValueError: No images, no video stream, or nothing that can be decoded.
    """
    images = [] if str(spec) == "-" else find_images(spec)
    if images:
        return ImageSource(images, rate=rate or Fraction(24), on_error=on_error)
    if rate is not None:
        raise ValueError(f"{spec}: --fps sets the rate of images; a video carries its own")
    return VideoSource(spec, on_error=on_error)


class ImageSource:
    """A sequence of image files of one size.

    Args:
        paths: Files in order.
        rate: Frames a second, for outputs that have time.
        on_error: As in :func:`open_source`.
    """

    def __init__(self, paths: Sequence[Path], *, rate: Fraction, on_error: OnError) -> None:
        self.paths = list(paths)
        self._on_error = on_error
        first = next((im for im in map(_read_image, self.paths) if im is not None), None)
        if first is None:
            raise ValueError(f"{self.paths[0].parent}: none of its images can be read")
        self.path = self.paths[0].parent
        self.problems: list[str] = []
        self._shape = first.shape
        self._first = first
        self.info = VideoInfo(
            width=first.shape[1],
            height=first.shape[0],
            rate=rate,
            time_base=1 / rate,
            sample_aspect_ratio=Fraction(1),
            depth=8 if first.dtype == np.uint8 else 16,
            chroma="444",
            colour=RGB_FULL,
            frames=len(self.paths),
            is_video=False,
        )

    def __iter__(self) -> Iterator[Frame]:
        last = self._first
        for index, path in enumerate(self.paths):
            image = _read_image(path)
            if image is None:
                _conceal(self, f"frame {index} ({path.name}) cannot be read")
                image = last
            if image.shape != self._shape:
                h, w = self._shape[:2]
                raise ValueError(
                    f"{path} is {image.shape[1]}x{image.shape[0]}, the first image was {w}x{h}"
                )
            last = to_dtype(image, self._first.dtype)
            yield Frame(index, index, 1, last, path.stem)

    def close(self) -> None:
        """Nothing is held open."""


class VideoSource:
    """The best video stream of a file or a pipe.

    Rotation (the container's display matrix) is applied to the pixels. Frames that the decoder
    rejects are replaced by the one before, at their own time, so that count and timing hold.

    Args:
        path: A file, or ``-``.
        on_error: As in :func:`open_source`.
    """

    def __init__(self, path: str | Path, *, on_error: OnError) -> None:
        self.is_pipe = str(path) == "-"
        self.path = path if self.is_pipe else Path(path)
        self._on_error = on_error
        self._spool: PacketWriter | None = None
        self._early: list[av.Packet] = []  # a pipe's other packets before anyone asked for them
        self.problems: list[str] = []
        self.container = open_container(self.path)
        try:
            self.stream = _video_stream(self.container, self.path)
            # Frame threads report an error with a later packet; slices keep the two together.
            self.stream.codec_context.thread_type = "SLICE"
            self._decoded = self._decode()
            self._first: tuple[av.VideoFrame, int | None] | None = None
            self._first = next(self._decoded, None)
            if self._first is None:
                raise ValueError(f"{self.path}: no frame of its video can be decoded")
            self._describe(self._first[0])
        except BaseException:
            self.container.close()
            raise

    def _describe(self, frame: av.VideoFrame) -> None:
        stream, fmt = self.stream, frame.format.name
        self._turn = _display_transform(frame)
        transposed = self._turn[0]
        size = (frame.height, frame.width) if transposed else (frame.width, frame.height)
        aspect = stream.sample_aspect_ratio or Fraction(1)
        colour = Colour(
            int(frame.colorspace), int(frame.color_range), int(frame.color_primaries),
            int(frame.color_trc),
        )  # fmt: skip
        colour = RGB_FULL if frame.format.is_rgb else colour.resolved(frame.width, frame.height)
        if fmt.startswith("yuvj"):  # deprecated names that mean full range
            colour = Colour(colour.matrix, 2, colour.primaries, colour.transfer)
        if frame.interlaced_frame:
            logger.warning("%s is interlaced; deinterlace it first for a sharp result", self.path)
        self._to_rgb = ToRGB(colour)
        self._size = (frame.width, frame.height)
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        self.info = VideoInfo(
            width=size[0],
            height=size[1],
            rate=Fraction(rate),
            time_base=Fraction(stream.time_base or 1 / rate),
            sample_aspect_ratio=1 / aspect if transposed else aspect,
            depth=pixel_depth(fmt),
            chroma=chroma_subsampling(fmt),
            colour=colour,
            frames=self._promised(rate),
            is_video=True,
        )

    def _promised(self, rate: Fraction) -> int | None:
        if self.stream.frames:
            return self.stream.frames
        if self.stream.duration:
            return max(1, round(self.stream.duration * self.stream.time_base * rate))
        if self.container.duration:
            return max(1, round(Fraction(self.container.duration, av.time_base) * rate))
        return None

    def divert(self, spool: PacketWriter) -> None:
        """Write a pipe's other packets to ``spool`` while it is read: it cannot be read twice."""
        self._spool = spool
        for packet in self._early:
            spool.write(packet, stream=packet.stream.index)
        self._early.clear()

    def __iter__(self) -> Iterator[Frame]:
        step = max(1, round(1 / (self.info.rate * self.info.time_base)))
        clock, unit = Clock(self.container), self.info.time_base
        frame, pts = self._first
        last_pts: int | None = None
        index = 0
        while frame is not None:
            if (frame.width, frame.height) != self._size:
                raise ValueError(
                    f"{self.path}: frame {index} is {frame.width}x{frame.height}, the first was "
                    f"{self._size[0]}x{self._size[1]}; a video that changes size must be split"
                )
            duration = frame.duration or step
            if pts is None:
                pts = 0 if last_pts is None else last_pts + step
            else:
                steps = clock.steps
                pts += round(clock.offset(pts * unit, duration * unit) / unit)
                if clock.steps > steps:
                    self.problems.append(f"its clock steps back at frame {index}: joined there")
                    logger.warning("%s: %s", self.path, self.problems[-1])
            if last_pts is not None and pts <= last_pts:  # encoders take increasing times only
                pts = last_pts + 1
            rgb = _upright(self._to_rgb(frame), self._turn)
            yield Frame(index, pts, duration, rgb)
            last_pts = pts
            index += 1
            frame, pts = next(self._decoded, (None, None))
        if self.stream.frames and index + self._discarded < self.stream.frames:
            _conceal(
                self,
                f"the file ends after frame {index - 1}: it promised {self.stream.frames} frames "
                f"and holds {index}",
            )

    def _packets(self) -> Iterator[av.Packet]:
        """Packets of the video, the flushing one last."""
        wanted = list(self.container.streams) if self.is_pipe else [self.stream]
        demuxed = self.container.demux(wanted)
        while True:
            try:
                packet = next(demuxed)
            except StopIteration:
                return
            except av.FFmpegError as error:
                _conceal(self, f"cannot be read on after frame {self._seen}: {error.strerror}")
                # What the decoder still holds comes out with an empty packet.
                flush = av.Packet()
                flush.stream = self.stream
                yield flush
                return
            if packet.stream is self.stream:
                yield packet
            elif packet.size:
                self._put_aside(packet)

    def _put_aside(self, packet: av.Packet) -> None:
        """Keep a packet of another stream; while the first frame is looked for, in memory."""
        if self._first is None:
            self._early.append(packet)
        elif self._spool is not None:
            self._spool.write(packet, stream=packet.stream.index)

    def _decode(self) -> Iterator[tuple[av.VideoFrame, int | None]]:
        """Frames and their times in display order, lost ones filled with a neighbour."""
        lost: list[int] = []
        shown: av.VideoFrame | None = None
        self._seen, self._discarded = 0, 0
        for packet in self._packets():
            self._discarded += bool(packet.is_discard)
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                if packet.pts is None:
                    continue
                heapq.heappush(lost, packet.pts)
                _conceal(self, f"{self._name(packet.pts)} cannot be decoded: {error.strerror}")
                continue
            for frame in frames:
                while lost and frame.pts is not None and lost[0] < frame.pts:
                    self._seen += 1
                    yield shown or frame, heapq.heappop(lost)
                if frame.is_corrupt:
                    _conceal(self, f"frame {self._seen} is damaged")
                self._seen += 1
                shown = frame
                yield frame, frame.pts
        while shown is not None and lost:
            yield shown, heapq.heappop(lost)

    def _name(self, pts: int) -> str:
        """The number of the frame shown at ``pts``, counting at the average rate, and its time."""
        seconds = (pts - (self.stream.start_time or 0)) * self.stream.time_base
        rate = self.stream.average_rate or self.stream.guessed_rate or Fraction(25)
        return f"frame {round(seconds * rate)} (at {float(seconds):.3f} s)"

    def close(self) -> None:
        """Close the file."""
        self.container.close()


def _conceal(source: VideoSource | ImageSource, problem: str) -> None:
    message = f"{source.path}: {problem}"
    if source._on_error == "fail":
        raise BrokenFrameError(message)
    source.problems.append(problem)
    logger.warning("%s; concealed", message)


def open_container(path: str | Path) -> av.container.InputContainer:
    """Open a media file, or a pipe for ``-``; titles that are not UTF-8 do not matter.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It cannot be opened.
    """
    if str(path) != "-" and not Path(path).exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    # Absolute, or FFmpeg would take what stands before a colon for a protocol.
    file = sys.stdin.buffer if str(path) == "-" else str(Path(path).absolute())
    try:
        return av.open(file, "r", metadata_errors="replace")
    except av.FFmpegError as error:
        raise ValueError(f"{path}: not a video that can be opened ({error.strerror})") from error


def _video_stream(container: av.container.InputContainer, path: str | Path) -> av.VideoStream:
    """The default video stream, passing over cover pictures."""
    streams = [
        s for s in container.streams.video
        if not s.disposition & av.stream.Disposition.attached_pic
    ]  # fmt: skip
    streams = [s for s in streams if s.codec_context is not None]  # of an unknown codec
    if not streams:
        raise ValueError(f"{path}: no video stream in it that can be decoded")
    marked = [s for s in streams if s.disposition & av.stream.Disposition.default]
    return (marked or streams)[0]


def _display_transform(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """(transpose, then flip left-right, then flip up-down) of a frame's display matrix.

    The matrix is row-major 16.16 fixed point; it takes the stored (x, y) to the shown
    (a x + c y, b x + d y), with a, b the first row's and c, d the second row's first two numbers.
    """
    data = next((d for d in frame.side_data if d.type.name == "DISPLAYMATRIX"), None)
    if data is None:
        return False, False, False
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].astype(np.int64)
    if not b and not c:
        return False, bool(a < 0), bool(d < 0)
    if not a and not d:
        return True, bool(c < 0), bool(b < 0)
    logger.warning("rotated by %d degrees, which is no quarter turn; left", frame.rotation)
    return False, False, False


def _upright(image: np.ndarray, turn: tuple[bool, bool, bool]) -> np.ndarray:
    transpose, mirror, upside_down = turn
    if transpose:
        image = image.transpose(1, 0, 2)
    if mirror:
        image = image[:, ::-1]
    if upside_down:
        image = image[::-1]
    return np.ascontiguousarray(image)


def to_dtype(image: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """A uint8 or uint16 picture as the other of the two, white staying white."""
    if image.dtype == dtype:
        return image
    return image.astype(np.uint16) * 257 if dtype == np.uint16 else (image >> 8).astype(np.uint8)


def _read_image(path: Path) -> np.ndarray | None:
    """RGB (h, w, 3) uint8 or uint16, upright, without alpha; None if it cannot be read."""
    # Through a buffer: OpenCV's own reader cannot open every name on Windows.
    data = np.fromfile(path, np.uint8)
    # Not IMREAD_UNCHANGED, which leaves photographs lying on their side.
    image = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH) if data.size else None
    if image is None or image.dtype not in (np.uint8, np.uint16):
        return None
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

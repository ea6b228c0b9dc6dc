"""Reads frames from a video file or a pipe."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.sidedata.sidedata import Type as SideData

from .clock import Clock, DisplayTimes
from .colour import RGB_FULL, Colour, chroma_subsampling, pixel_depth
from .containers import cut_short, declared_end, ends_before, is_pipe, open_container
from .conversion import ToRGB
from .deinterlace import Deinterlace, TimedFrame, deinterlaced
from .frames import Frame, OnError, Problems, VideoInfo
from .packets import PacketWriter

logger = logging.getLogger(__name__)

_CENTRED_CHROMA = frozenset({"mjpeg", "mpeg1video"})
_USUAL_RATE = Fraction(25)
_FASTEST = 1000


class VideoSource:
    """The best video stream of a file or a pipe.

    Rotation (the container's display matrix) is applied to the pixels. A frame that the decoder
    rejects is replaced by the frame before it, at its own time, so the number of frames and their
    times stay right.

    Args:
        path: A file, a named pipe, or ``-``.
        on_error: Whether a broken frame is replaced or ends the run.
        deinterlace: Whether interlaced frames are deinterlaced.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It has no video, or none that can be decoded.
        BrokenFrameError: The file was cut short, and ``on_error`` is "fail".
    """

    def __init__(
        self,
        path: str | Path,
        *,
        on_error: OnError = "conceal",
        deinterlace: Deinterlace = "auto",
    ) -> None:
        self.is_pipe = is_pipe(path)
        self.path = path if str(path) == "-" else Path(path)
        self.problems = Problems(path, on_error)
        self._spool: PacketWriter | None = None
        self._early: list[av.Packet] = []  # a pipe's other packets before its first frame
        self.container = open_container(self.path)
        # Where a file has no display times, FFmpeg would make them up, and wrongly for B-frames.
        self.container.flags &= ~av.container.Flags.gen_pts.value
        try:
            self.stream = best_video_stream(self.container, self.path)
            # With frame threads an error is reported for a later packet; with slice threads it is
            # reported for the packet that caused it.
            self.stream.codec_context.thread_type = "SLICE"
            if not self.is_pipe and (reason := cut_short(self.path, self.container)):
                count = f"; it promised {self.stream.frames} frames" if self.stream.frames else ""
                self.problems.conceal(reason + count)
            self._started = False
            self._decoded = self._same_size(self._decode())
            if deinterlace == "auto":
                self._decoded = deinterlaced(self._decoded, Fraction(self.stream.time_base))
            self._first: TimedFrame | None = next(self._decoded, None)
            if self._first is None:
                raise ValueError(f"{self.path}: no frame of its video can be decoded")
            self._started = True
            self._describe(self._first[0])
        except BaseException:
            self.container.close()
            raise

    def _describe(self, frame: av.VideoFrame) -> None:
        stream, fmt = self.stream, frame.format.name
        self._turn = _display_transform(frame)
        transposed = self._turn[0]
        size = (frame.height, frame.width) if transposed else (frame.width, frame.height)
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        colour = _colour_of(frame)
        if frame.interlaced_frame:
            logger.warning("%s is interlaced; deinterlace it for a sharp result", self.path)
        self._to_rgb = ToRGB(colour, centred=stream.codec_context.name in _CENTRED_CHROMA)
        rate = _rate_of(stream)
        self.info = VideoInfo(
            width=size[0],
            height=size[1],
            rate=rate,
            time_base=Fraction(stream.time_base or 1 / rate),
            sample_aspect_ratio=1 / aspect if transposed else aspect,
            depth=pixel_depth(fmt),
            chroma=chroma_subsampling(fmt),
            colour=colour,
            frames=self._promised(rate),
            is_video=not frame.format.is_rgb,
        )

    def _promised(self, rate: Fraction) -> int | None:
        if self.stream.frames:
            return self.stream.frames
        if self.stream.duration:
            return max(1, round(self.stream.duration * Fraction(self.stream.time_base) * rate))
        if self.container.duration:
            return max(1, round(Fraction(self.container.duration, av.time_base) * rate))
        return None

    def divert(self, spool: PacketWriter) -> None:
        """Write a pipe's other packets to ``spool`` during reading: a pipe cannot be read twice."""
        self._spool = spool
        for packet in self._early:
            spool.write(packet, stream=packet.stream.index)
        self._early.clear()

    @property
    def early_packets(self) -> list[av.Packet]:
        """A pipe's packets of other streams that were read before the first frame."""
        return list(self._early)

    def __iter__(self) -> Iterator[Frame]:
        unit = self.info.time_base
        step = max(1, round(1 / (self.info.rate * unit)))
        clock, index, last_pts, end = Clock(self.container), 0, None, Fraction(0)
        frame, pts = self._first
        while frame is not None:
            duration = frame.duration or step
            if pts is None:
                pts = 0 if last_pts is None else last_pts + step
            else:
                steps, end = clock.steps, (pts + duration) * unit
                pts += round(clock.offset(pts * unit, duration * unit) / unit)
                if clock.steps > steps:
                    self.problems.note(f"its clock steps back at frame {index}: joined there")
            if last_pts is not None and pts <= last_pts:  # encoders accept only increasing times
                pts = last_pts + 1
            yield Frame(index, pts, duration, _upright(self._to_rgb(frame), self._turn))
            last_pts = pts
            index += 1
            frame, pts = next(self._decoded, (None, None))
        self._check_end(index, end)

    def _check_end(self, count: int, end: Fraction) -> None:
        """Report a file whose header says that it goes on after the last frame.

        Args:
            count: The number of frames that were read.
            end: The end of the last frame in seconds.
        """
        if self.is_pipe:
            return
        declared = declared_end(self.path, self.container)
        if declared is not None and end < declared and ends_before(self.path, declared):
            self.problems.conceal(
                f"it is cut short: by its header it lasts until {float(declared):.2f} s, and its "
                f"{count} frames end at {float(end):.2f} s"
            )

    def _packets(self) -> Iterator[av.Packet]:
        """Packets of the video, and at the end the empty packet that flushes the decoder."""
        wanted = list(self.container.streams) if self.is_pipe else [self.stream]
        demuxed = self.container.demux(wanted)
        while True:
            try:
                packet = next(demuxed)
            except StopIteration:
                return
            except av.FFmpegError as error:
                self.problems.conceal(
                    f"cannot be read on after frame {self._seen}: {error.strerror}"
                )
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
        """Keep a packet of another stream: in memory before the first frame, then in the spool."""
        if not self._started:
            self._early.append(packet)
        elif self._spool is not None:
            self._spool.write(packet, stream=packet.stream.index)

    def _decode(self) -> Iterator[TimedFrame]:
        """Frames and their times in display order; a lost frame is replaced by a neighbour."""
        lost: list[int] = []
        shown: av.VideoFrame | None = None
        times = DisplayTimes()
        self._seen = 0
        for packet in self._packets():
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                stamp = packet.pts if packet.pts is not None else packet.dts
                if stamp is not None:
                    heapq.heappush(lost, stamp)
                    self.problems.conceal(
                        f"{self._name(stamp)} cannot be decoded: {error.strerror}"
                    )
                continue
            for frame in frames:
                pts = times.time(frame)
                while lost and pts is not None and lost[0] < pts:
                    self._seen += 1
                    yield shown or frame, heapq.heappop(lost)
                if frame.is_corrupt:
                    self.problems.conceal(f"frame {self._seen} is damaged")
                self._seen += 1
                shown = frame
                yield frame, pts
        while shown is not None and lost:
            yield shown, heapq.heappop(lost)

    def _same_size(self, frames: Iterator[TimedFrame]) -> Iterator[TimedFrame]:
        size = None
        for number, (frame, pts) in enumerate(frames):
            size = size or (frame.width, frame.height)
            if (frame.width, frame.height) != size:
                raise ValueError(
                    f"{self.path}: frame {number} is {frame.width}x{frame.height}, the first was "
                    f"{size[0]}x{size[1]}; a video that changes size must be split"
                )
            yield frame, pts

    def _name(self, pts: int) -> str:
        """Name the frame at ``pts`` by its time and its number, counted at the average rate."""
        seconds = (pts - (self.stream.start_time or 0)) * Fraction(self.stream.time_base)
        return f"frame {round(seconds * _rate_of(self.stream))} (at {float(seconds):.3f} s)"

    def close(self) -> None:
        """Close the file."""
        self.container.close()


def best_video_stream(container: av.container.InputContainer, path: str | Path) -> av.VideoStream:
    """The video stream that is upscaled: the default one, or the first.

    It is never a cover picture, nor the single picture that an animated AVIF has besides its film.

    Raises:
        ValueError: There is none, or none that FFmpeg can decode.
    """
    streams = [s for s in container.streams.video if not is_cover(s) and s.codec_context]
    if not streams:
        raise ValueError(f"{path}: no video stream in it that can be decoded")
    streams = [s for s in streams if s.frames != 1 or s.duration] or streams
    marked = [s for s in streams if s.disposition & av.stream.Disposition.default]
    return (marked or streams)[0]


def _rate_of(stream: av.VideoStream) -> Fraction:
    """Average frames per second. For very short DV files FFmpeg's own average is far too high."""
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate and rate <= _FASTEST:
            return Fraction(rate)
    return _USUAL_RATE


def is_cover(stream: av.stream.Stream) -> bool:
    """Whether a video stream is a cover picture and not a film."""
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _colour_of(frame: av.VideoFrame) -> Colour:
    """The frame's colour tags, resolved."""
    fmt = frame.format
    if fmt.is_rgb:
        return RGB_FULL
    colour = Colour(
        int(frame.colorspace), int(frame.color_range), int(frame.color_primaries),
        int(frame.color_trc),
    )  # fmt: skip
    full = fmt.name.startswith("yuvj") or (fmt.name.startswith("gray") and not colour.range)
    if full:  # deprecated names that mean full range; FFmpeg takes untagged grey for full range too
        colour = Colour(colour.matrix, 2, colour.primaries, colour.transfer)
    return colour.resolved(frame.width, frame.height)


def _display_transform(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """(transpose, then flip left-right, then flip up-down) of a frame's display matrix.

    The matrix is in row-major 16.16 fixed point. It maps the stored position (x, y) to the shown
    position (a x + c y, b x + d y), where a and b are the first two numbers of the first row, and c
    and d those of the second row.
    """
    data = frame.side_data.get(SideData.DISPLAYMATRIX)
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

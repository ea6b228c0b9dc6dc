"""Putting encoded segments and the source's other streams together in one file."""

from __future__ import annotations

import copy
import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from math import ceil
from pathlib import Path

import av

from .clock import Clock
from .encoding import Encoding, set_up
from .packets import PacketTimes, read_packets, read_times
from .reader import open_container

logger = logging.getLogger(__name__)


class CopiedStreams:
    """Audio, subtitles and attachments of the source, copied without decoding.

    Args:
        path: The source; opened anew for every use.
        kinds: Which of "audio", "subtitle" and "attachment".
    """

    def __init__(self, path: Path, kinds: Sequence[str] = ("audio", "subtitle", "attachment")):
        self._path, self.kinds = path, tuple(kinds)

    def of_kinds(self, kinds: Sequence[str]) -> CopiedStreams:
        """The same, with these kinds alone."""
        fewer = copy.copy(self)
        fewer.kinds = tuple(kinds)
        return fewer

    def open(self) -> av.container.InputContainer:
        """The container to copy from."""
        return open_container(self._path)

    def close(self, source: av.container.InputContainer) -> None:
        """Let go of what :meth:`open` gave."""
        source.close()

    def packets(
        self, source: av.container.InputContainer, streams: list[av.stream.Stream]
    ) -> Iterator[av.Packet]:
        """The streams' packets in the file's order."""
        if not streams:
            return
        demuxed = source.demux(streams)
        while True:
            try:
                packet = next(demuxed)
            except StopIteration:
                return
            except av.FFmpegError as error:  # a truncated source: copy what there is
                logger.warning("%s: its other streams end early: %s", self._path, error.strerror)
                return
            if packet.size:
                yield packet

    def select(self, source: av.container.InputContainer) -> list[av.stream.Stream]:
        """The streams to copy."""
        return [s for s in source.streams if s.type in self.kinds]

    def check(self, container: str) -> None:
        """Find out before any work whether the output's container can hold the streams.

        Raises:
            ValueError: It cannot; names the stream.
        """
        source = self.open()
        try:
            for stream in self.select(source):
                with _trial(container) as file:
                    _add_copy(file, stream)
                    if stream.type != "attachment":
                        _start(file, stream)
        finally:
            self.close(source)


class SpooledStreams(CopiedStreams):
    """The same for a pipe, whose other packets were put aside while it was read.

    Args:
        container: The open pipe.
        spool: The packet file.
        kinds: As above.
    """

    def __init__(
        self, container: av.container.InputContainer, spool: Path, kinds: Sequence[str]
    ) -> None:
        super().__init__(Path("-"), kinds)
        self._container, self._spool = container, spool

    def open(self) -> av.container.InputContainer:
        """The pipe itself, for its streams' descriptions."""
        return self._container

    def close(self, source: av.container.InputContainer) -> None:
        """The pipe stays open."""

    def packets(
        self, source: av.container.InputContainer, streams: list[av.stream.Stream]
    ) -> Iterator[av.Packet]:
        """What was put aside."""
        by_index = {s.index: s for s in streams}
        for packet, times in read_packets(self._spool, Fraction(1)):
            if times.stream in by_index:
                packet.stream = by_index[times.stream]
                packet.time_base = packet.stream.time_base
                yield packet


def check_encoding(encoding: Encoding) -> None:
    """Find out before any work whether the encoder opens and the container takes its video.

    Raises:
        ValueError: It does not; says what was refused.
    """
    with _trial(encoding.container) as file:
        try:
            video = _video_stream(file, encoding)
        except ValueError:
            raise ValueError(
                f"{encoding.container} cannot hold what {encoding.codec} writes: choose another "
                "--codec, or write to .mkv"
            ) from None
        try:
            video.codec_context.open()
            file.start_encoding()
        except av.FFmpegError as error:
            options = " ".join(f"{k}={v}" for k, v in encoding.options.items())
            raise ValueError(
                f"{encoding.codec} cannot encode {encoding.width}x{encoding.height} in "
                f"{encoding.pix_fmt} with {options or 'its defaults'} ({error.strerror}): change "
                "--codec, --preset, --crf or --pix-fmt"
            ) from error


@contextmanager
def _trial(container: str) -> Iterator[av.container.OutputContainer]:
    """A file in memory that nothing is written to but a header."""
    file = av.open(io.BytesIO(), "w", format=container)
    try:
        yield file
    finally:
        with suppress(av.FFmpegError):  # AC-3, say, cannot be described without a packet of it
            file.close()


def _start(file: av.container.OutputContainer, stream: av.stream.Stream) -> None:
    """Write the header, which some combinations are refused in."""
    try:
        file.start_encoding()
    except av.FFmpegError:
        raise _not_stored(file, stream) from None


def _add_copy(output: av.container.OutputContainer, stream: av.stream.Stream) -> av.stream.Stream:
    if stream.type == "attachment":
        if output.format.name != "matroska":
            raise _not_stored(output, stream)
        return output.add_attachment(
            stream.name or f"attachment{stream.index}", stream.mimetype or "", stream.data
        )
    try:
        copy = output.add_stream_from_template(stream, opaque=True)
    except ValueError:
        raise _not_stored(output, stream) from None
    copy.metadata.update(stream.metadata)
    copy.disposition = stream.disposition
    return copy


def _not_stored(output: av.container.OutputContainer, stream: av.stream.Stream) -> ValueError:
    context = stream.codec_context
    codec = f", {context.name}" if context is not None else ""
    option = "--no-audio" if stream.type == "audio" else "--no-subtitles"
    return ValueError(
        f"stream {stream.index} of the source ({stream.type}{codec}) cannot be stored unchanged in "
        f"{output.format.name}: write to .mkv, or leave it out with {option}"
    )


def assemble(
    segments: Sequence[Path],
    encoding: Encoding,
    output: Path,
    *,
    extras: CopiedStreams | None = None,
    trim: bool = False,
) -> None:
    """Write a file of encoded segments in order, and of the source's other streams.

    Args:
        segments: Packet files that follow each other in display order.
        encoding: How they were encoded.
        output: The file; replaced if it exists.
        extras: Streams to copy from the source.
        trim: End the copied streams where the video ends, for a part of a video.
    """
    times = [t for path in segments for t in read_times(path)]
    decode_times = increasing_dts(times)
    end = max(t.pts + t.duration for t in times) * encoding.time_base
    in_mp4 = encoding.container in ("mp4", "mov")
    if in_mp4:
        # A late start is written in units of the movie's own clock, by default milliseconds.
        unit = encoding.time_base.denominator
        clock = unit * -(-1000 // unit)
        options = {"movflags": "+faststart", "movie_timescale": str(clock)}
    else:  # sound that starts a few milliseconds early, as AAC does, must not shift the video
        options = {"avoid_negative_ts": "disabled"}
    source = extras.open() if extras else None
    try:
        with av.open(
            str(output.absolute()), "w", format=encoding.container, options=options
        ) as file:
            video = _video_stream(file, encoding)
            copied: Iterator[av.Packet] = iter(())
            if extras and source:
                _copy_metadata(file, source)
                streams = extras.select(source)
                targets = {s.index: _add_copy(file, s) for s in streams}
                taken = [s for s in streams if s.type != "attachment"]
                copied = extras.packets(source, taken)
                file.start_encoding()  # which settles the units of time
                copied = _retargeted(
                    copied, targets, Clock(source), end if trim else None, distinct=in_mp4
                )
            _interleave(file, _video_packets(segments, decode_times, encoding, video), copied)
    finally:
        if extras and source:
            extras.close(source)


def _video_stream(file: av.container.OutputContainer, encoding: Encoding) -> av.VideoStream:
    """A stream described by an encoder like the segments' (which gives it its parameter sets)."""
    stream = file.add_stream(encoding.codec, rate=encoding.rate, options=dict(encoding.options))
    set_up(stream.codec_context, encoding)
    stream.codec_context.flags |= av.codec.context.Flags.global_header
    stream.time_base = encoding.time_base
    if encoding.codec == "libx265" and encoding.container in ("mp4", "mov"):
        stream.codec_context.codec_tag = "hvc1"  # the tag that Apple's players ask for
    return stream


def _copy_metadata(file: av.container.OutputContainer, source: av.container.InputContainer) -> None:
    technical = {"major_brand", "minor_version", "compatible_brands", "encoder", "duration"}
    file.metadata.update({k: v for k, v in source.metadata.items() if k.lower() not in technical})
    if source.chapters():
        file.set_chapters(source.chapters())


def _video_packets(
    segments: Sequence[Path], decode_times: list[int], encoding: Encoding, stream: av.VideoStream
) -> Iterator[av.Packet]:
    all_dts = iter(decode_times)
    for path in segments:
        for packet, _ in read_packets(path, encoding.time_base):
            packet.dts = next(all_dts)
            packet.stream = stream
            yield packet


def _retargeted(
    packets: Iterator[av.Packet],
    targets: dict[int, av.stream.Stream],
    clock: Clock,
    end: Fraction | None,
    *,
    distinct: bool,
) -> Iterator[av.Packet]:
    """Packets for the output's streams, with times that its format takes."""
    last: dict[int, int] = {}
    for packet in packets:
        target, unit = targets[packet.stream.index], packet.time_base
        _shift(packet, clock)
        if end is not None and packet.pts is not None and packet.pts * unit >= end:
            continue
        if packet.dts is not None:
            # MP4's times must differ in its own unit; Matroska takes equal ones.
            apart = ceil(max(1, target.time_base / unit)) if distinct else 0
            if target.index in last:
                packet.dts = max(packet.dts, last[target.index] + apart)
            last[target.index] = packet.dts
            if packet.pts is not None:
                packet.pts = max(packet.pts, packet.dts)
        packet.stream = target
        yield packet


def _shift(packet: av.Packet, clock: Clock) -> None:
    stamp = packet.dts if packet.dts is not None else packet.pts
    if stamp is None:
        return
    unit, stream = packet.time_base, packet.stream
    times = (stamp * unit, (packet.duration or 0) * unit)
    offset = clock.offset(*times, stream=stream.index, may_step=stream.type != "subtitle")
    offset = round(offset / unit)
    if packet.pts is not None:
        packet.pts += offset
    if packet.dts is not None:
        packet.dts += offset


def _interleave(
    file: av.container.OutputContainer, video: Iterator[av.Packet], copied: Iterator[av.Packet]
) -> None:
    """Mux in the order of time, so that the muxer has nothing to hold back."""
    waiting = next(copied, None)
    for packet in video:
        now = packet.dts * packet.time_base
        while waiting is not None and _time(waiting) <= now:
            file.mux_one(waiting)
            waiting = next(copied, None)
        file.mux_one(packet)
    while waiting is not None:
        file.mux_one(waiting)
        waiting = next(copied, None)


def _time(packet: av.Packet) -> Fraction:
    stamp = packet.dts if packet.dts is not None else packet.pts
    return Fraction(0) if stamp is None else stamp * packet.time_base


def increasing_dts(times: Sequence[PacketTimes]) -> list[int]:
    """Decoding times for packets in decoding order, increasing over all segments.

    Every encoder chose its own for its segment, and with a variable rate those of two segments can
    cross. The k-th packet gets the (k - d)-th presentation time, with the smallest delay d that
    leaves no packet decoded after it is shown.

    Raises:
        ValueError: No packets, or a packet without a presentation time.
    """
    if not times or any(t.pts is None for t in times):
        raise ValueError("the encoder gave packets without times; choose another with --codec")
    shown = sorted(t.pts for t in times)
    rank = {pts: i for i, pts in enumerate(shown)}
    delay = max(k - rank[t.pts] for k, t in enumerate(times))
    step = max(1, shown[1] - shown[0]) if len(shown) > 1 else 1
    lead = [shown[0] - (delay - k) * step for k in range(min(delay, len(shown)))]
    return lead + shown[: len(shown) - len(lead)]

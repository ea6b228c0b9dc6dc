"""Puts encoded segments and the source's other streams together into one file."""

from __future__ import annotations

import errno
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from math import ceil
from pathlib import Path

import av

from . import ebml
from .clock import Clock
from .encoding import Encoding, encoder_options, set_up
from .film import best_video_stream
from .packets import PacketTimes, read_packets, read_times
from .streams import OtherStreams, muxer_options
from .tags import copy_tags, describe_stream
from .tracks import Attachment, Track

logger = logging.getLogger(__name__)

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
_DAMAGED = (av.InvalidDataError, av.ArgumentError)


def assemble(
    segments: Sequence[Path],
    encoding: Encoding,
    output: Path,
    *,
    extras: OtherStreams | None = None,
    trim: bool = False,
) -> None:
    """Write a file from encoded segments, in order, and from the source's other streams.

    If the muxer refuses a stream after all, this function leaves the stream out with a warning, so
    that the upscaled video is not lost.

    Args:
        segments: Packet files that follow each other in display order.
        encoding: How they were encoded.
        output: The file to write; it is replaced if it exists.
        extras: The source's other streams, after :meth:`OtherStreams.plan`.
        trim: End the other streams where the video ends, for a part of a video.

    Raises:
        OSError: The file cannot be written, for example because the disk is full.
        ValueError: The segments cannot be put together.
    """
    muxer = _Muxer(segments, encoding, output, trim=trim)
    failed_before = False
    while True:
        try:
            muxer.write(extras)
            return
        except (av.FFmpegError, ValueError) as error:
            if extras is None or getattr(error, "errno", None) in _NO_ROOM:
                raise
            if not failed_before:  # try again: if that succeeds, no stream caused the failure
                failed_before = True
                continue
            if muxer.current is None:
                _write_without_one(muxer, extras, error)
                return
            extras.leave_out(muxer.current.index)
            logger.warning("%s", _left_out(muxer.current.name, error))


def _write_without_one(muxer: _Muxer, extras: OtherStreams, error: Exception) -> None:
    """Write the file without each other stream in turn, and at last without all of them."""
    for part, name in extras.parts():
        try:
            muxer.write(extras.without(part))
        except (av.FFmpegError, ValueError) as again:
            if getattr(again, "errno", None) in _NO_ROOM:
                raise
            continue
        logger.warning("%s", _left_out(name, error))
        return
    muxer.write(None)
    logger.warning("%s", _left_out("all but the film", error))


def _left_out(name: str, error: Exception) -> str:
    return f"{name} cannot be written and is left out ({error})"


class _Muxer:
    """Writes one output file; :meth:`write` may be called several times, to try again.

    Args:
        segments: As for :func:`assemble`, and so are the other arguments.
    """

    def __init__(
        self, segments: Sequence[Path], encoding: Encoding, output: Path, *, trim: bool
    ) -> None:
        self._segments, self._encoding, self._output = segments, encoding, output
        times = [t for path in segments for t in read_times(path)]
        self._decode_times = increasing_dts(times)
        end = max(t.pts + t.duration for t in times) * encoding.time_base
        self._end = end if trim else None
        self.current: Track | None = None  # whose packet is being written

    def write(self, extras: OtherStreams | None) -> None:
        """Write the whole file."""
        encoding, self.current = self._encoding, None
        self._tells = extras is not None and not extras.is_rehearsal
        options = self._options(keep_all_tags=extras is not None and extras.keep_all_tags)
        source = extras.open() if extras else None
        try:
            with av.open(
                str(self._output.absolute()), "w", format=encoding.container, options=options
            ) as file:
                video = video_stream(file, encoding)
                others: Iterator[tuple[Track, av.Packet]] = iter(())
                if extras and source:
                    others = self._add_others(file, video, extras, source)
                file.start_encoding()  # this fixes the units of time
                self._interleave(file, self._video_packets(video), others)
        finally:
            if extras and source:
                extras.close(source)
        aspect = encoding.sample_aspect_ratio
        if encoding.container in ("matroska", "webm") and aspect != 1:
            shown = ebml.display_size(encoding.width, encoding.height, aspect)
            ebml.set_display_size(self._output, *shown)

    def _options(self, *, keep_all_tags: bool) -> dict[str, str]:
        options = muxer_options(self._encoding.container)
        if self._encoding.container in ("mp4", "mov"):
            # MP4 stores a late start in units of the movie's own clock, by default milliseconds.
            unit = self._encoding.time_base.denominator
            flags = "+faststart" + ("+use_metadata_tags" if keep_all_tags else "")
            options |= {"movflags": flags, "movie_timescale": str(unit * -(-1000 // unit))}
        elif self._encoding.sample_aspect_ratio != 1:
            options["write_crc32"] = "0"  # a checksum would be wrong: the header is changed later
        return options

    def _add_others(
        self,
        file: av.container.OutputContainer,
        video: av.VideoStream,
        extras: OtherStreams,
        source: av.container.InputContainer,
    ) -> Iterator[tuple[Track, av.Packet]]:
        film = best_video_stream(source, extras.path)
        if extras.keep_tags:
            copy_tags(file, source)
            describe_stream(video, film)
        tracks = extras.tracks(source, self._encoding.container)
        for track in tracks:
            self.current = track
            track.add(file)
        self.current = None
        distinct = self._encoding.container in ("mp4", "mov")
        with_packets = [t.stream for t in tracks if not isinstance(t, Attachment)]
        packets = extras.packets(source, with_packets)
        return _converted(packets, tracks, Clock(source), self._end, distinct=distinct)

    def _video_packets(self, stream: av.VideoStream) -> Iterator[av.Packet]:
        all_dts = iter(self._decode_times)
        for path in self._segments:
            for packet, _ in read_packets(path, self._encoding.time_base):
                packet.dts = next(all_dts)
                packet.stream = stream
                yield packet

    def _interleave(
        self,
        file: av.container.OutputContainer,
        video: Iterator[av.Packet],
        others: Iterator[tuple[Track, av.Packet]],
    ) -> None:
        """Write packets in the order of their times, so that the muxer need not hold any back."""
        dropped: Counter[int] = Counter()
        names: dict[int, str] = {}

        def put(track: Track, packet: av.Packet) -> None:
            self.current = track
            try:
                file.mux_one(packet)
            except _DAMAGED:
                dropped[track.index] += 1
            names[track.index] = track.name
            if track.dropped:
                dropped[track.index] += track.dropped
                track.dropped = 0
            self.current = None

        waiting = next(others, None)
        for packet in video:
            now = packet.dts * packet.time_base
            while waiting is not None and _time(waiting[1]) <= now:
                put(*waiting)
                waiting = next(others, None)
            file.mux_one(packet)
        while waiting is not None:
            put(*waiting)
            waiting = next(others, None)
        for index, count in dropped.items() if self._tells else ():
            logger.warning("%s: %d damaged packet(s) are left out", names[index], count)


def video_stream(file: av.container.OutputContainer, encoding: Encoding) -> av.VideoStream:
    """Add a video stream, described by an encoder with the settings of the segments' encoder.

    The encoder provides the parameter sets for the header.
    """
    stream = file.add_stream(encoding.codec, rate=encoding.rate, options=encoder_options(encoding))
    set_up(stream.codec_context, encoding)
    stream.codec_context.flags |= av.codec.context.Flags.global_header
    stream.time_base = encoding.time_base
    if encoding.codec == "libx265" and encoding.container in ("mp4", "mov"):
        stream.codec_context.codec_tag = "hvc1"  # the tag that Apple's players ask for
    return stream


def _converted(
    packets: Iterator[av.Packet],
    tracks: Sequence[Track],
    clock: Clock,
    end: Fraction | None,
    *,
    distinct: bool,
) -> Iterator[tuple[Track, av.Packet]]:
    """The output's packets of all tracks, with times that the output's format accepts."""
    by_index = {track.index: track for track in tracks}
    last: dict[int, Fraction] = {}
    for packet in packets:
        track = by_index[packet.stream.index]
        _shift(packet, clock)
        if end is not None and packet.pts is not None and packet.pts * packet.time_base >= end:
            continue
        for made in track.convert(packet):
            _separate(made, track, last, distinct=distinct)
            yield track, made
    for track in tracks:
        for made in track.flush():
            _separate(made, track, last, distinct=distinct)
            yield track, made


def _separate(
    packet: av.Packet, track: Track, last: dict[int, Fraction], *, distinct: bool
) -> None:
    """Make a track's decoding times increase.

    In MP4, times must differ in the stream's own unit. Matroska accepts equal times.
    """
    if packet.dts is None:
        return
    unit = Fraction(packet.time_base)
    apart = ceil(max(1, track.target.time_base / unit)) if distinct else 0
    if track.index in last:
        packet.dts = max(packet.dts, ceil(last[track.index] / unit) + apart)
    last[track.index] = packet.dts * unit
    if packet.pts is not None:
        packet.pts = max(packet.pts, packet.dts)


def _shift(packet: av.Packet, clock: Clock) -> None:
    stamp = packet.dts if packet.dts is not None else packet.pts
    if stamp is None:
        return
    unit, stream = Fraction(packet.time_base), packet.stream
    times = (stamp * unit, (packet.duration or 0) * unit)
    steady = stream.type in ("audio", "video")
    offset = round(clock.offset(*times, stream=stream.index, may_step=steady) / unit)
    if packet.pts is not None:
        packet.pts += offset
    if packet.dts is not None:
        packet.dts += offset


def _time(packet: av.Packet) -> Fraction:
    stamp = packet.dts if packet.dts is not None else packet.pts
    return Fraction(0) if stamp is None else stamp * Fraction(packet.time_base)


def increasing_dts(times: Sequence[PacketTimes]) -> list[int]:
    """Decoding times for packets in decoding order, increasing over all segments.

    Each segment was encoded on its own and has decoding times of its own, and with a variable rate
    the times of two segments can overlap. So new ones are made here: the k-th packet gets the
    (k - d)-th presentation time. The delay d is the smallest for which no packet is decoded after
    it is shown.

    Raises:
        ValueError: There are no packets, or a packet has no presentation time.
    """
    if not times or any(t.pts is None for t in times):
        raise ValueError("the encoder gave packets without times; choose another with --codec")
    shown = sorted(t.pts for t in times)
    rank = {pts: i for i, pts in enumerate(shown)}
    delay = max(k - rank[t.pts] for k, t in enumerate(times))
    step = max(1, shown[1] - shown[0]) if len(shown) > 1 else 1
    lead = [shown[0] - (delay - k) * step for k in range(min(delay, len(shown)))]
    return lead + shown[: len(shown) - len(lead)]

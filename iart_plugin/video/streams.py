"""The other streams of a source: sound, subtitles, further films, covers, attachments and data."""

from __future__ import annotations

import copy
import io
import itertools
import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av

from .containers import LENIENT, open_container
from .film import VideoSource, best_video_stream, is_cover
from .packets import read_packets
from .tags import content_tags, name_of
from .tracks import Attachment, Track, candidates

logger = logging.getLogger(__name__)

Sound = Literal["copy", "encode", "none"]
"""Sound is copied if the output can hold it ("copy"), always re-encoded, or left out ("none")."""

_SAMPLE_PACKETS = 8  # the number of packets of each stream that a trial writes
_SEARCHED_PACKETS = 4000
# Formats whose video streams are the same film in several sizes.
_PLAYLISTS = frozenset({"hls", "dash"})
_FONTS = ("font", "ttf", "otf", "opentype", "truetype")


class OtherStreams:
    """All streams of a source except the upscaled one, and how each is written to the output.

    Args:
        path: The source, which is opened again for every use.
        sound: Whether sound is copied, re-encoded or left out.
        subtitles: Whether subtitles, and the fonts attached for them, are kept.
    """

    is_rehearsal = False

    def __init__(self, path: str | Path, *, sound: Sound = "copy", subtitles: bool = True) -> None:
        self.path, self._sound, self._subtitles = path, sound, subtitles
        self.left_out: list[str] = []
        self.keep_tags = True
        self.keep_all_tags = False
        self._covers: dict[int, bytes] = {}
        self._ways: dict[int, int] = {}  # by stream: which of its candidates is used

    def open(self) -> av.container.InputContainer:
        """Open the container to read from."""
        return open_container(self.path)

    def close(self, source: av.container.InputContainer) -> None:
        """Close what :meth:`open` returned."""
        source.close()

    def plan(self, container: str) -> list[str]:
        """Find out by trial how each stream can be written to a container.

        Args:
            container: The output's container, as :func:`.encoding.container_of` names it.

        Returns:
            One line for each stream that is not copied unchanged.
        """
        lines = []
        source = self.open()
        try:
            streams = self._wanted(source)
            samples = self.samples(source, streams)
            for stream in streams:
                found = samples[stream.index]
                if is_cover_stream(stream) and found:
                    self._covers[stream.index] = bytes(found[0])
                for number, track in enumerate(self._candidates(stream, container)):
                    # Try twice: if the second trial succeeds, the container was not the cause.
                    if any(_succeeds(track, container, found) for _ in range(2)):
                        self._ways[stream.index] = number
                        if track.how != Track.how:
                            lines.append(f"{name_of(stream)} is {track.how}")
                        break
                else:
                    # A timecode is kept as a tag of the film, and chapters are written as such.
                    if not (_is_timecode(stream) or _is_chapters(stream)):
                        self.left_out.append(name_of(stream))
        finally:
            self.close(source)
        return lines

    def leave_out(self, index: int) -> None:
        """Leave out a stream that :meth:`plan` included."""
        self._ways.pop(index, None)

    def parts(self) -> list[tuple[int | None, str]]:
        """The parts that may be left out: tags and chapters (None), and the streams' numbers."""
        return [(None, "tags and chapters"), *((i, f"stream {i}") for i in reversed(self._ways))]

    def without(self, part: int | None) -> OtherStreams:
        """A copy of these streams that lacks one of :meth:`parts`."""
        fewer = copy.copy(self)
        fewer._ways = {index: way for index, way in self._ways.items() if index != part}
        fewer.keep_tags = self.keep_tags and part is not None
        return fewer

    def tracks(self, source: av.container.InputContainer, container: str) -> list[Track]:
        """The streams that :meth:`plan` included, ready to be added to an output."""
        return [
            next(itertools.islice(self._candidates(s, container), self._ways[s.index], None))
            for s in source.streams
            if s.index in self._ways
        ]

    def _candidates(self, stream: av.stream.Stream, container: str) -> Iterator[Track]:
        cover = self._covers.get(stream.index)
        return candidates(stream, container, encode=self._sound == "encode", cover=cover)

    def _wanted(self, source: av.container.InputContainer) -> list[av.stream.Stream]:
        film = best_video_stream(source, self.path)
        return [s for s in source.streams if s.index != film.index and self._is_wanted(s)]

    def _is_wanted(self, stream: av.stream.Stream) -> bool:
        if stream.type == "audio":
            return self._sound != "none"
        if stream.type == "video" and not is_cover_stream(stream):
            return stream.container.format.name not in _PLAYLISTS
        if stream.type == "subtitle":
            return self._subtitles
        if stream.type == "attachment" and not self._subtitles:
            kind = f"{stream.mimetype} {stream.name}".lower()
            return not any(font in kind for font in _FONTS)
        return True

    def packets(
        self, source: av.container.InputContainer, streams: list[av.stream.Stream]
    ) -> Iterator[av.Packet]:
        """The packets of these streams in the order of the file."""
        if not streams:
            return
        demuxed = source.demux(streams)
        while True:
            try:
                packet = next(demuxed)
            except StopIteration:
                return
            except av.FFmpegError as error:  # the source is truncated: keep what was read
                logger.warning("%s: its other streams end early: %s", self.path, error.strerror)
                return
            if packet.size:
                yield packet

    def samples(
        self, source: av.container.InputContainer, streams: list[av.stream.Stream]
    ) -> dict[int, list[av.Packet]]:
        """The first packets of each stream, if they are near the start of the file."""
        found: dict[int, list[av.Packet]] = {s.index: [] for s in streams}
        with_packets = [s for s in streams if s.type != "attachment"]
        for packet in itertools.islice(self.packets(source, with_packets), _SEARCHED_PACKETS):
            if len(found[packet.stream.index]) < _SAMPLE_PACKETS:
                found[packet.stream.index].append(packet)
            if all(len(found[s.index]) >= _SAMPLE_PACKETS for s in with_packets):
                break
        return found


class SampledStreams(OtherStreams):
    """The start of each of another object's streams, for a rehearsal of the whole output."""

    is_rehearsal = True

    def __init__(self, whole: OtherStreams) -> None:
        self.__dict__.update(whole.__dict__)
        self._whole = whole

    def open(self) -> av.container.InputContainer:
        """Open the container of the complete streams."""
        return self._whole.open()

    def close(self, source: av.container.InputContainer) -> None:
        """Close the container as the complete streams do."""
        self._whole.close(source)

    def packets(
        self, source: av.container.InputContainer, streams: list[av.stream.Stream]
    ) -> Iterator[av.Packet]:
        """The first packets of each stream."""
        found = self._whole.samples(source, streams)
        return iter([copy_of(packet) for packets in found.values() for packet in packets])


class SpooledStreams(OtherStreams):
    """The other streams of a pipe. Their packets are stored in a file while the pipe is read.

    Args:
        source: The open pipe.
        spool: The packet file, which is complete when the pipe has ended.
        sound: Whether sound is copied, re-encoded or left out.
        subtitles: Whether subtitles and their fonts are kept.
    """

    def __init__(
        self, source: VideoSource, spool: Path, *, sound: Sound = "copy", subtitles: bool = True
    ) -> None:
        super().__init__(source.path, sound=sound, subtitles=subtitles)
        self._container, self._early = source.container, source.early_packets
        self._spool = spool

    def open(self) -> av.container.InputContainer:
        """Return the open pipe, because it holds the descriptions of the streams."""
        return self._container

    def close(self, source: av.container.InputContainer) -> None:
        """Do nothing: the pipe stays open."""

    def samples(
        self, source: av.container.InputContainer, streams: list[av.stream.Stream]
    ) -> dict[int, list[av.Packet]]:
        """The packets that were read before the first frame."""
        found: dict[int, list[av.Packet]] = {s.index: [] for s in streams}
        for packet in self._early:
            if packet.stream.index in found:
                found[packet.stream.index].append(copy_of(packet))
        return {index: packets[:_SAMPLE_PACKETS] for index, packets in found.items()}

    def packets(
        self, source: av.container.InputContainer, streams: list[av.stream.Stream]
    ) -> Iterator[av.Packet]:
        """The packets that were stored in the spool."""
        by_index = {s.index: s for s in streams}
        for packet, times in read_packets(self._spool, Fraction(1)):
            if times.stream in by_index:
                packet.stream = by_index[times.stream]
                packet.time_base = packet.stream.time_base
                yield packet


def is_cover_stream(stream: av.stream.Stream) -> bool:
    """Whether a stream is a cover picture."""
    return stream.type == "video" and is_cover(stream)


def _is_timecode(stream: av.stream.Stream) -> bool:
    return stream.type == "data" and "timecode" in content_tags(stream.metadata)


def _is_chapters(stream: av.stream.Stream) -> bool:
    """Whether a stream is the track of MP4 and QuickTime that FFmpeg has read the chapters from."""
    return stream.type == "data" and stream.discard == av.stream.Discard.all


def copy_of(packet: av.Packet) -> av.Packet:
    """A copy of a packet. Muxing changes a packet, so the copy is muxed."""
    copy = av.Packet(bytes(packet))
    copy.time_base, copy.stream = packet.time_base, packet.stream
    copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
    copy.is_keyframe = packet.is_keyframe
    return copy


def _succeeds(track: Track, container: str, samples: list[av.Packet]) -> bool:
    """Whether a container with a stream's first packets can be written and read back."""
    memory = io.BytesIO()
    file = av.open(memory, "w", format=container, options=muxer_options(container))
    try:
        track.add(file)
        file.start_encoding()
        for packet in samples:
            file.mux(list(track.convert(copy_of(packet))))
        file.mux(list(track.flush()))
        expected = _kind(track.stream if track.how == Track.how else track.target)
        file.close()
        if isinstance(track, Attachment) or not samples:
            return True
        memory.seek(0)
        with av.open(memory, "r", **LENIENT) as back:
            return expected in map(_kind, back.streams)
    except (ValueError, av.FFmpegError):
        return False
    finally:
        if track.stream.codec_context is not None:
            track.stream.codec_context.flush_buffers()


def _kind(stream: av.stream.Stream) -> tuple[str, str | None]:
    """A stream's type and the name of its codec, which do not depend on the decoder or encoder."""
    context = stream.codec_context
    return stream.type, None if context is None else context.codec.canonical_name


def muxer_options(container: str) -> dict[str, str]:
    """Options of FFmpeg's muxers, so that the same input gives the same file, bit for bit."""
    if container in ("mp4", "mov"):
        return {}
    # Without "bitexact", Matroska and WebM files get random identifiers. Without the other option,
    # sound that starts a few milliseconds early, as AAC does, would shift the film.
    return {"fflags": "+bitexact", "avoid_negative_ts": "disabled"}

"""The ways to write another stream of the source: copied, re-encoded, or converted."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import PurePath

import av
from av.bitstream import BitStreamFilterContext

from .tags import describe_stream, name_of

logger = logging.getLogger(__name__)

_LOSSLESS_SOUND = ("pcm_", "flac", "alac", "wavpack", "tta", "ape", "mlp", "truehd", "s302m")
_SOUND_CODECS = {"mp4": "aac", "mov": "aac", "webm": "libopus", "matroska": "aac"}
_BITS_A_CHANNEL = 96_000
_TEXT_CODECS = {"mp4": "mov_text", "mov": "mov_text", "webm": "webvtt", "matroska": "subrip"}
_TEXT_SOURCES = frozenset(
    {"mov_text", "subrip", "srt", "ass", "ssa", "webvtt", "text", "microdvd", "sami", "realtext",
     "subviewer", "subviewer1", "jacosub", "mpl2", "pjs", "stl", "vplayer"}
)  # fmt: skip
_IMAGE_TYPES = {"mjpeg": ("image/jpeg", ".jpg"), "png": ("image/png", ".png")}


class Track:
    """A stream that is copied without decoding.

    Args:
        stream: The source's stream. Its container must stay open while the track is used.
    """

    how = "copied"

    def __init__(self, stream: av.stream.Stream) -> None:
        self.stream = stream
        self.index, self.name = stream.index, name_of(stream)
        self.dropped = 0  # packets or frames that were damaged
        self.target: av.stream.Stream | None = None

    def add(self, file: av.container.OutputContainer) -> None:
        """Add the stream to an output.

        Raises:
            ValueError: PyAV finds that the output cannot hold the stream.
            av.FFmpegError: FFmpeg finds that the output cannot hold the stream.
        """
        self.target = self._make(file)
        describe_stream(self.target, self.stream)

    def _make(self, file: av.container.OutputContainer) -> av.stream.Stream:
        copy = file.add_stream_from_template(self.stream, opaque=True)
        if copy.type == "audio":
            layout = copy.codec_context.layout
            if layout.name.endswith("channels"):  # the source does not say which channel is which
                copy.codec_context.layout = default_layout(layout.nb_channels)
        return copy

    def convert(self, packet: av.Packet) -> Iterable[av.Packet]:
        """The output's packets for one packet of the source, whose times are already converted."""
        packet.stream = self.target
        return [packet]

    def flush(self) -> Iterable[av.Packet]:
        """The packets that are left at the end."""
        return ()


class UnlistedTrack(Track):
    """A copied stream whose codec FFmpeg's muxer accepts but does not list.

    For example, Matroska stores the sound of old AVI files with its AVI description.
    """

    def _make(self, file: av.container.OutputContainer) -> av.stream.Stream:
        stand_in = {"audio": "pcm_s16le", "video": "rawvideo", "subtitle": "subrip"}
        copy = file.add_mux_stream(stand_in[self.stream.type])
        BitStreamFilterContext("null", in_stream=self.stream, out_stream=copy)
        copy.time_base = self.stream.time_base
        return copy


class Attachment(Track):
    """A file inside the source, such as a font or a cover, that goes into the output's header."""

    def __init__(self, stream: av.stream.Stream, cover: bytes | None = None) -> None:
        super().__init__(stream)
        self._cover = cover

    def _make(self, file: av.container.OutputContainer) -> av.stream.Stream:
        if file.format.name != "matroska":
            raise ValueError(f"{file.format.name} holds no attachments")
        kind, suffix = "application/octet-stream", ""
        if self._cover is not None:
            kind, suffix = _IMAGE_TYPES[self.stream.codec_context.name]
        name = self.stream.metadata.get("filename") or f"attachment{self.index}{suffix}"
        if self._cover is not None and "filename" not in self.stream.metadata:
            name = f"cover{suffix}"
        kind = self.stream.metadata.get("mimetype") or kind
        data = self._cover if self._cover is not None else self.stream.data
        return file.add_attachment(PurePath(name).name, kind, data)

    def add(self, file: av.container.OutputContainer) -> None:
        """Add the attachment to an output, without a disposition, which attachments do not have."""
        self.target = self._make(file)
        if title := self.stream.metadata.get("title"):
            self.target.metadata["title"] = title

    def convert(self, packet: av.Packet) -> Iterable[av.Packet]:
        """Return no packets, because the data is in the header."""
        return ()


class SoundTrack(Track):
    """Sound that is decoded and encoded again.

    Args:
        stream: The source's stream.
        container: The output's container.
        stereo: Mix the channels down to two, for encoders that do not accept the source's channels.
    """

    def __init__(self, stream: av.stream.Stream, container: str, *, stereo: bool = False) -> None:
        super().__init__(stream)
        context = stream.codec_context
        lossless = context.name.startswith(_LOSSLESS_SOUND)
        codec = "flac" if lossless and container == "matroska" else _SOUND_CODECS[container]
        self.how = f"encoded as {codec.removeprefix('lib')}"
        self._codec = av.Codec(codec, "w")
        rates = sorted(self._codec.audio_rates or [context.sample_rate])
        self._rate = next((r for r in rates if r >= context.sample_rate), rates[-1])
        channels = context.layout.nb_channels
        unnamed = context.layout.name.endswith("channels")
        layout = default_layout(channels) if unnamed else context.layout.name
        self._layout = "stereo" if stereo else layout
        self._bit_rate = None if codec == "flac" else _BITS_A_CHANNEL * max(1, channels)
        self._graph: av.filter.Graph | None = None

    def _make(self, file: av.container.OutputContainer) -> av.stream.Stream:
        copy = file.add_stream(self._codec.name, rate=self._rate)
        copy.codec_context.layout = self._layout
        copy.codec_context.time_base = copy.time_base = Fraction(1, self._rate)
        if self._bit_rate is not None:
            copy.codec_context.bit_rate = self._bit_rate
        return copy

    def convert(self, packet: av.Packet) -> Iterator[av.Packet]:
        """Encoded packets. Damaged packets of the source become silence."""
        try:
            frames = self.stream.codec_context.decode(packet)
        except av.FFmpegError:
            self.dropped += 1
            return
        for frame in frames:
            if self._graph is None:
                self._graph = self._resampler(frame)
            self._graph.push(frame)
            yield from self._encoded()

    def flush(self) -> Iterator[av.Packet]:
        """The encoder's last packets."""
        if self._graph is None:
            return
        self._graph.push(None)
        yield from self._encoded()
        yield from self.target.encode(None)

    def _resampler(self, frame: av.AudioFrame) -> av.filter.Graph:
        """A filter that keeps sound at its time: it fills gaps with silence and cuts overlaps."""
        graph = av.filter.Graph()
        unit = Fraction(frame.time_base)
        context = self.target.codec_context
        source = graph.add(
            "abuffer",
            f"sample_rate={frame.sample_rate}:sample_fmt={frame.format.name}"
            f":channel_layout={_spelled(frame.layout)}"
            f":time_base={unit.numerator}/{unit.denominator}",
        )
        nodes = [source, graph.add("aresample", f"{self._rate}:async=1")]
        form = f"sample_fmts={context.format.name}:channel_layouts={self._layout}"
        nodes += [graph.add("aformat", form)]
        if context.frame_size:
            nodes += [graph.add("asetnsamples", f"n={context.frame_size}:p=0")]
        graph.link_nodes(*nodes, graph.add("abuffersink")).configure()
        return graph

    def _encoded(self) -> Iterator[av.Packet]:
        while True:
            try:
                frame = self._graph.pull()
            except (av.BlockingIOError, av.EOFError):
                return
            yield from self.target.encode(frame)


class TextTrack(Track):
    """Text subtitles that are converted to the output's format."""

    def __init__(self, stream: av.stream.Stream, container: str) -> None:
        super().__init__(stream)
        self._codec = _TEXT_CODECS[container]
        self.how = f"converted to {self._codec}"

    def _make(self, file: av.container.OutputContainer) -> av.stream.Stream:
        decoder = self.stream.codec_context
        if not decoder.is_open:
            decoder.open()
        copy = file.add_stream(self._codec)
        copy.codec_context.subtitle_header = decoder.subtitle_header
        copy.codec_context.time_base = copy.time_base = Fraction(1, 1000)
        return copy

    def convert(self, packet: av.Packet) -> Iterator[av.Packet]:
        """One packet for each text. MP4 also has empty packets that end a text; they give none."""
        try:
            texts = self.stream.codec_context.decode2(packet)
            if not texts:
                return
            data = bytes(self.target.codec_context.encode_subtitle(texts))
        except av.FFmpegError:
            self.dropped += 1
            return
        text = av.Packet(data)
        text.time_base, text.pts, text.dts = packet.time_base, packet.pts, packet.pts
        text.duration, text.stream = packet.duration, self.target
        text.is_keyframe = True
        yield text


def default_layout(channels: int) -> str:
    """FFmpeg's name for the usual layout of a number of channels."""
    usual = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
    return usual.get(channels, f"{channels}c")


def _spelled(layout: av.AudioLayout) -> str:
    """A layout's name in the form that a filter accepts."""
    return f"{layout.nb_channels}c" if layout.name.endswith("channels") else layout.name


def candidates(
    stream: av.stream.Stream, container: str, *, encode: bool, cover: bytes | None
) -> Iterator[Track]:
    """The ways in which a stream may be written to a container, the best one first."""
    if stream.type == "attachment":
        yield Attachment(stream)
        return
    if cover is not None and container == "matroska":
        yield Attachment(stream, cover)
        return
    if not (encode and stream.type == "audio"):
        yield Track(stream)
        if stream.type in ("audio", "video", "subtitle"):
            yield UnlistedTrack(stream)
    if stream.codec_context is None:
        return
    if stream.type == "audio":
        yield SoundTrack(stream, container)
        yield SoundTrack(stream, container, stereo=True)
    elif stream.type == "subtitle" and stream.codec_context.name in _TEXT_SOURCES:
        yield TextTrack(stream, container)

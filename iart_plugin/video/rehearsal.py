"""Finds out before any upscaling whether the output can be written and what it cannot hold."""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import av
import numpy as np

from .containers import open_container
from .encoding import Encoding
from .film import best_video_stream
from .muxing import assemble, video_stream
from .streams import OtherStreams, SampledStreams, is_cover_stream
from .tags import lost_of_stream, lost_tags, name_of
from .tracks import Attachment
from .writer import VideoSegment

logger = logging.getLogger(__name__)


def check_encoding(encoding: Encoding) -> None:
    """Check before any upscaling that the encoder opens and the container accepts its video.

    Raises:
        ValueError: The encoder or the container refuses; the message says what was refused.
    """
    with _trial(encoding.container) as file:
        try:
            video = video_stream(file, encoding)
        except ValueError:
            raise ValueError(
                f"{encoding.container} cannot hold what {encoding.codec} writes: choose another "
                f"--codec{_other_container(encoding)}"
            ) from None
        try:
            video.codec_context.open()
            file.start_encoding()
        except av.FFmpegError as error:
            options = " ".join(f"{k}={v}" for k, v in encoding.options.items())
            raise ValueError(
                f"{encoding.codec} cannot encode {encoding.width}x{encoding.height} in "
                f"{encoding.pix_fmt} with {options or 'its defaults'} ({error.strerror}): change "
                "--codec, --preset, --crf or --pixel-format"
            ) from error


def _other_container(encoding: Encoding) -> str:
    return "" if encoding.container == "matroska" else ", or write to .mkv"


@contextmanager
def _trial(container: str) -> Iterator[av.container.OutputContainer]:
    """A file in memory, to which only a header is written."""
    file = av.open(io.BytesIO(), "w", format=container)
    try:
        yield file
    finally:
        with suppress(av.FFmpegError):
            file.close()


def plan_streams(extras: OtherStreams, encoding: Encoding) -> None:
    """Decide how the other streams are written, by writing a small but complete output file.

    One message is logged for each stream that is re-encoded or converted. One warning names
    everything that cannot be kept.
    """
    for line in extras.plan(encoding.container):
        logger.info("%s: %s", extras.path, line)
    lost = extras.left_out + _rehearse(extras, encoding)
    if lost:
        logger.warning(
            "%s: %s cannot keep %s%s", extras.path, encoding.container, "; ".join(lost),
            "" if encoding.container == "matroska" else "; .mkv holds more",
        )  # fmt: skip


def _rehearse(extras: OtherStreams, encoding: Encoding) -> list[str]:
    """Write one black frame and the start of the streams; return the descriptions that got lost."""
    with tempfile.TemporaryDirectory() as folder:
        segment = VideoSegment(Path(folder) / "segment", encoding)
        black = np.zeros((encoding.height, encoding.width, 3), np.uint8)
        segment.write_at(0, 1, black)
        segment.close()
        output = Path(folder) / "output"
        sampled = SampledStreams(extras)
        lost = _losses(extras, sampled, encoding, [segment.path], output)
        if lost and encoding.container in ("mp4", "mov"):
            # Tags with arbitrary names, such as QuickTime's, need another form of storage, which
            # replaces the usual one. So that form is only tried if the usual one loses tags.
            sampled.keep_all_tags = True
            more = _losses(extras, sampled, encoding, [segment.path], output)
            extras.keep_all_tags = len(more) < len(lost)
            lost = more if extras.keep_all_tags else lost
    return lost


def _losses(
    extras: OtherStreams,
    sampled: SampledStreams,
    encoding: Encoding,
    segments: list[Path],
    output: Path,
) -> list[str]:
    assemble(segments, encoding, output, extras=sampled)
    source = extras.open()
    try:
        with open_container(output) as back:
            lost = [f"tag {key}" for key in lost_tags(source.metadata, back.metadata)]
            if len(back.chapters()) < len(source.chapters()):
                lost.append("chapters")
            tracks = extras.tracks(source, encoding.container)
            pairs = [(best_video_stream(source, extras.path), back.streams[0])]
            # Covers come last in the output, whatever their position in the source.
            shown = [t.stream for t in tracks if not isinstance(t, Attachment)]
            covers = [s for s in shown if is_cover_stream(s)]
            kept = sum(map(is_cover_stream, back.streams))
            lost += [name_of(s) for s in covers[kept:]]
            shown = [s for s in shown if s not in covers]
            pairs += zip(shown, list(back.streams)[1:], strict=False)
            for before, after in pairs:
                if missing := lost_of_stream(before, after):
                    lost.append(f"{', '.join(missing)} of {name_of(before)}")
    finally:
        extras.close(source)
    return lost

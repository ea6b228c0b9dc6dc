"""Copies a file's metadata: titles, languages, dispositions and chapters."""

from __future__ import annotations

from collections.abc import Mapping

import av

from .containers import readable_text

# Tags that describe the encoding and not the content. The muxer writes those of the output.
_TECHNICAL = frozenset({
    "major_brand", "minor_version", "compatible_brands", "encoder", "software", "duration",
    "vendor_id", "rotate", "bps", "number_of_frames", "number_of_bytes", "variant_bitrate",
    "filename", "mimetype", "id3v2_priv.com.apple.streaming.transportstreamtimestamp",
})  # fmt: skip
_WRITTEN_DIFFERENTLY = frozenset({"creation_time", "date", "language", "handler_name"})
_UNKNOWN_LANGUAGES = (None, "", "und")


def content_tags(metadata: Mapping[str, str]) -> dict[str, str]:
    """The tags that say something about the content, as valid text."""
    tags = readable_text(dict(metadata))
    return {k: v for k, v in tags.items() if not _is_technical(k.lower())}


def _is_technical(key: str) -> bool:
    return key.split("-")[0] in _TECHNICAL or key.startswith("_statistics")


def copy_tags(file: av.container.OutputContainer, source: av.container.InputContainer) -> None:
    """Give an output the source's tags and chapters."""
    file.metadata.update(content_tags(source.metadata))
    chapters = source.chapters()
    if chapters:
        for chapter in chapters:
            chapter["metadata"] = readable_text(chapter["metadata"])
        file.set_chapters(chapters)


def describe_stream(copy: av.stream.Stream, stream: av.stream.Stream) -> None:
    """Give an output's stream the title, language, disposition and other tags of its source."""
    tags = content_tags(stream.metadata)
    if "title" in tags and copy.container.format.name in ("mp4", "mov"):
        tags["handler_name"] = tags["title"]  # players of MP4 look for a stream's title there
    copy.metadata.update(tags)
    copy.disposition = stream.disposition


def lost_tags(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Names of the tags that are missing in the output or have another value there.

    Containers write a few tags in a form of their own. For these, any value counts as kept.
    """
    kept = {k.lower(): v for k, v in after.items()}
    kept |= {k.split("-")[0]: v for k, v in kept.items() if "-" in k}
    lost = []
    for key, value in content_tags(before).items():
        name = key.lower().split("-")[0] if key.lower() not in kept else key.lower()
        same = kept.get(name) == value or (name in _WRITTEN_DIFFERENTLY and name in kept)
        if not same and not (name == "language" and value in _UNKNOWN_LANGUAGES):
            lost.append(key)
    return lost


def lost_of_stream(before: av.stream.Stream, after: av.stream.Stream) -> list[str]:
    """What a stream lost in the output: tags, its language, and dispositions that players use."""
    kept = readable_text(after.metadata)
    kept.setdefault("title", kept.get("handler_name", ""))
    lost = [k for k in lost_tags(before.metadata, kept) if k.lower() != "handler_name"]
    language = before.metadata.get("language")
    if language not in (*_UNKNOWN_LANGUAGES, after.metadata.get("language")):
        lost = [*(k for k in lost if k != "language"), f"language {language}"]
    flags = before.disposition & ~after.disposition & ~av.stream.Disposition.default
    return lost + [flag.name for flag in flags]


def name_of(stream: av.stream.Stream) -> str:
    """A stream's name for messages, such as "stream 2 (audio, aac, eng)"."""
    context = stream.codec_context
    codec = context.name if context is not None else getattr(stream, "name", None)
    details = [stream.type, codec, readable_text(stream.metadata).get("language")]
    return f"stream {stream.index} ({', '.join(d for d in details if d)})"

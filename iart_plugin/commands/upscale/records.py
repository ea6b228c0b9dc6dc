"""The record of everything that decides a run's result, so that only the same run is resumed."""

from __future__ import annotations

import hashlib
from typing import Any

from iart_plugin.inference.memory import Plan
from iart_plugin.video.encoding import Encoding
from iart_plugin.video.reader import ImageSource, VideoSource


def record_of_source(
    source: VideoSource | ImageSource, encoding: Encoding | None
) -> dict[str, Any]:
    """The part of the record that describes the source and the encoding."""
    return {
        "input": source_identity(source),
        "encoding": "png" if encoding is None else encoding.as_dict(),
    }


def plan_record(plan: Plan, segment: int) -> dict[str, Any]:
    """The part of the plan that decides the output's contents."""
    return {
        "chunk": plan.chunk,
        "first_chunk": plan.first_chunk,
        "warm_up": plan.warm_up,
        "tile": list(plan.tiling.size),
        "overlap": plan.tiling.overlap,
        "segment": segment,
    }


def source_identity(source: VideoSource | ImageSource) -> dict[str, Any]:
    """Identifies a source, without reading it all, by names, sizes and times of change."""
    if isinstance(source, ImageSource):
        digest = hashlib.sha256()
        for path in source.paths:
            stat = path.stat()
            digest.update(f"{path.name!a} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        return {"images": len(source.paths), "digest": digest.hexdigest()}
    if source.is_pipe:
        return {"pipe": True}
    stat = source.path.stat()
    return {"name": source.path.name, "bytes": stat.st_size, "changed": stat.st_mtime_ns}

"""Turning interlaced frames into whole ones, by FFmpeg's bwdif."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Literal

import av

logger = logging.getLogger(__name__)

Deinterlace = Literal["auto", "off"]
"""Whether frames that are marked as interlaced are deinterlaced ("auto") or left as they are."""

TimedFrame = tuple[av.VideoFrame, int | None]
"""A decoded frame and its display time in the stream's units, None where it has none."""


def deinterlaced(frames: Iterable[TimedFrame], unit: Fraction) -> Iterator[TimedFrame]:
    """One whole frame for each frame; those that are not marked as interlaced pass unchanged.

    Args:
        frames: Frames of one size and format in display order.
        unit: Seconds in one unit of their times.
    """
    graph: av.filter.Graph | None = None
    times: list[tuple[int | None, int]] = []  # display times and durations
    for frame, pts in frames:
        if graph is None and not frame.interlaced_frame:
            yield frame, pts
            continue
        if graph is None:
            logger.info("interlaced frames are made whole by bwdif; --deinterlace off keeps them")
            graph = _bwdif(frame, unit)
        # The filter returns one frame for each, but one frame late; so the times wait in a queue.
        times.append((pts, frame.duration))
        frame.pts, frame.time_base = len(times) - 1, unit
        graph.vpush(frame)
        yield from _pulled(graph, times)
    if graph is not None:
        graph.vpush(None)
        yield from _pulled(graph, times)


def _pulled(graph: av.filter.Graph, times: list[tuple[int | None, int]]) -> Iterator[TimedFrame]:
    while True:
        try:
            frame = graph.vpull()
        except (av.BlockingIOError, av.EOFError):
            return
        pts, frame.duration = times[frame.pts // 2]  # it counts in half frames
        yield frame, pts


def _bwdif(frame: av.VideoFrame, unit: Fraction) -> av.filter.Graph:
    graph = av.filter.Graph()
    source = graph.add(
        "buffer",
        f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}"
        f":time_base={unit.numerator}/{unit.denominator}:pixel_aspect=1/1"
        f":colorspace={int(frame.colorspace)}:range={int(frame.color_range)}",
    )
    graph.link_nodes(
        source, graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink")
    ).configure()
    return graph

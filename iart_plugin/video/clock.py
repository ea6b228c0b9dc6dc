"""Turns a source's timestamps into output timestamps, which start near 0 and never step back.

The times of transport streams and DVDs start wherever the broadcaster's clock stood, and the times
of recordings that were joined start again in the middle. MP4 would store hours of nothing before
the first frame of the former, and it refuses the latter.
"""

from __future__ import annotations

from fractions import Fraction

import av

# Formats whose clock does not start at 0: those of broadcasters and of recorded network streams.
_RUNNING_CLOCKS = frozenset(
    {"mpegts", "mpegtsraw", "mpeg", "hls", "dash", "flv", "live_flv", "wtv"}
)
_STEP = 1  # seconds; less is jitter


class DisplayTimes:
    """Display times of decoded frames by FFmpeg's best-effort rule, which ``ffprobe`` shows too.

    Old AVI files, and Matroska files made from them, store no display times. A decoder then guesses
    them from the decoding times, and with B-frames the guesses go back and forth. This class
    therefore counts how often the frames' own times and the decoding times of their packets step
    back. It uses a frame's own time unless the own times have stepped back more often.
    """

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._faults = {"pts": 0, "dts": 0}

    def time(self, frame: av.VideoFrame) -> int | None:
        """The frame's time in its stream's units; called in display order."""
        pts, dts = frame.pts, frame.dts
        self._note("dts", dts, pts)
        self._note("pts", pts, dts)
        if pts is not None and (dts is None or self._faults["pts"] <= self._faults["dts"]):
            return pts
        return dts

    def _note(self, kind: str, stamp: int | None, other: int | None) -> None:
        if stamp is not None and kind in self._last:
            self._faults[kind] += stamp <= self._last[kind]
        if stamp is not None or other is not None:
            self._last[kind] = stamp if stamp is not None else other


class Clock:
    """The clock of one pass over a source. All streams that are read in the pass share it.

    Args:
        container: The open source.
    """

    def __init__(self, container: av.container.InputContainer) -> None:
        start = Fraction(0)
        if container.format.name in _RUNNING_CLOCKS and container.start_time is not None:
            start = Fraction(container.start_time, av.time_base)
        self._offsets = [-start]
        self._last: dict[int, Fraction] = {}
        self._ends: dict[int, Fraction] = {}

    def offset(
        self, stamp: Fraction, duration: Fraction, *, stream: int = 0, may_step: bool = True
    ) -> Fraction:
        """Return the seconds to add to a time of a stream. Call it in the order of the file.

        Args:
            stamp: The source's time in seconds.
            duration: Seconds until the next time of the stream.
            stream: The number of the stream.
            may_step: Whether a step back in this stream counts as a new start of the clock. Sparse
                streams, such as subtitles, only follow the others.
        """
        offset = self._offsets[-1]
        if len(self._offsets) > 1:  # near a joint, some streams are past it and some are not
            now = max(self._ends.values())
            offset = min(self._offsets[-2:], key=lambda o: abs(stamp + o - now))
        last = self._last.get(stream)
        if may_step and last is not None and stamp + offset < last - _STEP:
            offset = self._ends[stream] - stamp
            self._offsets.append(offset)
        if may_step:
            self._last[stream] = stamp + offset
            self._ends[stream] = stamp + offset + duration
        return offset

    @property
    def steps(self) -> int:
        """How often the source's clock has stepped back so far."""
        return len(self._offsets) - 1

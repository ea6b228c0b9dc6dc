"""From the times that a source gives to the output's: they start near 0 and never step back.

Transport streams and DVDs start wherever their broadcaster's clock stood, and recordings that were
joined begin anew in the middle. MP4 would store the first as hours of nothing and take the second
not at all.
"""

from __future__ import annotations

from fractions import Fraction

import av

# Formats of broadcasters, and of players' recordings of network streams.
_RUNNING_CLOCKS = frozenset(
    {"mpegts", "mpegtsraw", "mpeg", "hls", "dash", "flv", "live_flv", "wtv"}
)
_STEP = 1  # seconds; less is jitter


class DisplayTimes:
    """Display times of decoded frames by FFmpeg's best-effort rule, which ``ffprobe`` shows too.

    Old AVI files, and Matroska files made of them, store no display times, and what a decoder makes
    of their decoding times goes back and forth where there are B-frames. So a frame's own time
    counts as long as such times have not stepped back more often than the decoding times of the
    frames' packets; from then on these count.
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
    """The clock of one pass over a source, for all streams that are read in it.

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
        """Seconds to add to a stream's times, called in the order of the file.

        Args:
            stamp: The source's time.
            duration: Until the next one.
            stream: Which one.
            may_step: Whether a step back is this stream's to find. Sparse ones only follow.
        """
        offset = self._offsets[-1]
        if len(self._offsets) > 1:  # near a joint, some streams are behind it and some before
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
        """How often the source's clock stepped back so far."""
        return len(self._offsets) - 1

"""From the times that a source gives to the output's: they start near 0 and never step back.

Transport streams and DVDs start wherever their broadcaster's clock stood, and recordings that were
joined begin anew in the middle. MP4 would store the first as hours of nothing and take the second
not at all.
"""

from __future__ import annotations

from fractions import Fraction

import av

_RUNNING_CLOCKS = frozenset({"mpegts", "mpeg"})
_STEP = 1  # seconds; less is jitter


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

"""A part of a film: ``--start``, ``--end`` and ``--frames``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from iart_plugin.video.clock import Clock
from iart_plugin.video.reader import Frame, VideoInfo

from .options import UpscaleOptions


class NothingSelected(ValueError):
    """A film has no frame in the selected part."""


@dataclass(frozen=True)
class Selection:
    """Says which frames of a film are upscaled; the result begins at time 0.

    Attributes:
        start: Seconds on the film's clock from which on frames are taken.
        end: Seconds on the film's clock before which they are taken, or None.
        frames: How many are taken at most, or None.
    """

    start: Fraction
    end: Fraction | None
    frames: int | None

    @classmethod
    def of(cls, options: UpscaleOptions) -> Selection | None:
        """Return the selection that the options ask for, or None if they select everything."""
        if options.start is None and options.end is None and options.frames is None:
            return None
        return cls(options.start or Fraction(0), options.end, options.frames)

    def take(self, frames: Iterator[Frame], time_base: Fraction) -> Iterator[Frame]:
        """The selected frames, counted from 0.

        Raises:
            NothingSelected: There are none.
        """
        shift, count, time = round(self.start / time_base), 0, Fraction(0)
        for frame in frames:
            time = frame.pts * time_base
            if time < self.start:
                continue
            if (self.end is not None and time >= self.end) or count == self.frames:
                break
            yield replace(frame, index=count, pts=frame.pts - shift)
            count += 1
        if not count:
            raise NothingSelected(
                f"--start {float(self.start):g}: no frame is selected; the film's last one is at "
                f"{float(time):.3f} s"
            )

    def count(self, info: VideoInfo) -> int | None:
        """About how many frames are selected, or None where that is not known."""
        ends = [Fraction(info.frames) / info.rate] if info.frames is not None else []
        ends += [] if self.end is None else [self.end]
        counts = [max(1, round((min(ends) - self.start) * info.rate))] if ends else []
        counts += [] if self.frames is None else [self.frames]
        return min(counts, default=None)

    def cut(self, extras: Any) -> None:
        """Cut the source's other streams so that they begin with the first selected frame."""
        whole, start = extras.packets, self.start

        def packets(source: Any, streams: list) -> Iterator[Any]:
            before = -Clock(source).offset(Fraction(0), Fraction(0)) + start
            for packet in whole(source, streams):
                unit = Fraction(packet.time_base)
                if packet.pts is not None and packet.pts * unit < before:
                    continue
                shift = round(start / unit)
                packet.pts = None if packet.pts is None else packet.pts - shift
                packet.dts = None if packet.dts is None else packet.dts - shift
                yield packet

        extras.packets = packets

    def record(self) -> list[str]:
        """Return plain values for the record of a run."""
        return [str(value) for value in (self.start, self.end, self.frames)]

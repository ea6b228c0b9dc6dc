"""How far a run is: frames done, and steps inside the chunk that is being worked on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

_INTERVAL = 0.5  # seconds between two updates of the steps


class Progress:
    """A bar of frames with their rate and the time left.

    A bidirectional network hands over its first frame when half of a chunk's work is done; until
    then the share of the chunk's steps shows that something happens.

    Args:
        total: The number of frames, or None where it is not known.
        network: The steps of its ``branches()`` are counted, if it has any.
        shown: Whether anything is shown.
    """

    def __init__(self, total: int | None, network: Any, *, shown: bool) -> None:
        self._bar = tqdm(
            total=total, unit="frame", smoothing=0.1, disable=not shown, dynamic_ncols=True
        )
        self._branches = getattr(network, "branches", list)() if shown else []
        self._steps = self._expected = 0
        self._last = 0.0

    @contextmanager
    def chunk(self, frames: int, passes: int) -> Iterator[None]:
        """Count the steps of ``frames`` that go through the network ``passes`` times."""
        self._steps, self._expected = 0, max(1, frames * passes * len(self._branches))
        hooks = [branch.register_forward_hook(self._step) for branch in self._branches]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _step(self, *_: object) -> None:
        self._steps += 1
        if time.monotonic() - self._last > _INTERVAL:
            self._last = time.monotonic()
            share = min(1.0, self._steps / self._expected)
            self._bar.set_postfix_str(f"chunk {share:.0%}")

    def done(self) -> None:
        """Count one more frame."""
        self._bar.update()

    def found(self, count: int) -> None:
        """Count frames that were there already, which do not belong to the rate."""
        if not self._bar.disable:
            self._bar.n += count
            self._bar.initial += count

    def close(self) -> None:
        """End the bar; its last state stays on the screen."""
        self._bar.set_postfix_str("")
        self._bar.close()

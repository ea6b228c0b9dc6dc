"""Works on pictures in strips of rows, whose numbers stay in a processor's cache, in threads."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

ROWS = 64
"""Rows of a strip."""


class Scratch:
    """float32 arrays for passing results, which are used again for every strip.

    A fresh array costs more time than the arithmetic, for the system clears its memory first.
    """

    def __init__(self) -> None:
        self._arrays: dict[Hashable, np.ndarray] = {}

    def __call__(self, name: Hashable, *shape: int) -> np.ndarray:
        """The array of this name and shape; what it holds is arbitrary."""
        key = (name, shape)
        if key not in self._arrays:
            self._arrays[key] = np.empty(shape, np.float32)
        return self._arrays[key]


class Strips:
    """Calls a function for all strips of a picture; it is used by one caller at a time."""

    def __init__(self) -> None:
        self._scratches = [Scratch() for _ in range(max(1, cv2.getNumThreads()))]

    def run(self, function: Callable[[int, Scratch], None], height: int) -> None:
        """Call ``function`` with the first row of every strip, and with arrays that it may use."""
        tops, every = range(0, height, ROWS), len(self._scratches)

        def work(number: int) -> None:
            for top in tops[number::every]:
                function(top, self._scratches[number])

        with ThreadPoolExecutor(every) as pool:
            list(pool.map(work, range(min(every, len(tops)))))

"""A mend is one repair of an upstream package. It records whether the repair is in place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Mend:
    """One repair of an upstream package.

    Calling it applies the repair. ``applied`` records this, and once the repair is in place,
    another call does nothing.

    Attributes:
        function: a function that applies the repair if it is needed. It returns whether the repair
            is in place afterwards.
        upstream: the package and version that need it, with the issue where there is one.
        applied: whether the repair is in place; None before the first call.
    """

    function: Callable[[], bool]
    upstream: str
    applied: bool | None = None

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.__name__

    @property
    def summary(self) -> str:
        """What the repair does: the first line of the function's docstring."""
        return (self.function.__doc__ or "").strip().partition("\n")[0]

    def __call__(self) -> bool:
        """Apply the repair unless it is in place.

        Returns:
            Whether the repair is in place; False if it was not needed.
        """
        if not self.applied:
            self.applied = self.function()
        return self.applied


def listed_in(mends: list[Mend], upstream: str) -> Callable[[Callable[[], bool]], Mend]:
    """A decorator that turns a function into a :class:`Mend` and appends it to ``mends``."""

    def make(function: Callable[[], bool]) -> Mend:
        mends.append(Mend(function, upstream))
        return mends[-1]

    return make

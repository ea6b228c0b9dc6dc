"""Switches between the fast forms of the networks' parts and the plain ones, for debugging.

Both give the same results except for rounding. The plain forms are written like the equations, in
:mod:`iart_plugin.ops.mfsab` and :mod:`iart_plugin.ops.alignment_forms`. The environment variable
``IART_PLUGIN_FUSED=0`` selects the plain forms from the start.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

VARIABLE = "IART_PLUGIN_FUSED"

_fused = os.environ.get(VARIABLE, "1").lower() not in ("0", "false", "off")


def is_fused() -> bool:
    """Whether the fast forms are in use."""
    return _fused


def set_fused(fused: bool) -> None:
    """Chooses the fast forms or the plain ones for every network of this process."""
    global _fused
    _fused = bool(fused)


@contextmanager
def fused(flag: bool) -> Iterator[None]:
    """Chooses the fast forms or the plain ones until the end of a ``with`` block."""
    before = is_fused()
    set_fused(flag)
    try:
        yield
    finally:
        set_fused(before)

"""One switch between the fast forms of the networks' parts and the plain ones, for debugging.

Both compute the same to rounding. The plain forms are written as the equations read, in
:mod:`iart_plugin.ops.mfsab` and :mod:`iart_plugin.ops.alignment_forms`. The environment variable
``IART_PLUGIN_FUSED=0`` starts with them.
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
    """Chooses for as long as the context lasts."""
    before = is_fused()
    set_fused(flag)
    try:
        yield
    finally:
        set_fused(before)

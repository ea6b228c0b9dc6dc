"""The start-up hook: importing this module lets ``basicsr`` and ``mmagic`` be imported.

Two of the mends are needed before either framework can read an option file or a config. For the
stock commands, put a folder on ``PYTHONPATH`` whose ``sitecustomize.py`` says::

    import iart_plugin.compat.startup

Python reads that file when it starts. Nothing is imported then: each mend is applied when its
framework is first imported.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

from iart_plugin.compat import basicsr, mmagic

BEFORE_IMPORT = {
    "basicsr": basicsr.provide_functional_tensor,
    "mmagic": mmagic.restore_numpy_bool8,
}


class MendBeforeImport(MetaPathFinder):
    """Applies a framework's mend when Python looks for the framework, and finds nothing itself."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> None:
        """Called by Python for every module that is imported for the first time."""
        if name in BEFORE_IMPORT:
            BEFORE_IMPORT[name]()


if not any(isinstance(finder, MendBeforeImport) for finder in sys.meta_path):
    sys.meta_path.insert(0, MendBeforeImport())

"""The start-up hook: importing this module lets ``basicsr`` and ``mmagic`` be imported.

Two of the repairs are needed before the frameworks can read an option file or a config. To use the
frameworks' own commands, put a folder on ``PYTHONPATH`` with a ``sitecustomize.py`` that says::

    import iart_plugin.compat.startup

Python reads that file when it starts. Neither framework is imported then. Each repair is applied
when its framework is first imported.
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
    """Applies a framework's repair when Python looks for the framework, but finds no module."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> None:
        """Apply a repair if ``name`` is its framework; Python calls this for every new import."""
        if name in BEFORE_IMPORT:
            BEFORE_IMPORT[name]()


if not any(isinstance(finder, MendBeforeImport) for finder in sys.meta_path):
    sys.meta_path.insert(0, MendBeforeImport())

"""MMagic's installed tools, started with this package already in place."""

from __future__ import annotations

import importlib.util
import runpy
from pathlib import Path
from typing import Literal


def run(name: Literal["train", "test"]) -> None:
    """Run the tool that MMagic installs, with the command line of this process.

    Importing this package has applied every mend, also the one that MMagic needs before its tools
    can read a config (numpy 2). Otherwise this is the tool that ``mim NAME mmagic`` starts.
    """
    (package,) = importlib.util.find_spec("mmagic").submodule_search_locations
    runpy.run_path(str(Path(package, ".mim", "tools", f"{name}.py")), run_name="__main__")

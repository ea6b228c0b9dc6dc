"""Starts MMagic's installed tools after importing this package."""

from __future__ import annotations

import importlib.util
import runpy
from pathlib import Path
from typing import Literal


def run(name: Literal["train", "test"]) -> None:
    """Run the tool that MMagic installs, with the command line of this process.

    Importing this package has made all repairs, also the one without which MMagic's tools cannot
    read a config with numpy 2. Otherwise this is the same tool that ``mim NAME mmagic`` starts.
    """
    (package,) = importlib.util.find_spec("mmagic").submodule_search_locations
    runpy.run_path(str(Path(package, ".mim", "tools", f"{name}.py")), run_name="__main__")

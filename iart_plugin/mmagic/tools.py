"""Starts MMagic's installed tools after importing this package."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path
from typing import Literal


def run(name: Literal["train", "test"]) -> None:
    """Run the tool that MMagic installs, with the command line of this process.

    Importing this package has made all repairs, also the one without which MMagic's tools cannot
    read a config with numpy 2. Otherwise this is the same tool that ``mim NAME mmagic`` starts.

    Raises:
        SystemExit: with one line on standard error, if a file does not exist or holds no config.
    """
    if sys.argv[1:] and not sys.argv[1].startswith("-"):
        _check_config(Path(sys.argv[1]))
    (package,) = importlib.util.find_spec("mmagic").submodule_search_locations
    try:
        runpy.run_path(str(Path(package, ".mim", "tools", f"{name}.py")), run_name="__main__")
    except FileNotFoundError as error:
        sys.exit(f"error: {error.filename or error}: no such file")


def _check_config(path: Path) -> None:
    """Refuse a config that is no file or is empty, at which MMEngine fails with a trace."""
    if path.is_dir():
        sys.exit(f"error: {path} is a folder, not a config")
    if not path.exists():
        sys.exit(f"error: {path}: no such file")
    if not path.read_bytes().strip():
        sys.exit(f"error: {path} is empty")

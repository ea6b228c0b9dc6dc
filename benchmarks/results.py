"""Keeps measurements in files, as lists of named rows, and names the machine they ran on."""

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from iart_plugin.ops.processor import device_name


def keep(row: Mapping[str, Any], path: Path) -> None:
    """Puts a row into the file, in place of an older one of its name, as soon as it is known."""
    rows = json.loads(path.read_text()) if path.exists() else []
    rows = [old for old in rows if old["name"] != row["name"]]
    path.write_text(json.dumps([*rows, row], indent=1) + "\n")


def allocator() -> str:
    """Returns the name of the memory allocator, which decides what page faults cost on a CPU."""
    preload = os.environ.get("LD_PRELOAD", "")
    return "tcmalloc" if "tcmalloc" in preload else f"{platform.libc_ver()[0]}'s allocator"


def machine(device: torch.device) -> str:
    """Returns a line that names the device, threads, versions and memory allocator."""
    return (
        f"{device_name(device)}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}, "
        f"Python {platform.python_version()}, {allocator()}"
    )

"""MMagic's stock tools as subprocesses, and what the tests of this folder share."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.programs import run_program

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs" / "mmagic"

SIZE = 64
"""Height and width of the ground truth; SSIM needs 11, SPyNet works on any."""

TINY = (
    "model.generator.num_feat=8",
    "model.generator.num_block=1",
    "model.generator.num_heads=2",
)


def tool(name: str) -> str:
    """The path of one of the tools that MMagic installs."""
    (package,) = importlib.util.find_spec("mmagic").submodule_search_locations
    return str(Path(package) / ".mim" / "tools" / f"{name}.py")


def environment() -> dict[str, str]:
    paths = [str(ROOT), str(Path(__file__).parent)]
    return {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(paths + os.environ.get("PYTHONPATH", "").split(os.pathsep)),
    }


def run(command: Sequence[str | Path], cwd: Path) -> str:
    """Runs a command; returns its output, or fails the test with the end of it."""
    result = run_program(command, cwd, environment(), timeout=280)
    if result.returncode:
        pytest.fail(f"{command} returned {result.returncode}:\n{result.stdout[-4000:]}")
    return result.stdout

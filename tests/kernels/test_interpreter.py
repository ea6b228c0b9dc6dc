"""Without a GPU, the kernels' tests run in processes of their own, in Triton's interpreter.

The interpreter has to be chosen before Triton is imported, and it slows everything else down.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels.harness import DEVICE

FILES = sorted(Path(__file__).parent.glob("test_*_kernel.py"))


@pytest.mark.skipif(DEVICE is not None, reason="the kernels' tests run in this very process")
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_in_the_interpreter(file):
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", str(file)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-2000:]

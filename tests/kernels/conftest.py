"""Where the kernels' own tests run: on the GPU, or in a process with Triton's interpreter.

``test_*_kernel.py`` are collected where a kernel can run. Elsewhere ``test_interpreter.py`` starts
a process for each of them in which Triton interprets kernels on the CPU.
"""

import pytest
import torch

from tests.kernels.harness import DEVICE


@pytest.fixture(autouse=True)
def _exact_convolutions(monkeypatch):
    """Forms that differ by rounding would differ by more after a convolution in TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


collect_ignore_glob = [] if DEVICE else ["test_*_kernel.py"]

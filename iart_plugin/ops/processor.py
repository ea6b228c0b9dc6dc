"""What is known of the CPU, where the fastest form of an operation depends on its maker."""

from functools import cache

import torch


@cache
def has_fast_mkl() -> bool:
    """Whether MKL, which PyTorch uses for small products on x86-64, uses the whole vector unit.

    It does on Intel's processors. On others it takes a path of half the speed, and forms that
    avoid it win. False where PyTorch cannot tell.
    """
    if not torch.backends.mkl.is_available() or not hasattr(torch.cpu, "get_capabilities"):
        return False
    return "Intel" in str(torch.cpu.get_capabilities().get("cpu_name", ""))

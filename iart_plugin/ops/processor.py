"""What is known of the CPU, where the fastest form of an operation depends on its maker."""

from functools import cache

import torch


def cpu_name() -> str:
    """The CPU's maker and family; '' where PyTorch cannot tell."""
    if not hasattr(torch.cpu, "get_capabilities"):
        return ""
    return str(torch.cpu.get_capabilities().get("cpu_name", ""))


@cache
def has_fast_mkl() -> bool:
    """Whether MKL, which PyTorch uses for small products on x86-64, uses the whole vector unit.

    It does on Intel's processors. On others it takes a path of half the speed, and forms that
    avoid it win. False where PyTorch cannot tell.
    """
    return torch.backends.mkl.is_available() and "Intel" in cpu_name()

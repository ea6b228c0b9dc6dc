"""What a device is called, and what of that decides which form of an operation is fastest."""

import platform
from functools import cache

import torch


def cpu_name() -> str:
    """The CPU's maker and family; '' where PyTorch cannot tell."""
    if not hasattr(torch.cpu, "get_capabilities"):
        return ""
    return str(torch.cpu.get_capabilities().get("cpu_name", ""))


def device_name(device: torch.device) -> str:
    """A GPU's name, or the CPU's as far as it is known, to say where something was measured."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return cpu_name() or platform.machine()


@cache
def has_fast_mkl() -> bool:
    """Whether MKL, which PyTorch uses for small products on x86-64, uses the whole vector unit.

    It does on Intel's processors. On others it takes a path of half the speed, and forms that
    avoid it win. False where PyTorch cannot tell.
    """
    return torch.backends.mkl.is_available() and "Intel" in cpu_name()

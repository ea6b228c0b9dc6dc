"""Names of devices, and what they tell about which form of an operation is fastest."""

import platform
from functools import cache

import torch


def cpu_name() -> str:
    """The CPU's maker and family; '' where PyTorch cannot tell."""
    if not hasattr(torch.cpu, "get_capabilities"):
        return ""
    return str(torch.cpu.get_capabilities().get("cpu_name", ""))


def device_name(device: torch.device) -> str:
    """The name of a GPU, or of the CPU as far as it is known, to record with measurements."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return cpu_name() or platform.machine()


@cache
def has_fast_mkl() -> bool:
    """Whether MKL, which PyTorch uses for small matrix products on x86-64, is fast on this CPU.

    It uses the whole vector unit on Intel's processors only. On others it takes a path of half the
    speed, so forms that avoid MKL are faster. False if PyTorch cannot tell.
    """
    return torch.backends.mkl.is_available() and "Intel" in cpu_name()

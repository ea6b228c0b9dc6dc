"""Chooses a network's device and precision, and recognises errors that mean memory ran out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import torch
from torch import Tensor, nn

Network = nn.Module | Callable[[Tensor], Tensor]
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS = ("fp32", *HALF)


def pick_device(name: str | torch.device | None = None) -> torch.device:
    """The device that was asked for, or the best available one: cuda, mps or cpu.

    Raises:
        ValueError: The device that was asked for is not available.
    """
    if name is None or str(name) == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        # Before PyTorch 2.13, mps has no grid_sample that repeats the border, which SPyNet needs.
        mps = torch.backends.mps.is_available() and torch.__version__ >= "2.13"
        return torch.device("mps" if mps else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device {name}: choose auto, cuda, cuda:N, mps or cpu") from None
    there = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if device.type not in {"cpu", *there}:
        raise ValueError(f"device {name}: choose auto, cuda, cuda:N, mps or cpu")
    if device.type in there and not there[device.type]():
        advice = missing_gpu_advice() or "not available with this PyTorch; choose cpu"
        raise ValueError(f"device {name}: {advice}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise ValueError(
            f"device {name}: choose one of the GPUs that are here, cuda:0 to cuda:{last}"
        )
    return device


def missing_gpu_advice() -> str | None:
    """Advice for a machine with an NVIDIA GPU but a PyTorch built for CPUs; None for others."""
    if torch.version.cuda or torch.version.hip or torch.cuda.is_available():
        return None
    driver = shutil.which("nvidia-smi") or os.path.exists("/proc/driver/nvidia/version")
    if not driver:
        return None
    return (
        f"this machine has an NVIDIA GPU, but PyTorch {torch.__version__} is the build for CPUs: "
        "install the one for CUDA, pip install --force-reinstall torch torchvision --index-url "
        "https://download.pytorch.org/whl/cu128 (https://pytorch.org/get-started says which)"
    )


def own_device(network: Network) -> torch.device | None:
    """The device that a network is on, or None if it is on the CPU."""
    parameters = network.parameters() if isinstance(network, nn.Module) else iter(())
    device = next((parameter.device for parameter in parameters), torch.device("cpu"))
    return None if device.type == "cpu" else device


def pick_precision(name: str | None, device: torch.device) -> str:
    """The precision asked for, or the device's best: bf16 or fp16 on cuda, fp32 elsewhere.

    Raises:
        ValueError: The name is unknown.
    """
    if name is None or name == "auto":
        if device.type != "cuda":
            return "fp32"
        # is_bf16_supported() is not used: it also accepts emulation, which is slower than float32.
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
    if name not in PRECISIONS:
        raise ValueError(f"precision {name!r}: choose one of {', '.join(PRECISIONS)}")
    return name

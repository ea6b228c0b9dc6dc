"""Keeps positions, flow and sums in float32 or wider, even under autocast to half precision."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def wide_dtype(*tensors: Tensor) -> torch.dtype:
    """The dtype for positions and for sums: float64 if any tensor has it, else float32.

    Half precision cannot tell sub-pixel positions apart a few hundred pixels from the origin.
    """
    wide = any(tensor.dtype == torch.float64 for tensor in tensors)
    return torch.float64 if wide else torch.float32


def full_precision(device: torch.device) -> AbstractContextManager:
    """Turns autocast off inside, on devices that have it."""
    try:
        return torch.autocast(device.type, enabled=False)
    except RuntimeError:  # a device without autocast: meta, and mps in older PyTorch
        return nullcontext()


def is_autocast(device: torch.device) -> bool:
    """Whether autocast is on for this device."""
    try:
        return torch.is_autocast_enabled(device.type)
    except RuntimeError:
        return False


def compute_dtype(weight: Tensor) -> torch.dtype:
    """The dtype of products with a weight: autocast's if autocast is on, else the weight's."""
    on = is_autocast(weight.device)
    return torch.get_autocast_dtype(weight.device.type) if on else weight.dtype

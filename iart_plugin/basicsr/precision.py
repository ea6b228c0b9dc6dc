"""Chooses the number format of a network's forward pass in training."""

from __future__ import annotations

import torch

from iart_plugin.option_errors import OptionError

AMP_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def choose_amp_dtype(name: str | None, device: torch.device) -> torch.dtype:
    """The precision of the network's forward pass.

    Args:
        name: ``fp16``, ``bf16``, ``fp32``, or None for the device's default.
        device: Where the network runs.

    Raises:
        OptionError: if the name is unknown, or the device does not offer that precision.
    """
    if name is None:
        return torch.float16 if device.type == "cuda" else torch.float32
    if name not in AMP_DTYPES:
        raise OptionError(f"train.amp_dtype is '{name}'; {', '.join(AMP_DTYPES)} exist.")
    if name == "fp16" and device.type == "cpu":
        raise OptionError("train.amp_dtype is fp16, which needs a GPU; set bf16 or fp32 on a CPU.")
    return AMP_DTYPES[name]

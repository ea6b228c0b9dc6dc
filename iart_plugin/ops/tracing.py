"""Where decisions that depend on values cannot be made."""

import torch
from torch import Tensor


def is_traced(x: Tensor) -> bool:
    """Whether a compiler is at work, or ``x`` has a shape and no data."""
    return torch.compiler.is_compiling() or x.is_meta

"""Recognises when a tensor's values are not known, so that decisions cannot depend on them."""

import torch
from torch import Tensor


def is_traced(x: Tensor) -> bool:
    """Whether a compiler is tracing the code, or ``x`` has a shape but no data."""
    return torch.compiler.is_compiling() or x.is_meta

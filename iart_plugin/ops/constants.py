"""Tensors that depend on sizes alone, made once and kept.

On a GPU, making a small table takes as long as aligning a frame: it is a dozen kernels to start.
"""

from collections.abc import Callable

import torch
from torch import Tensor

_kept: dict[tuple, Tensor] = {}


def kept(make: Callable[..., Tensor], *sizes: int, device: torch.device, dtype: torch.dtype):
    """Returns ``make(*sizes, device=device, dtype=dtype)``, and the same tensor ever after.

    Args:
        make: a function of a module, which gives the same values for the same arguments.
        *sizes: its arguments.
        device: where the tensor shall be.
        dtype: of the tensor.
    """
    if torch.compiler.is_compiling():  # a compiler folds constants itself
        return make(*sizes, device=device, dtype=dtype)
    key = (make, *sizes, device, dtype)
    if key not in _kept:
        with torch.inference_mode(False), torch.no_grad():
            made = make(*sizes, device=device, dtype=dtype)
        if type(made) is not Tensor:  # a tensor without data, of some tracer
            return made
        _kept[key] = made
    return _kept[key]

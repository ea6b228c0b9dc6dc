"""Tensors that depend on sizes alone, made once and kept.

On a GPU, a small table is a dozen kernels to start, which takes as long as aligning a frame.
"""

from collections.abc import Callable

import torch
from torch import Tensor

LARGEST = 2**20
"""Bytes: a larger tensor is made anew each time, which then takes no longer than to read it."""

MOST = 256
"""How many tensors are kept; then all are forgotten."""

_kept: dict[tuple, Tensor] = {}


def kept(
    make: Callable[..., Tensor], *sizes: float, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Returns what ``make(*sizes, device=device, dtype=dtype)`` gives, made once.

    Args:
        make: a function of a module, which gives the same values for the same arguments.
        *sizes: its arguments.
        device: where the tensor shall be.
        dtype: of the tensor.

    Returns:
        A tensor that others have too: it must not be written to.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # sizes may be no numbers then
        return make(*sizes, device=device, dtype=dtype)
    key = (make, *sizes, device, dtype)
    if (found := _kept.get(key)) is not None:
        return found
    with torch.inference_mode(False), torch.no_grad():
        made = make(*sizes, device=device, dtype=dtype)
    if type(made) is Tensor and made.nbytes <= LARGEST:  # no tensor without data, of some tracer
        if len(_kept) >= MOST:
            _kept.clear()
        _kept[key] = made
    return made

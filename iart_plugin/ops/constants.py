"""Keeps tensors that depend on sizes alone, so that they are made only once.

On a GPU, making a small table starts a dozen kernels, which takes as long as aligning a frame.
"""

from collections.abc import Callable

import torch
from torch import Tensor

LARGEST = 2**20
"""Bytes of the largest tensor that is kept. Making a larger one takes no longer than reading it."""

MOST = 256
"""The most tensors that are kept; one more removes all of these."""

_kept: dict[tuple, Tensor] = {}


def kept(
    make: Callable[..., Tensor], *sizes: float, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Returns ``make(*sizes, device=device, dtype=dtype)``, which is computed only once.

    Args:
        make: a module-level function that gives the same values for the same arguments.
        *sizes: its positional arguments.
        device: the tensor's device.
        dtype: the tensor's dtype.

    Returns:
        A tensor that is shared with other callers and must not be written to.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # sizes may be symbols then
        return make(*sizes, device=device, dtype=dtype)
    key = (make, *sizes, device, dtype)
    if (found := _kept.get(key)) is not None:
        return found
    with torch.inference_mode(False), torch.no_grad():
        made = make(*sizes, device=device, dtype=dtype)
    if type(made) is Tensor and made.nbytes <= LARGEST:  # not a tracer's tensor without data
        if len(_kept) >= MOST:
            _kept.clear()
        _kept[key] = made
    return made

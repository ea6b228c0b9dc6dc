"""Starts kernels, and chooses padded sizes and the precision of products for all of them.

A launcher takes tensors, allocates the results and calls :func:`launch`. Inside :func:`recorded`,
launches are collected instead of started. With tensors on the meta device,
``tools/kernel_report.py`` compiles every kernel in this way for cards that the machine lacks.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

Grid = tuple[int, ...]


class Launch(NamedTuple):
    """One start of a kernel: the function under ``triton.jit``, its arguments by name, options."""

    kernel: Any
    arguments: dict[str, Any]


class Shipped(NamedTuple):
    """A use of a kernel at the sizes of a network that is shipped, for the kernel report.

    Every kernel's module has a function ``shipped()`` that yields these.

    Attributes:
        name: what uses it, as in 'IA-RT, forward, float16'.
        start: calls the module's launcher with tensors on the meta device.
    """

    name: str
    start: Callable[[], object]


_target: tuple[int, int] | None = None
_launches: list[Launch] | None = None


@contextmanager
def recorded(capability: tuple[int, int]) -> Iterator[list[Launch]]:
    """Collects launches instead of starting them, as if on a card of this compute capability."""
    global _target, _launches
    before = _target, _launches
    _target, _launches = capability, []
    try:
        yield _launches
    finally:
        _target, _launches = before


def launch(kernel: Any, grid: Grid, device: torch.device, **arguments: Any) -> None:
    """Starts a Triton kernel on a device.

    Args:
        kernel: a function under ``triton.jit``.
        grid: how many programs along each axis; nothing starts if one is 0.
        device: where the tensors are.
        **arguments: the kernel's arguments, and ``num_warps`` and ``num_stages``.
    """
    if _launches is not None:
        _launches.append(Launch(kernel, arguments))
    elif 0 in grid:
        return
    elif device.type == "cuda":
        with torch.cuda.device(device):  # Triton starts kernels on the current device
            kernel[grid](**arguments)
    else:
        kernel[grid](**arguments)


def capability(device: torch.device) -> tuple[int, int]:
    """The compute capability to choose tiles for; inside :func:`recorded`, the one given there."""
    if _target is not None:
        return _target
    return _capability(device) if device.type == "cuda" else (9, 0)


@cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def padded(size: int, least: int = 16) -> int:
    """The next power of two, as Triton's tiles need it, and at least 16, as ``tl.dot`` needs."""
    return max(least, 1 << (size - 1).bit_length())


def dot_precision() -> str:
    """How ``tl.dot`` multiplies float32: in TF32 if PyTorch does so, else by three TF32 products.

    Three TF32 products match float32. A plain float32 product cannot use tensor cores and needs
    more registers than there are.
    """
    matmul = torch.backends.cuda.matmul
    try:
        is_tf32 = matmul.fp32_precision == "tf32"  # reading allow_tf32 raises if this was set
    except AttributeError:  # an older PyTorch
        is_tf32 = matmul.allow_tf32
    return "tf32" if is_tf32 else "tf32x3"


def row_strides(x: Tensor) -> tuple[Tensor, int, int, int]:
    """Views an image as rows of pixels: ``x`` and its strides over batch, channels and pixels.

    Args:
        x: (n, c, h, w), which is copied only if its pixels do not lie at equal distances.
    """
    height, width = x.shape[2:]
    if width == 1:
        return x, x.stride(0), x.stride(1), x.stride(2)
    if height > 1 and x.stride(2) != width * x.stride(3):
        x = x.contiguous()
    return x, x.stride(0), x.stride(1), x.stride(3)

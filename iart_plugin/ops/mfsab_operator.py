"""The MFSAB block as one PyTorch operator that GPU kernels compute.

The operator has a fake implementation and a gradient, so that it works with compilers,
``torch.export``, autocast, DistributedDataParallel and activation checkpointing. If Triton cannot
compile or start a kernel, the form that works on a few windows at a time replaces it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from iart_plugin.kernels import mfsab as kernels
from iart_plugin.kernels.availability import Kernel, attempt, reference_gradients
from iart_plugin.kernels.launching import dot_precision
from iart_plugin.kernels.mfsab_sizes import PackedWeights, Shape, unpack

from .mfsab import Windows
from .mfsab_windows import windowed_block
from .precision import full_precision


def kernel_block(
    x: Tensor,
    weights: PackedWeights,
    windows: Windows,
    frame: int | None = None,
    scales: Tensor | None = None,
) -> Tensor:
    """Computes a block with the kernels; the same as :func:`.mfsab.reference_block`."""
    matrices, vectors, heads, hidden = weights
    frame = -1 if frame is None else frame
    sizes = heads, hidden, list(windows.size), windows.shift, frame
    return _block(x, matrices, vectors, scales, *sizes)[0]


@torch.library.custom_op("iart_plugin::mfsab_block", mutates_args=())
def _block(
    x: Tensor,
    matrices: Tensor,
    vectors: Tensor,
    scales: Tensor | None,
    heads: int,
    hidden: int,
    window: Sequence[int],
    shift: bool,
    frame: int,
) -> tuple[Tensor, Tensor]:
    """Computes a block's output and the logsumexp of its logits, (tokens, heads)."""
    shape = _shape(x, heads, hidden, window, shift, frame)

    def launch() -> tuple[Tensor, Tensor]:
        return kernels.forward(x.contiguous(), matrices, vectors, scales, shape)

    @torch.no_grad()
    def reference() -> tuple[Tensor, Tensor]:
        return _by_windows(x, matrices, vectors, scales, shape), _logsumexp(x, shape)

    return attempt(_kernel(matrices, shape), launch, reference)


@_block.register_fake
def _(x, matrices, vectors, scales, *sizes):
    shape = _shape(x, *sizes)
    return x.new_empty(shape.clips, shape.wanted, *x.shape[2:]), _logsumexp(x, shape)


@torch.library.custom_op("iart_plugin::mfsab_block_backward", mutates_args=())
def _block_backward(
    gradient: Tensor,
    x: Tensor,
    logsumexp: Tensor,
    matrices: Tensor,
    vectors: Tensor,
    scales: Tensor | None,
    heads: int,
    hidden: int,
    window: Sequence[int],
    shift: bool,
    frame: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes the gradients of the input, of the matrices, and in float32 of the vectors."""
    shape = _shape(x, heads, hidden, window, shift, frame)
    tensors = gradient.contiguous(), x.contiguous(), logsumexp, matrices, vectors, scales
    with full_precision(x.device):  # autocast would cast the factors of weights' gradients
        return kernels.backward(*tensors, shape)


@_block_backward.register_fake
def _(gradient, x, logsumexp, matrices, vectors, *_):
    vectors_gradient = torch.empty_like(vectors, dtype=torch.float32)
    return x.new_empty(x.shape), torch.empty_like(matrices), vectors_gradient


def _save(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    x, matrices, vectors, scales, *ctx.sizes = inputs
    ctx.save_for_backward(x, output[1], matrices, vectors, scales)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # nobody needs zeros as the gradient of the logsumexp


def _gradients(ctx: Any, gradient: Tensor | None, _: Tensor | None) -> tuple:
    if gradient is None:  # the output was not used
        return (None,) * 9
    saved = ctx.saved_tensors  # activation checkpointing allows to read them once
    x, _, matrices, vectors, scales = saved

    shape = _shape(x, *ctx.sizes)

    def reference() -> list[Tensor]:
        return reference_gradients(
            lambda *tensors: _by_windows(*tensors, scales, shape), [x, matrices, vectors], gradient
        )

    x_gradient, matrices_gradient, vectors_gradient = attempt(
        _kernel(matrices, shape), lambda: _block_backward(gradient, *saved, *ctx.sizes), reference
    )
    found = x_gradient, matrices_gradient, vectors_gradient.to(vectors.dtype)
    return *found, *(None for _ in range(6))


_block.register_autograd(_gradients, setup_context=_save)


def _shape(
    x: Tensor, heads: int, hidden: int, window: Sequence[int], shift: bool, frame: int
) -> Shape:
    return Shape(*x.shape, heads, hidden, tuple(window), shift, frame, dot_precision())


def _kernel(matrices: Tensor, shape: Shape) -> Kernel:
    """Names both passes alike: if one fails, both are replaced.

    The backward kernel needs the logsumexp that the forward kernel computes.
    """
    channels = int(shape.channels)  # symbolic while a compiler traces dynamic shapes
    return Kernel("MFSAB block", matrices.dtype, channels)


def _by_windows(
    x: Tensor, matrices: Tensor, vectors: Tensor, scales: Tensor | None, shape: Shape
) -> Tensor:
    weights, windows = unpack(matrices, vectors, shape), Windows(shape.window, shape.shift)
    return windowed_block(x, weights, windows, None if shape.frame < 0 else shape.frame, scales)


def _logsumexp(x: Tensor, shape: Shape) -> Tensor:
    return x.new_empty(shape.rows(shape.wanted), shape.heads, dtype=torch.float32)

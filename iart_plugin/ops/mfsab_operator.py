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
from iart_plugin.kernels.availability import attempt, reference_gradients
from iart_plugin.kernels.mfsab_sizes import MATRICES, VECTORS, BlockWeights, Shape

from .mfsab import Windows
from .mfsab_windows import windowed_block

NAME = "MFSAB block"
"""The name of both passes in the warning. If one fails, both are replaced, because the backward
kernel needs the logsumexp that the forward kernel computes."""


def kernel_block(
    x: Tensor,
    weights: BlockWeights,
    windows: Windows,
    frame: int | None = None,
    scales: Tensor | None = None,
) -> Tensor:
    """Computes a block with the kernels; the same as :func:`.mfsab.reference_block`."""
    frame = -1 if frame is None else frame
    return _block(x, list(weights), scales, list(windows.size), windows.shift, frame)[0]


@torch.library.custom_op("iart_plugin::mfsab_block", mutates_args=())
def _block(
    x: Tensor,
    weights: Sequence[Tensor],
    scales: Tensor | None,
    window: Sequence[int],
    shift: bool,
    frame: int,
) -> tuple[Tensor, Tensor]:
    """Computes a block's output and the logsumexp of its logits, (tokens, heads)."""
    block, shape = BlockWeights(*weights), _shape(x, weights, window, shift, frame)

    @torch.no_grad()
    def reference() -> tuple[Tensor, Tensor]:
        return _by_windows(x, block, scales, shape), _logsumexp(x, shape)

    return attempt(NAME, lambda: kernels.forward(x.contiguous(), block, scales, shape), reference)


@_block.register_fake
def _(x, weights, scales, window, shift, frame):
    shape = _shape(x, weights, window, shift, frame)
    return x.new_empty(shape.clips, shape.wanted, *x.shape[2:]), _logsumexp(x, shape)


@torch.library.custom_op("iart_plugin::mfsab_block_backward", mutates_args=())
def _block_backward(
    gradient: Tensor,
    x: Tensor,
    logsumexp: Tensor,
    weights: Sequence[Tensor],
    scales: Tensor | None,
    window: Sequence[int],
    shift: bool,
    frame: int,
) -> list[Tensor]:
    """Computes the gradients of the input, of each matrix, and of all vectors in one tensor.

    The vectors' gradients are concatenated in the order of ``VECTORS``, in float32.
    """
    block, shape = BlockWeights(*weights), _shape(x, weights, window, shift, frame)
    tensors = gradient.contiguous(), x.contiguous(), logsumexp
    return kernels.backward(*tensors, block, scales, shape)


@_block_backward.register_fake
def _(gradient, x, logsumexp, weights, scales, window, shift, frame):
    block = BlockWeights(*weights)._asdict()
    length = sum(len(block[name]) for name in VECTORS)
    parts = (x, *(block[name] for name in MATRICES))
    return [*(part.new_empty(part.shape) for part in parts), logsumexp.new_empty(length)]


def _save(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    x, weights, scales, *ctx.how = inputs
    ctx.save_for_backward(x, output[1], scales, *weights)
    ctx.mark_non_differentiable(output[1])


def _gradients(ctx: Any, gradient: Tensor, _: Tensor | None) -> tuple:
    x, logsumexp, scales, *weights = ctx.saved_tensors

    def launch() -> list[Tensor]:
        x_gradient, *matrices, vectors = _block_backward(
            gradient, x, logsumexp, weights, scales, *ctx.how
        )
        block = BlockWeights(*weights)._asdict()
        vectors = vectors.split([len(block[name]) for name in VECTORS])
        found = dict(zip(MATRICES + VECTORS, (*matrices, *vectors), strict=True))
        return [x_gradient, *(found[name].to(weight.dtype) for name, weight in block.items())]

    def reference() -> list[Tensor]:
        shape = _shape(x, weights, *ctx.how)
        return reference_gradients(
            lambda x, *weights: _by_windows(x, BlockWeights(*weights), scales, shape),
            [x, *weights],
            gradient,
        )

    x_gradient, *others = attempt(NAME, launch, reference)
    return x_gradient, others, None, None, None, None


_block.register_autograd(_gradients, setup_context=_save)


def _shape(
    x: Tensor, weights: Sequence[Tensor], window: Sequence[int], shift: bool, frame: int
) -> Shape:
    heads = BlockWeights(*weights).bias.shape[0]
    return Shape(*x.shape, heads, tuple(window), shift, frame)


def _by_windows(x: Tensor, weights: BlockWeights, scales: Tensor | None, shape: Shape) -> Tensor:
    windows = Windows(shape.window, shape.shift)
    return windowed_block(x, weights, windows, None if shape.frame < 0 else shape.frame, scales)


def _logsumexp(x: Tensor, shape: Shape) -> Tensor:
    return x.new_empty(shape.rows(shape.wanted), shape.heads, dtype=torch.float32)

"""Implicit alignment as a PyTorch operator that GPU kernels compute.

The operator is registered even without Triton, so that an exported network can be loaded anywhere.
The kernel is imported only when the operator runs.
"""

from typing import Any

import torch
from torch import Tensor

from iart_plugin.kernels.availability import Kernel, attempt, avoids_atomics, reference_gradients

from .alignment_forms import align_windows
from .precision import full_precision


@torch.library.custom_op("iart_plugin::implicit_alignment", mutates_args=())
def implicit_alignment(
    keys_values: Tensor,
    current: Tensor,
    flow: Tensor,
    weight: Tensor,
    bias: Tensor,
    table: Tensor | None,
    outside: Tensor | None,
    divisors: Tensor | None,
    num_heads: int,
    window_size: int,
) -> Tensor:
    """Aligns with the kernel; takes and returns the same as :func:`align_windows`."""
    inputs = (keys_values, current, flow, weight, bias, table, outside, divisors)

    def launch() -> Tensor:
        from iart_plugin.kernels import implicit_alignment as kernels

        return kernels.align(*inputs, num_heads, window_size)

    def reference() -> Tensor:
        return align_windows(*inputs, num_heads, window_size).contiguous()

    kernel = Kernel("implicit alignment", keys_values.dtype, int(current.shape[1]))
    return attempt(kernel, launch, reference)


@implicit_alignment.register_fake
def _(keys_values, current, flow, weight, *_):
    n, c, height, width = current.shape
    return keys_values.new_empty(n, height, width, c)


@torch.library.custom_op("iart_plugin::implicit_alignment_backward", mutates_args=())
def implicit_alignment_backward(
    grad: Tensor,
    keys_values: Tensor,
    current: Tensor,
    flow: Tensor,
    weight: Tensor,
    bias: Tensor,
    table: Tensor | None,
    outside: Tensor | None,
    divisors: Tensor | None,
    num_heads: int,
    window_size: int,
    needs_flow: bool,
) -> list[Tensor]:
    """Computes the gradients of the tensors from ``keys_values`` to ``outside`` with the kernel.

    Those of tensors that are None are empty, and so is the flow's if it is not needed.
    """
    from iart_plugin.kernels import implicit_alignment as kernels

    inputs = (keys_values, current, flow, weight, bias, table, outside, divisors)
    with full_precision(grad.device):  # autocast would cast the factors of the weight's gradient
        return kernels.align_backward(grad, *inputs, num_heads, window_size, needs_flow)


@implicit_alignment_backward.register_fake
def _(grad, keys_values, current, flow, weight, bias, table, outside, *others):
    needs_flow = others[-1]
    n, c, height, width = current.shape
    return [
        torch.empty_like(keys_values, memory_format=torch.contiguous_format),
        current.new_empty(n, height, width, c).permute(0, 3, 1, 2),
        flow.new_empty(flow.shape if needs_flow else 0),
        weight.new_empty(weight.shape),
        bias.new_empty(bias.shape),
        flow.new_empty(0) if table is None else table.new_empty(table.shape),
        flow.new_empty(0) if outside is None else outside.new_empty(outside.shape),
    ]


def _save(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:8])
    ctx.sizes = inputs[8:]


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    inputs = ctx.saved_tensors
    needs_flow = ctx.needs_input_grad[2] and inputs[7] is not None
    channels = int(inputs[1].shape[1])  # symbolic while a compiler traces dynamic shapes
    kernel = Kernel("implicit alignment, backward", inputs[0].dtype, channels)

    def reference() -> list[Tensor | None]:
        return reference_gradients(lambda *x: align_windows(*x, *ctx.sizes), inputs, grad)

    def launch() -> list[Tensor]:
        return implicit_alignment_backward(grad, *inputs, *ctx.sizes, needs_flow)

    found = reference() if avoids_atomics(kernel) else attempt(kernel, launch, reference)
    flow = found[2] if needs_flow else None
    table, outside = (
        x if saved is not None else None for x, saved in zip(found[5:7], inputs[5:7], strict=True)
    )
    return (*found[:2], flow, *found[3:5], table, outside, None, None, None)


implicit_alignment.register_autograd(_gradients, setup_context=_save)

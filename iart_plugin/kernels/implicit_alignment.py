"""Implicit alignment from projected keys and values (Eq. 6-12, 16-18): one kernel for each pass.

A program aligns some pixels. It splits their positions, adds the encoding of the decimals to the
current features, projects the queries of one head after another, and attends to the window's keys
and values, which it reads where they are stored. The gathered windows are never written to memory.
In the backward pass a program computes all this again and adds the gradients of keys and values at
the places that these were read from. The gradient of the query's weight is left to one matrix
product over all pixels.

Positions and angles are float32, and so are logits, softmax and sums.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import triton
from torch import Tensor

from .implicit_alignment_backward import align_backward as backward_kernel
from .implicit_alignment_forward import align as forward_kernel
from .launching import Shipped, dot_precision, launch, padded, row_strides

USES = {
    "IA-RT": (120, 0, 6, 2, "border"),
    "IA-CNN": (64, 16, 8, 2, "zeros"),
    "IA-CNN as in the paper": (64, 0, 8, 2, "border"),
    "study": (60, 0, 6, 2, "border"),
    "study, window of 4": (60, 0, 6, 4, "border"),
}
"""Channels, position channels, heads, window and padding of the networks that are shipped."""


def _tiles(inputs_pad: int, width_pad: int, dtype: torch.dtype, is_backward: bool) -> dict:
    """Chooses the pixels and warps of a program such that no registers spill on any card.

    ``tools/kernel_report.py`` checks this.
    """
    is_half = dtype.itemsize == 2
    if inputs_pad > 128 or width_pad > 32:
        pixels, warps = 16, 8
    elif is_backward and is_half:
        pixels, warps = (32, 4) if inputs_pad > 64 else (16, 4)
    elif is_backward:
        pixels, warps = (16, 4) if inputs_pad > 64 else (32, 8)
    else:
        pixels, warps = (64, 8) if is_half or inputs_pad <= 64 else (16, 4)
    return {"PIXELS": pixels, "num_warps": warps}


def _arguments(
    keys_values: Tensor,
    current: Tensor,
    weight: Tensor,
    num_heads: int,
    window_size: int,
    *,
    is_backward: bool,
) -> dict[str, Any]:
    """Returns the arguments that both kernels take: features, sizes, strides and tiles."""
    height, width = current.shape[2:]
    c, inputs = weight.shape
    inputs_pad, width_pad = padded(inputs), padded(c // num_heads)
    current, stride_n, stride_c, stride_p = row_strides(current)
    return {
        "keys_values": keys_values.contiguous(),
        "current": current,
        "height": height,
        "width": width,
        "stride_n": stride_n,
        "stride_c": stride_c,
        "stride_p": stride_p,
        "scale": (c // num_heads) ** -0.5,
        "C": c,
        "HEADS": num_heads,
        "INPUTS": inputs,
        "INPUTS_PAD": inputs_pad,
        "WIDTH": c // num_heads,
        "WIDTH_PAD": width_pad,
        "WINDOW": window_size,
        "PRECISION": dot_precision(),
        **_tiles(inputs_pad, width_pad, keys_values.dtype, is_backward),
    }


def align(
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
    """Does the same as :func:`iart_plugin.ops.alignment_forms.align_windows`."""
    n, c, height, width = current.shape
    arguments = _arguments(keys_values, current, weight, num_heads, window_size, is_backward=False)
    out = keys_values.new_empty(n, height, width, c)
    launch(
        forward_kernel,
        (triton.cdiv(height * width, arguments["PIXELS"]), n),
        out.device,
        flow=flow.contiguous(),
        weight=weight.contiguous(),
        bias=bias,
        table=table,
        outside=outside,
        divisors=divisors,
        out=out,
        **arguments,
    )
    return out


def align_backward(
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
    """Computes the gradients of :func:`align`; ``grad``, (n, h, w, c), is its result's gradient.

    Returns:
        The gradients of all tensors from ``keys_values`` to ``outside``. The flow's is empty if it
        is not needed; those of ``table`` and ``outside`` are empty if these are None.
    """
    n, c, height, width = current.shape
    arguments = _arguments(keys_values, current, weight, num_heads, window_size, is_backward=True)
    sums = partial(torch.zeros, device=grad.device, dtype=torch.float32)
    all_tokens = keys_values.new_empty(n * height * width, weight.shape[1])
    grad_query = keys_values.new_empty(n * height * width, c)
    grad_keys_values = sums(keys_values.shape)
    grad_current = current.new_empty(n, height, width, c)
    grad_flow = (
        torch.empty_like(flow, memory_format=torch.contiguous_format) if needs_flow else None
    )
    grad_table = None if table is None else sums(table.shape)
    grad_outside = None if outside is None else sums(outside.shape)
    launch(
        backward_kernel,
        (triton.cdiv(height * width, arguments["PIXELS"]), n),
        grad.device,
        flow=flow.contiguous(),
        weight=weight.contiguous(),
        bias=bias,
        table=table,
        outside=outside,
        divisors=divisors,
        grad_out=grad.contiguous(),
        grad_keys_values=grad_keys_values,
        grad_current=grad_current,
        grad_flow=grad_flow,
        grad_table=grad_table,
        grad_outside=grad_outside,
        all_tokens=all_tokens,
        grad_query=grad_query,
        **arguments,
    )
    return [
        grad_keys_values.to(keys_values.dtype),
        grad_current.permute(0, 3, 1, 2),
        grad_flow if grad_flow is not None else flow.new_empty(0),
        (grad_query.t() @ all_tokens).to(weight.dtype),
        grad_query.sum(0, dtype=torch.float32).to(bias.dtype),
        grad_table if grad_table is not None else flow.new_empty(0),
        grad_outside.to(outside.dtype) if outside is not None else flow.new_empty(0),
    ]


def shipped() -> Iterator[Shipped]:
    """Yields the kernels at the sizes of :data:`USES`, for the kernel report.

    bfloat16 is left out: it takes what float16 takes. A frame of one pixel is among them because
    Triton compiles sizes of one as constants.
    """
    sizes = dict.fromkeys(USES, (180, 320)) | {"one pixel": (1, 1)}
    for name, (height, width) in sizes.items():
        c, extra, heads, window, padding = USES.get(name, USES["IA-RT"])
        for dtype in (torch.float16, torch.float32):
            new = partial(torch.empty, device="meta")
            inputs = (
                new(1, height * width, 2 * c, dtype=dtype),
                new(1, c, height, width, dtype=dtype),
                new(1, 2, height, width),
                new(c, c + extra),
                new(c),
                new(window**2, 2 * c),
                new(2 * c) if padding == "zeros" else None,
                new(c + extra),
            )
            label = f"implicit alignment, {name}, {str(dtype).removeprefix('torch.')}"
            yield Shipped(label, partial(align, *inputs, heads, window))
            grad = new(1, height, width, c, dtype=dtype)
            for flow, needs_flow in (("", True), (", flow at rest", False)):
                backward = partial(align_backward, grad, *inputs, heads, window, needs_flow)
                yield Shipped(f"{label}, backward{flow}", backward)

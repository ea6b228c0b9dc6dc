"""Implicit alignment in one kernel a direction, from projected keys and values (Eq. 6-12, 16-18).

A program aligns some pixels: it splits their positions, adds the encoding of the decimals to the
current features, projects the queries of one head after another, and attends to the window's keys
and values where they lie. The window's features never exist in memory. Going back, a program
computes the same again, adds the gradients of keys and values to where they came from, and leaves
the gradient of the query's weights to one matrix product over all pixels.

Positions and angles are float32, and so are logits, softmax and sums.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from iart_plugin.ops.alignment_forms import align_windows

from .availability import attempt, reference_gradients
from .launching import Shipped, dot_precision, launch, padded, row_strides

# Half pi in three parts. The first two are so short that their products with some hundreds, the
# number of quarter turns in an angle, are exact.
HALF_PI_1 = tl.constexpr(1.5703125)
HALF_PI_2 = tl.constexpr(4.837512969970703125e-4)
HALF_PI_3 = tl.constexpr(7.54978995489188216e-8)


@triton.jit
def _wave(angle, quarters):
    """sin(angle + quarters * pi / 2) for angles from 0 to some thousands."""
    whole = tl.floor(angle * 0.6366197723675814 + 0.5)
    rest = angle - whole * HALF_PI_1 - whole * HALF_PI_2 - whole * HALF_PI_3  # at most pi / 4
    square = rest * rest
    sine = (-1.9515295891e-4 * square + 8.3321608736e-3) * square - 1.6666654611e-1
    sine = sine * square * rest + rest
    cosine = (2.443315711809948e-5 * square - 1.388731625493765e-3) * square + 4.166664568298827e-2
    cosine = cosine * square * square - 0.5 * square + 1.0
    quarters += whole.to(tl.int32)
    value = tl.where((quarters & 1) != 0, cosine, sine)
    return tl.where((quarters & 2) != 0, -value, value)


@triton.jit
def _channel_axis(channel, C: tl.constexpr, INPUTS: tl.constexpr):
    """Whether a channel's encoding is of x, not y, and its index among those of its axis."""
    beside = channel >= C
    index = tl.where(beside, channel - C, channel)
    axis = tl.where(beside, (INPUTS - C) // 2, C // 2)
    is_x = index >= axis
    return is_x, tl.where(is_x, index - axis, index)


@triton.jit
def _encoding(
    x, y, divisors, quarters, C: tl.constexpr, INPUTS: tl.constexpr, INPUTS_PAD: tl.constexpr
):
    """Eq. 7 and 18 of normalised positions (M,), ``quarters`` quarter turns ahead: (M, INPUTS)."""
    channel = tl.arange(0, INPUTS_PAD)
    is_x, index = _channel_axis(channel, C, INPUTS)
    divisor = tl.load(divisors + channel, mask=channel < INPUTS, other=1.0)
    position = tl.where(is_x[None, :], x[:, None], y[:, None])
    # In the order of the reference form: another one moves the fastest angles by 1e-5.
    angle = tl.div_rn(position * 6.283185307179586, divisor[None, :])
    return _wave(angle, (index % 2)[None, :] + quarters)


@triton.jit
def _split_position(flow, image, pixel, valid, height, width, WINDOW: tl.constexpr):
    """Eq. 12: the window's first pixel, clamped to where it still matters, and the decimals.

    The decimals are returned over the window's side, as they are encoded.
    """
    SIDE: tl.constexpr = WINDOW + 1e-6
    flow += image * 2 * height * width + pixel
    x = tl.load(flow, mask=valid, other=0.0) + (pixel % width).to(tl.float32)
    y = tl.load(flow + height * width, mask=valid, other=0.0) + (pixel // width).to(tl.float32)
    base_x, base_y = tl.floor(x), tl.floor(y)
    decimal_x, decimal_y = tl.div_rn(x - base_x, SIDE), tl.div_rn(y - base_y, SIDE)
    # A cast of NaN or of a huge float to an integer is undefined, and would index anywhere.
    base_x = tl.where(base_x == base_x, base_x, 0.0)
    base_y = tl.where(base_y == base_y, base_y, 0.0)
    base_x = tl.minimum(tl.maximum(base_x, -WINDOW), width.to(tl.float32)).to(tl.int32)
    base_y = tl.minimum(tl.maximum(base_y, -WINDOW), height.to(tl.float32)).to(tl.int32)
    return base_x, base_y, decimal_x, decimal_y


@triton.jit
def _queried(
    current, divisors, image, pixel, valid, x, y, stride_n, stride_c, stride_p,
    C: tl.constexpr, INPUTS: tl.constexpr, INPUTS_PAD: tl.constexpr,
):  # fmt: skip
    """Eq. 16 and 17: what the query's layer reads, (M, INPUTS) in float32."""
    channel = tl.arange(0, INPUTS_PAD)
    at = current + image * stride_n + pixel[:, None] * stride_p + channel[None, :] * stride_c
    tokens = tl.load(at, mask=valid[:, None] & (channel < C)[None, :], other=0.0).to(tl.float32)
    if divisors is not None:
        tokens += _encoding(x, y, divisors, 0, C, INPUTS, INPUTS_PAD)
    return tokens


@triton.jit
def _head_weight(weight, head, WIDTH: tl.constexpr, WIDTH_PAD: tl.constexpr,
                 INPUTS: tl.constexpr, INPUTS_PAD: tl.constexpr):  # fmt: skip
    """The rows of the query's weight that make one head, transposed: (INPUTS, WIDTH)."""
    inputs, d = tl.arange(0, INPUTS_PAD), tl.arange(0, WIDTH_PAD)
    at = weight + (head * WIDTH + d)[None, :] * INPUTS + inputs[:, None]
    return tl.load(at, mask=(inputs < INPUTS)[:, None] & (d < WIDTH)[None, :], other=0.0)


@triton.jit
def _window_pixel(
    keys_values, table, outside, image, base_x, base_y, valid, head, height, width,
    index,
    C: tl.constexpr, WIDTH: tl.constexpr, WIDTH_PAD: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    """Keys and values of one pixel of every window, counted row by row (Eq. 10, 11, 13, 14).

    Returns:
        Two (M, WIDTH) in float32; where they lie, counted from ``keys_values``, (M,); and which of
        them lie there, (M,).
    """
    d = tl.arange(0, WIDTH_PAD)
    y, x = base_y + index // WINDOW, base_x + index % WINDOW
    is_inside = valid
    if outside is not None:
        is_inside = valid & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    y = tl.minimum(tl.maximum(y, 0), height - 1)
    x = tl.minimum(tl.maximum(x, 0), width - 1)
    row = (image * height * width + y * width + x) * (2 * C) + head * WIDTH
    at = keys_values + row[:, None] + d[None, :]
    mask = is_inside[:, None] & (d < WIDTH)[None, :]
    key = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    value = tl.load(at + C, mask=mask, other=0.0).to(tl.float32)
    if outside is not None:
        at = outside + head * WIDTH + d
        key += tl.where(is_inside[:, None], 0.0, tl.load(at, mask=d < WIDTH, other=0.0)[None, :])
        at += C
        value += tl.where(is_inside[:, None], 0.0, tl.load(at, mask=d < WIDTH, other=0.0)[None, :])
    if table is not None:
        at = table + index * 2 * C + head * WIDTH + d
        key += tl.load(at, mask=d < WIDTH, other=0.0)[None, :]
        value += tl.load(at + C, mask=d < WIDTH, other=0.0)[None, :]
    return key, value, row, is_inside


@triton.jit
def _align(
    keys_values, current, flow, weight, bias, table, outside, divisors, out,
    height, width, stride_n, stride_c, stride_p, scale,
    C: tl.constexpr, HEADS: tl.constexpr, INPUTS: tl.constexpr, INPUTS_PAD: tl.constexpr,
    WIDTH: tl.constexpr, WIDTH_PAD: tl.constexpr, WINDOW: tl.constexpr,
    PIXELS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    valid = pixel < height * width
    d = tl.arange(0, WIDTH_PAD)
    base_x, base_y, x, y = _split_position(flow, image, pixel, valid, height, width, WINDOW)
    tokens = _queried(
        current, divisors, image, pixel, valid, x, y, stride_n, stride_c, stride_p,
        C, INPUTS, INPUTS_PAD,
    ).to(keys_values.dtype.element_ty)  # fmt: skip
    for head in range(HEADS):
        rows = _head_weight(weight, head, WIDTH, WIDTH_PAD, INPUTS, INPUTS_PAD)
        query = tl.dot(tokens, rows.to(tokens.dtype), input_precision=PRECISION)
        shift = tl.load(bias + head * WIDTH + d, mask=d < WIDTH, other=0.0).to(tl.float32)
        query = (query + shift[None, :]) * scale
        # Softmax as the window goes by: the largest logit so far, the sums relative to it.
        largest = tl.full((PIXELS,), float("-inf"), tl.float32)
        total = tl.zeros((PIXELS,), tl.float32)
        mixed = tl.zeros((PIXELS, WIDTH_PAD), tl.float32)
        for index in range(WINDOW * WINDOW):
            key, value, _, _ = _window_pixel(
                keys_values, table, outside, image, base_x, base_y, valid, head,
                height, width, index, C, WIDTH, WIDTH_PAD, WINDOW,
            )  # fmt: skip
            logit = tl.sum(query * key, 1)
            rising = tl.maximum(largest, logit)
            kept, added = tl.exp(largest - rising), tl.exp(logit - rising)
            total = total * kept + added
            mixed = mixed * kept[:, None] + added[:, None] * value
            largest = rising
        at = out + (image * height * width + pixel)[:, None] * C + head * WIDTH + d[None, :]
        tl.store(at, mixed / total[:, None], mask=valid[:, None] & (d < WIDTH)[None, :])


@triton.jit
def _align_backward(
    keys_values, current, flow, weight, bias, table, outside, divisors, grad_out,
    grad_keys_values, grad_current, grad_flow, grad_table, grad_outside, queried, grad_query,
    height, width, stride_n, stride_c, stride_p, scale,
    C: tl.constexpr, HEADS: tl.constexpr, INPUTS: tl.constexpr, INPUTS_PAD: tl.constexpr,
    WIDTH: tl.constexpr, WIDTH_PAD: tl.constexpr, WINDOW: tl.constexpr,
    PIXELS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    valid = pixel < height * width
    d, channel = tl.arange(0, WIDTH_PAD), tl.arange(0, INPUTS_PAD)
    row = (image * height * width + pixel)[:, None]
    is_head = valid[:, None] & (d < WIDTH)[None, :]
    base_x, base_y, x, y = _split_position(flow, image, pixel, valid, height, width, WINDOW)
    tokens = _queried(
        current, divisors, image, pixel, valid, x, y, stride_n, stride_c, stride_p,
        C, INPUTS, INPUTS_PAD,
    ).to(keys_values.dtype.element_ty)  # fmt: skip
    is_input = valid[:, None] & (channel < INPUTS)[None, :]
    tl.store(queried + row * INPUTS + channel[None, :], tokens, mask=is_input)
    grad_tokens = tl.zeros((PIXELS, INPUTS_PAD), tl.float32)
    for head in range(HEADS):
        rows = _head_weight(weight, head, WIDTH, WIDTH_PAD, INPUTS, INPUTS_PAD).to(tokens.dtype)
        query = tl.dot(tokens, rows, input_precision=PRECISION)
        shift = tl.load(bias + head * WIDTH + d, mask=d < WIDTH, other=0.0).to(tl.float32)
        query = (query + shift[None, :]) * scale
        grad = tl.load(grad_out + row * C + head * WIDTH + d[None, :], mask=is_head, other=0.0).to(
            tl.float32
        )
        # Once over the window for its softmax and the mean of the weights' gradients.
        largest = tl.full((PIXELS,), float("-inf"), tl.float32)
        total = tl.zeros((PIXELS,), tl.float32)
        mean = tl.zeros((PIXELS,), tl.float32)
        for index in range(WINDOW * WINDOW):
            key, value, _, _ = _window_pixel(
                keys_values, table, outside, image, base_x, base_y, valid, head,
                height, width, index, C, WIDTH, WIDTH_PAD, WINDOW,
            )  # fmt: skip
            logit = tl.sum(query * key, 1)
            rising = tl.maximum(largest, logit)
            kept, added = tl.exp(largest - rising), tl.exp(logit - rising)
            total = total * kept + added
            mean = mean * kept + added * tl.sum(grad * value, 1)
            largest = rising
        mean /= total
        # And again for the gradients.
        grad_head = tl.zeros((PIXELS, WIDTH_PAD), tl.float32)
        for index in range(WINDOW * WINDOW):
            key, value, at, is_inside = _window_pixel(
                keys_values, table, outside, image, base_x, base_y, valid, head,
                height, width, index, C, WIDTH, WIDTH_PAD, WINDOW,
            )  # fmt: skip
            share = tl.exp(tl.sum(query * key, 1) - largest) / total
            grad_logit = share * (tl.sum(grad * value, 1) - mean)
            grad_head += grad_logit[:, None] * key
            grad_key = grad_logit[:, None] * query
            grad_value = share[:, None] * grad
            at = grad_keys_values + at[:, None] + d[None, :]
            mask = is_inside[:, None] & (d < WIDTH)[None, :]
            tl.atomic_add(at, grad_key, mask=mask, sem="relaxed")
            tl.atomic_add(at + C, grad_value, mask=mask, sem="relaxed")
            if grad_table is not None:
                at = grad_table + index * 2 * C + head * WIDTH + d
                _add_sums(at, grad_key, grad_value, is_head, C, WIDTH)
            if grad_outside is not None:
                is_outside = is_head & ~is_inside[:, None]
                if tl.max(tl.max(is_outside.to(tl.int32), 1), 0) > 0:
                    at = grad_outside + head * WIDTH + d
                    _add_sums(at, grad_key, grad_value, is_outside, C, WIDTH)
        grad_head = (grad_head * scale).to(tokens.dtype)
        tl.store(grad_query + row * C + head * WIDTH + d[None, :], grad_head, mask=is_head)
        grad_tokens += tl.dot(grad_head, tl.trans(rows), input_precision=PRECISION)
    at = grad_current + row * C + channel[None, :]
    tl.store(at, grad_tokens, mask=valid[:, None] & (channel < C)[None, :])
    if grad_flow is not None:
        is_x, _ = _channel_axis(channel, C, INPUTS)
        divisor = tl.load(divisors + channel, mask=channel < INPUTS, other=1.0)
        slope = _encoding(x, y, divisors, 1, C, INPUTS, INPUTS_PAD)
        slope *= grad_tokens * (6.283185307179586 / (WINDOW + 1e-6) / divisor)[None, :]
        slope = tl.where((channel < INPUTS)[None, :], slope, 0.0)
        at = grad_flow + image * 2 * height * width + pixel
        tl.store(at, tl.sum(tl.where(is_x[None, :], slope, 0.0), 1), mask=valid)
        at += height * width
        tl.store(at, tl.sum(tl.where(is_x[None, :], 0.0, slope), 1), mask=valid)


@triton.jit
def _add_sums(at, grad_key, grad_value, mask, C: tl.constexpr, WIDTH: tl.constexpr):
    """Adds the sums over pixels of two gradients (M, WIDTH) to memory, C apart."""
    is_channel = tl.arange(0, grad_key.shape[1]) < WIDTH
    tl.atomic_add(at, tl.sum(tl.where(mask, grad_key, 0.0), 0), mask=is_channel, sem="relaxed")
    at += C
    tl.atomic_add(at, tl.sum(tl.where(mask, grad_value, 0.0), 0), mask=is_channel, sem="relaxed")


def _tiles(inputs_pad: int, width_pad: int, dtype: torch.dtype, is_backward: bool) -> dict:
    """Chooses pixels and warps of a program, such that no registers spill on any card.

    ``tools/kernel_report.py`` shows whether they do.
    """
    is_half = dtype.itemsize == 2
    if inputs_pad > 128 or width_pad > 32:
        pixels, warps = 16, 8
    elif is_backward and is_half:
        pixels, warps = 32, 4
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
    """Returns what both kernels are given: features, sizes, strides and tiles."""
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


def _start(
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
    """Starts the kernel; arguments and result as in :func:`align_windows`."""
    n, c, height, width = current.shape
    arguments = _arguments(keys_values, current, weight, num_heads, window_size, is_backward=False)
    out = keys_values.new_empty(n, height, width, c)
    launch(
        _align,
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


def _start_backward(
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
) -> list[Tensor]:
    """Starts the backward kernel.

    Args:
        grad: (n, h, w, c), the gradient of what :func:`implicit_alignment` returned.
        others: as there.

    Returns:
        The gradients of all tensors from ``keys_values`` to ``outside``; empty ones for the flow
        if the decimals are not encoded, and for a ``table`` and ``outside`` that are None.
    """
    n, c, height, width = current.shape
    arguments = _arguments(keys_values, current, weight, num_heads, window_size, is_backward=True)
    sums = partial(torch.zeros, device=grad.device, dtype=torch.float32)
    queried = keys_values.new_empty(n * height * width, weight.shape[1])
    grad_query = keys_values.new_empty(n * height * width, c)
    grad_keys_values = sums(keys_values.shape)
    grad_current = current.new_empty(n, height, width, c)
    grad_flow = (
        None if divisors is None else torch.empty_like(flow, memory_format=torch.contiguous_format)
    )
    grad_table = None if table is None else sums(table.shape)
    grad_outside = None if outside is None else sums(outside.shape)
    launch(
        _align_backward,
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
        queried=queried,
        grad_query=grad_query,
        **arguments,
    )
    return [
        grad_keys_values.to(keys_values.dtype),
        grad_current.permute(0, 3, 1, 2),
        grad_flow if grad_flow is not None else flow.new_empty(0),
        (grad_query.t() @ queried).to(weight.dtype),
        grad_query.sum(0, dtype=torch.float32).to(bias.dtype),
        grad_table if grad_table is not None else flow.new_empty(0),
        grad_outside.to(outside.dtype) if outside is not None else flow.new_empty(0),
    ]


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
    """Aligns by the kernel; arguments and result as in :func:`align_windows`."""
    inputs = (keys_values, current, flow, weight, bias, table, outside, divisors)
    sizes = (num_heads, window_size)
    return attempt(
        "implicit alignment",
        lambda: _start(*inputs, *sizes),
        lambda: align_windows(*inputs, *sizes).contiguous(),
    )


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
) -> list[Tensor]:
    """Computes the gradients by the kernel, see :func:`_start_backward`."""
    inputs = (keys_values, current, flow, weight, bias, table, outside, divisors)
    return _start_backward(grad, *inputs, num_heads, window_size)


@implicit_alignment_backward.register_fake
def _(grad, keys_values, current, flow, weight, bias, table, outside, divisors, *_):
    n, c, height, width = current.shape
    return [
        torch.empty_like(keys_values, memory_format=torch.contiguous_format),
        current.new_empty(n, height, width, c).permute(0, 3, 1, 2),
        flow.new_empty(0 if divisors is None else flow.shape),
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

    def reference() -> list[Tensor | None]:
        return reference_gradients(lambda *x: align_windows(*x, *ctx.sizes), inputs, grad)

    found = attempt(
        "implicit alignment, backward",
        lambda: implicit_alignment_backward(grad, *inputs, *ctx.sizes),
        reference,
    )
    flow = found[2] if inputs[7] is not None else None
    table, outside = (
        x if saved is not None else None for x, saved in zip(found[5:7], inputs[5:7], strict=True)
    )
    return (*found[:2], flow, *found[3:5], table, outside, None, None, None)


implicit_alignment.register_autograd(_gradients, setup_context=_save)


USES = {
    "IA-RT": (120, 0, 6, 2, "border"),
    "IA-CNN": (64, 16, 8, 2, "zeros"),
    "IA-CNN as in the paper": (64, 0, 8, 2, "border"),
    "study": (60, 0, 6, 2, "border"),
    "study, window of 4": (60, 0, 6, 4, "border"),
}
"""Channels, position channels, heads, window and padding of the networks that are shipped."""


def shipped() -> Iterator[Shipped]:
    """Yields the kernels at the sizes of :data:`USES`, for the kernel report.

    bfloat16 is left out: it takes what float16 takes.
    """
    for name, (c, extra, heads, window, padding) in USES.items():
        for dtype in (torch.float16, torch.float32):
            new = partial(torch.empty, device="meta")
            inputs = (
                new(1, 180 * 320, 2 * c, dtype=dtype),
                new(1, c, 180, 320, dtype=dtype),
                new(1, 2, 180, 320),
                new(c, c + extra),
                new(c),
                new(window**2, 2 * c),
                new(2 * c) if padding == "zeros" else None,
                new(c + extra),
            )
            label = f"implicit alignment, {name}, {str(dtype).removeprefix('torch.')}"
            yield Shipped(label, partial(_start, *inputs, heads, window))
            grad = new(1, 180, 320, c, dtype=dtype)
            backward = partial(_start_backward, grad, *inputs, heads, window)
            yield Shipped(f"{label}, backward", backward)

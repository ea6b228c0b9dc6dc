"""The backward kernel of implicit alignment, which recomputes the forward pass's values."""

import triton
import triton.language as tl

from .implicit_alignment_parts import (
    channel_axis,
    encoding,
    head_query,
    query_tokens,
    split_position,
    window_pixel,
)


@triton.jit
def align_backward(
    keys_values, current, flow, weight, bias, table, outside, divisors, grad_out,
    grad_keys_values, grad_current, grad_flow, grad_table, grad_outside, all_tokens, grad_query,
    height, width, stride_n, stride_c, stride_p, scale,
    C: tl.constexpr, HEADS: tl.constexpr, INPUTS: tl.constexpr, INPUTS_PAD: tl.constexpr,
    WIDTH: tl.constexpr, WIDTH_PAD: tl.constexpr, WINDOW: tl.constexpr,
    PIXELS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Computes the gradients of some pixels' alignment.

    The gradients of keys, values, ``table`` and ``outside`` are added to tensors that start as
    zeros. The input of the query's layer is written to ``all_tokens``, and the gradient of its
    output to ``grad_query``; their product over all pixels is the gradient of the layer's weight.
    """
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    valid = pixel < height * width
    d, channel = tl.arange(0, WIDTH_PAD), tl.arange(0, INPUTS_PAD)
    row = (image * height * width + pixel)[:, None]
    is_head = valid[:, None] & (d < WIDTH)[None, :]
    is_input = valid[:, None] & (channel < INPUTS)[None, :]
    base_x, base_y, x, y = split_position(flow, image, pixel, valid, height, width, WINDOW)
    tokens = query_tokens(
        current, divisors, image, pixel, valid, x, y, stride_n, stride_c, stride_p,
        C, INPUTS, INPUTS_PAD,
    ).to(keys_values.dtype.element_ty)  # fmt: skip
    tl.store(all_tokens + row * INPUTS + channel[None, :], tokens, mask=is_input)
    grad_tokens = tl.zeros((PIXELS, INPUTS_PAD), tl.float32)
    for head in range(HEADS):
        query, rows = head_query(
            tokens, weight, bias, head, scale, WIDTH, WIDTH_PAD, INPUTS, INPUTS_PAD, PRECISION
        )
        at = row * C + head * WIDTH + d[None, :]
        grad = tl.load(grad_out + at, mask=is_head, other=0.0).to(tl.float32)
        largest, total, mean = _softmax(
            query, grad, keys_values, table, outside, image, base_x, base_y, valid, head,
            height, width, C, WIDTH, WIDTH_PAD, WINDOW, PIXELS,
        )  # fmt: skip
        grad_head = tl.zeros((PIXELS, WIDTH_PAD), tl.float32)
        for index in range(WINDOW * WINDOW):
            key, value, place, is_inside = window_pixel(
                keys_values, table, outside, image, base_x, base_y, valid, head,
                height, width, index, C, WIDTH, WIDTH_PAD, WINDOW,
            )  # fmt: skip
            share = tl.exp(tl.sum(query * key, 1) - largest) / total
            grad_logit = share * (tl.sum(grad * value, 1) - mean)
            grad_head += grad_logit[:, None] * key
            grad_key, grad_value = grad_logit[:, None] * query, share[:, None] * grad
            mask = is_inside[:, None] & (d < WIDTH)[None, :]
            place = grad_keys_values + place[:, None] + d[None, :]
            tl.atomic_add(place, grad_key, mask=mask, sem="relaxed")
            tl.atomic_add(place + C, grad_value, mask=mask, sem="relaxed")
            _add_shared(
                grad_table, grad_outside, grad_key, grad_value, is_head, is_inside, head, index,
                C, WIDTH,
            )  # fmt: skip
        grad_head = (grad_head * scale).to(tokens.dtype)
        tl.store(grad_query + at, grad_head, mask=is_head)
        grad_tokens += tl.dot(grad_head, tl.trans(rows), input_precision=PRECISION)
    is_feature = valid[:, None] & (channel < C)[None, :]
    tl.store(grad_current + row * C + channel[None, :], grad_tokens, mask=is_feature)
    if grad_flow is not None:
        at = grad_flow + image * 2 * height * width + pixel
        grad_x, grad_y = _by_position(grad_tokens, x, y, divisors, C, INPUTS, INPUTS_PAD, WINDOW)
        tl.store(at, grad_x, mask=valid)
        tl.store(at + height * width, grad_y, mask=valid)


@triton.jit
def _softmax(
    query, grad, keys_values, table, outside, image, base_x, base_y, valid, head,
    height, width, C: tl.constexpr, WIDTH: tl.constexpr, WIDTH_PAD: tl.constexpr,
    WINDOW: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """Computes what the softmax of one head's logits and its gradient need.

    Returns:
        (M,) each: the largest logit, the sum of exponentials relative to it, and the weighted mean
        over the window of the weights' gradients.
    """
    largest = tl.full((PIXELS,), float("-inf"), tl.float32)
    total = tl.zeros((PIXELS,), tl.float32)
    mean = tl.zeros((PIXELS,), tl.float32)
    for index in range(WINDOW * WINDOW):
        key, value, _place, _inside = window_pixel(
            keys_values, table, outside, image, base_x, base_y, valid, head,
            height, width, index, C, WIDTH, WIDTH_PAD, WINDOW,
        )  # fmt: skip
        logit = tl.sum(query * key, 1)
        rising = tl.maximum(largest, logit)
        kept, added = tl.exp(largest - rising), tl.exp(logit - rising)
        total = total * kept + added
        mean = mean * kept + added * tl.sum(grad * value, 1)
        largest = rising
    return largest, total, mean / total


@triton.jit
def _add_shared(
    grad_table, grad_outside, grad_key, grad_value, is_head, is_inside, head, index,
    C: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Adds the gradients of the tensors that all pixels share: ``table`` and ``outside``."""
    d = tl.arange(0, grad_key.shape[1])
    if grad_table is not None:
        at = grad_table + index * 2 * C + head * WIDTH + d
        _add_sums(at, grad_key, grad_value, is_head, C, WIDTH)
    if grad_outside is not None:
        is_outside = is_head & ~is_inside[:, None]
        if tl.max(tl.max(is_outside.to(tl.int32), 1), 0) > 0:
            at = grad_outside + head * WIDTH + d
            _add_sums(at, grad_key, grad_value, is_outside, C, WIDTH)


@triton.jit
def _add_sums(at, grad_key, grad_value, mask, C: tl.constexpr, WIDTH: tl.constexpr):
    """Adds the sums over pixels of two gradients (M, WIDTH) to memory, the second C further on."""
    is_channel = tl.arange(0, grad_key.shape[1]) < WIDTH
    tl.atomic_add(at, tl.sum(tl.where(mask, grad_key, 0.0), 0), mask=is_channel, sem="relaxed")
    at += C
    tl.atomic_add(at, tl.sum(tl.where(mask, grad_value, 0.0), 0), mask=is_channel, sem="relaxed")


@triton.jit
def _by_position(
    grad_tokens, x, y, divisors,
    C: tl.constexpr, INPUTS: tl.constexpr, INPUTS_PAD: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    """The gradients of the position's x and y, (M,) each, through the encoding of the decimals."""
    channel = tl.arange(0, INPUTS_PAD)
    is_x, _index = channel_axis(channel, C, INPUTS)
    divisor = tl.load(divisors + channel, mask=channel < INPUTS, other=1.0)
    slope = encoding(x, y, divisors, 1, C, INPUTS, INPUTS_PAD)  # a quarter turn on: the derivative
    slope *= grad_tokens * (6.283185307179586 / (WINDOW + 1e-6) / divisor)[None, :]
    slope = tl.where((channel < INPUTS)[None, :], slope, 0.0)
    grad_x = tl.sum(tl.where(is_x[None, :], slope, 0.0), 1)
    return grad_x, tl.sum(tl.where(is_x[None, :], 0.0, slope), 1)

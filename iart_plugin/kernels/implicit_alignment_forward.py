"""The forward kernel of implicit alignment."""

import triton
import triton.language as tl

from .implicit_alignment_parts import head_query, query_tokens, split_position, window_pixel


@triton.jit
def align(
    keys_values, current, flow, weight, bias, table, outside, divisors, out,
    height, width, stride_n, stride_c, stride_p, scale,
    C: tl.constexpr, HEADS: tl.constexpr, INPUTS: tl.constexpr, INPUTS_PAD: tl.constexpr,
    WIDTH: tl.constexpr, WIDTH_PAD: tl.constexpr, WINDOW: tl.constexpr,
    PIXELS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Aligns some pixels (Eq. 8 to 17), one head after another.

    The softmax is computed in one pass over the window, relative to the largest logit so far.
    """
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    valid = pixel < height * width
    d = tl.arange(0, WIDTH_PAD)
    base_x, base_y, x, y = split_position(flow, image, pixel, valid, height, width, WINDOW)
    tokens = query_tokens(
        current, divisors, image, pixel, valid, x, y, stride_n, stride_c, stride_p,
        C, INPUTS, INPUTS_PAD,
    ).to(keys_values.dtype.element_ty)  # fmt: skip
    for head in range(HEADS):
        query, _rows = head_query(
            tokens, weight, bias, head, scale, WIDTH, WIDTH_PAD, INPUTS, INPUTS_PAD, PRECISION
        )
        largest = tl.full((PIXELS,), float("-inf"), tl.float32)
        total = tl.zeros((PIXELS,), tl.float32)
        mixed = tl.zeros((PIXELS, WIDTH_PAD), tl.float32)
        for index in range(WINDOW * WINDOW):
            key, value, _place, _inside = window_pixel(
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

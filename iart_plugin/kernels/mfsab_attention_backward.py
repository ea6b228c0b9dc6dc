"""The gradients of an MFSAB block's attention, in Triton kernels.

Each kernel recomputes the logits, and from these and their logsumexp the attention weights. No
kernel uses atomics, so results are exactly reproducible. One program handles a window's queries, or
its keys and values, in one head. The gradient of the bias is one sum for each group of windows.
Names are as in :mod:`.mfsab_forward`.
"""

import triton
import triton.language as tl

from .mfsab_forward import SIZES, find_tokens, load_heads, logits_of


@triton.jit
def load_queries(
    qkv, qkv_bias, gradient, logsumexp, row, out_row, head, inside, wanted, HEADS: tl.constexpr,
    D: tl.constexpr, DP: tl.constexpr,
):  # fmt: skip
    """Loads what the gradient of attention needs for a tile of queries.

    Returns:
        The queries and the gradient of attention's output for them, both (tokens, DP), and the
        logsumexp of their logits, (tokens,). It is infinite where there is no query, so that the
        attention weights are zero there.
    """
    C: tl.constexpr = HEADS * D
    d = tl.arange(0, DP)
    query = load_heads(qkv, qkv_bias, row, 0, head, inside, C, D, DP)
    place = gradient + out_row[:, None] * C + head * D + d[None, :]
    upper = tl.load(place, mask=wanted[:, None] & (d < D)[None, :], other=0.0)
    total = tl.load(logsumexp + out_row * HEADS + head, mask=wanted, other=float("inf"))
    return query, upper, total


@triton.jit(do_not_specialize=SIZES)
def query_gradient_kernel(
    qkv,  # (clips * T * pixels, 3 C)
    qkv_bias,
    bias,  # (heads, N, N)
    attended,  # (clips * FRAMES * pixels, C)
    gradient,  # the same, of the attended tokens
    logsumexp,  # (clips * FRAMES * pixels, heads)
    along,  # as logsumexp, written: the products of the attended tokens and their gradients
    qkv_gradient,  # (clips * T * pixels, 3 C), its queries of the wanted frames written
    height, width, windows_down, windows_across, scale, T: tl.constexpr, FIRST: tl.constexpr,
    FRAMES: tl.constexpr, WH: tl.constexpr, WW: tl.constexpr, HEADS: tl.constexpr, D: tl.constexpr,
    DP: tl.constexpr, SHIFT: tl.constexpr, TOKENS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradient of one window's queries in one head."""
    C: tl.constexpr = HEADS * D
    N: tl.constexpr = T * WH * WW
    head = tl.program_id(0) % HEADS
    window = tl.program_id(0) // HEADS
    clip = tl.program_id(1).to(tl.int64)
    first_row = clip * T * height * width
    first_out = (clip * FRAMES - FIRST) * height * width
    d = tl.arange(0, DP)
    for first in range(FIRST * WH * WW, (FIRST + FRAMES) * WH * WW, TOKENS):
        query_token = first + tl.arange(0, TOKENS)
        query_row, inside, query_region = find_tokens(
            query_token, window, height, width, windows_down, windows_across, T, WH, WW, SHIFT
        )
        wanted = inside & (query_token < (FIRST + FRAMES) * WH * WW)
        out_row = first_out + query_row
        query, upper, total = load_queries(
            qkv, qkv_bias, gradient, logsumexp, first_row + query_row, out_row, head, inside,
            wanted, HEADS, D, DP,
        )  # fmt: skip
        place = attended + out_row[:, None] * C + head * D + d[None, :]
        mixed = tl.load(place, mask=wanted[:, None] & (d < D)[None, :], other=0.0)
        product = tl.sum(upper.to(tl.float32) * mixed.to(tl.float32), 1)
        tl.store(along + out_row * HEADS + head, product, mask=wanted)
        query_gradient = tl.zeros((TOKENS, DP), tl.float32)
        for start in range(0, N, TOKENS):
            key_token = start + tl.arange(0, TOKENS)
            row, inside, key_region = find_tokens(
                key_token, window, height, width, windows_down, windows_across, T, WH, WW, SHIFT
            )
            key = load_heads(qkv, qkv_bias, first_row + row, 1, head, inside, C, D, DP)
            value = load_heads(qkv, qkv_bias, first_row + row, 2, head, inside, C, D, DP)
            logits = logits_of(
                query, key, bias, query_token, query_region, key_token, key_region, head, scale,
                N, SHIFT, PRECISION,
            )  # fmt: skip
            slope = tl.dot(upper, tl.trans(value), input_precision=PRECISION) - product[:, None]
            slope *= tl.exp(logits - total[:, None])
            query_gradient += tl.dot(slope.to(key.dtype), key, input_precision=PRECISION)
        place = qkv_gradient + (first_row + query_row)[:, None] * (3 * C) + head * D + d[None, :]
        query_gradient = (query_gradient * scale).to(qkv_gradient.dtype.element_ty)
        tl.store(place, query_gradient, mask=wanted[:, None] & (d < D)[None, :])


@triton.jit(do_not_specialize=SIZES)
def key_value_gradient_kernel(
    qkv, qkv_bias, bias, gradient, logsumexp, along,
    qkv_gradient,  # (clips * T * pixels, 3 C), its keys and values written
    padding_gradient,  # (clips * windows, 2 C), written, or None: keys and values in the padding
    height, width, windows_down, windows_across, scale, T: tl.constexpr, FIRST: tl.constexpr,
    FRAMES: tl.constexpr, WH: tl.constexpr, WW: tl.constexpr, HEADS: tl.constexpr, D: tl.constexpr,
    DP: tl.constexpr, SHIFT: tl.constexpr, TOKENS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradients of one window's keys and values in one head."""
    C: tl.constexpr = HEADS * D
    N: tl.constexpr = T * WH * WW
    head = tl.program_id(0) % HEADS
    window = tl.program_id(0) // HEADS
    clip = tl.program_id(1).to(tl.int64)
    pixels = height * width
    first_row, first_out = clip * T * pixels, (clip * FRAMES - FIRST) * pixels
    d = tl.arange(0, DP)
    key_padding, value_padding = tl.zeros((DP,), tl.float32), tl.zeros((DP,), tl.float32)
    for start in range(0, N, TOKENS):
        key_token = start + tl.arange(0, TOKENS)
        key_row, key_inside, key_region = find_tokens(
            key_token, window, height, width, windows_down, windows_across, T, WH, WW, SHIFT
        )
        key = load_heads(qkv, qkv_bias, first_row + key_row, 1, head, key_inside, C, D, DP)
        value = load_heads(qkv, qkv_bias, first_row + key_row, 2, head, key_inside, C, D, DP)
        key_gradient = tl.zeros((TOKENS, DP), tl.float32)
        value_gradient = tl.zeros((TOKENS, DP), tl.float32)
        for first in range(FIRST * WH * WW, (FIRST + FRAMES) * WH * WW, TOKENS):
            query_token = first + tl.arange(0, TOKENS)
            row, inside, query_region = find_tokens(
                query_token, window, height, width, windows_down, windows_across, T, WH, WW, SHIFT
            )
            wanted = inside & (query_token < (FIRST + FRAMES) * WH * WW)
            query, upper, total = load_queries(
                qkv, qkv_bias, gradient, logsumexp, first_row + row, first_out + row, head, inside,
                wanted, HEADS, D, DP,
            )  # fmt: skip
            product = tl.load(along + (first_out + row) * HEADS + head, mask=wanted, other=0.0)
            logits = logits_of(
                query, key, bias, query_token, query_region, key_token, key_region, head, scale,
                N, SHIFT, PRECISION,
            )  # fmt: skip
            weights = tl.exp(logits - total[:, None])
            turned = tl.trans(weights.to(upper.dtype))
            value_gradient = tl.dot(turned, upper, value_gradient, input_precision=PRECISION)
            slope = tl.dot(upper, tl.trans(value), input_precision=PRECISION) - product[:, None]
            turned = tl.trans((slope * weights).to(query.dtype))
            key_gradient = tl.dot(turned, query, key_gradient, input_precision=PRECISION)
        key_gradient *= scale
        place = qkv_gradient + (first_row + key_row)[:, None] * (3 * C) + head * D + d[None, :]
        known = key_inside[:, None] & (d < D)[None, :]
        tl.store(place + C, key_gradient.to(qkv_gradient.dtype.element_ty), mask=known)
        tl.store(place + 2 * C, value_gradient.to(qkv_gradient.dtype.element_ty), mask=known)
        if padding_gradient is not None:
            key_padding += tl.sum(tl.where(key_inside[:, None], 0.0, key_gradient), 0)
            value_padding += tl.sum(tl.where(key_inside[:, None], 0.0, value_gradient), 0)
    if padding_gradient is not None:
        number = clip * windows_down * windows_across + window
        place = padding_gradient + number * (2 * C) + head * D + d
        tl.store(place, key_padding, mask=d < D)
        tl.store(place + C, value_padding, mask=d < D)


@triton.jit(do_not_specialize=SIZES)
def bias_gradient_kernel(
    qkv, qkv_bias, bias, gradient, logsumexp, along,
    bias_gradient,  # (groups, heads, FRAMES * WH * WW, N), written
    height, width, windows_down, windows_across, scale,
    windows,  # of all clips
    T: tl.constexpr, FIRST: tl.constexpr, FRAMES: tl.constexpr, WH: tl.constexpr, WW: tl.constexpr,
    HEADS: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, SHIFT: tl.constexpr,
    TOKENS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradient of a tile of one head's logits, summed over a group of windows."""
    C: tl.constexpr = HEADS * D
    N: tl.constexpr = T * WH * WW
    QUERIES: tl.constexpr = FRAMES * WH * WW
    head = tl.program_id(0) % HEADS
    tile = tl.program_id(0) // HEADS
    group = tl.program_id(1)
    KEY_TILES: tl.constexpr = (N + TOKENS - 1) // TOKENS
    query = (tile // KEY_TILES) * TOKENS + tl.arange(0, TOKENS)  # counted from the first wanted
    query_token = FIRST * WH * WW + query
    key_token = (tile % KEY_TILES) * TOKENS + tl.arange(0, TOKENS)
    per_clip = windows_down * windows_across
    summed = tl.zeros((TOKENS, TOKENS), tl.float32)
    for index in range(group, windows, tl.num_programs(1)):
        clip, window = (index // per_clip).to(tl.int64), index % per_clip
        first_row = clip * T * height * width
        first_out = (clip * FRAMES - FIRST) * height * width
        row, inside, query_region = find_tokens(
            query_token, window, height, width, windows_down, windows_across, T, WH, WW, SHIFT
        )
        wanted = inside & (query < QUERIES)
        queries, upper, total = load_queries(
            qkv, qkv_bias, gradient, logsumexp, first_row + row, first_out + row, head, inside,
            wanted, HEADS, D, DP,
        )  # fmt: skip
        product = tl.load(along + (first_out + row) * HEADS + head, mask=wanted, other=0.0)
        row, inside, key_region = find_tokens(
            key_token, window, height, width, windows_down, windows_across, T, WH, WW, SHIFT
        )
        key = load_heads(qkv, qkv_bias, first_row + row, 1, head, inside, C, D, DP)
        value = load_heads(qkv, qkv_bias, first_row + row, 2, head, inside, C, D, DP)
        logits = logits_of(
            queries, key, bias, query_token, query_region, key_token, key_region, head, scale,
            N, SHIFT, PRECISION,
        )  # fmt: skip
        slope = tl.dot(upper, tl.trans(value), input_precision=PRECISION) - product[:, None]
        summed += slope * tl.exp(logits - total[:, None])
    place = (group * HEADS + head).to(tl.int64) * QUERIES * N + query[:, None] * N
    place += bias_gradient + key_token[None, :]
    tl.store(place, summed, mask=(query < QUERIES)[:, None] & (key_token < N)[None, :])

"""The forward pass of the MFSAB block, in three Triton kernels.

Tokens are rows of a (rows, C) matrix, frame by frame and channels last. :func:`norm_qkv_kernel`
and :func:`project_mlp_kernel` work token by token. :func:`attention_kernel` finds the tokens of a
window by their indices: windows are never gathered, rolled or padded in memory.

A window has N = T * WH * WW tokens: T frames, WH rows, WW columns. ``P`` after a name stands for
its next power of two, which Triton's tiles need: ``CP`` for the channels C, ``DP`` for a head's
width D.
"""

import triton
import triton.language as tl

MASKED = tl.constexpr(-100.0)

SIZES = ("height", "width", "windows_down", "windows_across")
"""Arguments for whose values kernels are not compiled anew, as a film may have any size."""


@triton.jit
def load_vector(pointer, index, length):
    """Elements of a vector in float32; zero past its end."""
    return tl.load(pointer + index, mask=index < length, other=0.0).to(tl.float32)


@triton.jit
def load_tile(pointer, row, column, rows, columns):
    """A tile of a row-major (rows, columns) matrix; zero outside of it."""
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    return tl.load(pointer + row[:, None] * columns + column[None, :], mask=inside, other=0.0)


@triton.jit
def load_transposed(pointer, row, column, rows, columns):
    """The transpose of a tile: (column, row) of a row-major (rows, columns) matrix."""
    inside = (column < columns)[:, None] & (row < rows)[None, :]
    return tl.load(pointer + row[None, :] * columns + column[:, None], mask=inside, other=0.0)


@triton.jit
def store_tile(pointer, tile, row, column, rows, columns):
    """Writes a tile of a row-major (rows, columns) matrix, in the matrix's dtype."""
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    place = pointer + row[:, None] * columns + column[None, :]
    tl.store(place, tile.to(pointer.dtype.element_ty), mask=inside)


@triton.jit
def normalised(x, channel, epsilon, C: tl.constexpr):
    """Tokens with mean 0 and variance 1, and the reciprocal of their standard deviation."""
    mean = tl.sum(x, 1) / C
    centred = tl.where((channel < C)[None, :], x - mean[:, None], 0.0)
    scale = 1 / tl.sqrt(tl.sum(centred * centred, 1) / C + epsilon)
    return centred * scale[:, None], scale


@triton.jit
def find_tokens(
    token, window, height, width, windows_down, windows_across, T: tl.constexpr, WH: tl.constexpr,
    WW: tl.constexpr, SHIFT: tl.constexpr,
):  # fmt: skip
    """Finds tokens of a window, which are ordered by frame, row and column, in their clip.

    Returns:
        For each token its row among those of the clip; whether it lies in a frame, not in the
        padding; and its region, which differs between tokens that must not see each other.
    """
    down, across = token // WW % WH, token % WW
    y = (window // windows_across) * WH + down
    x = (window % windows_across) * WW + across
    region = tl.zeros_like(token)
    if SHIFT:
        y += WH // 2
        x += WW // 2
        y = tl.where(y >= windows_down * WH, y - windows_down * WH, y)
        x = tl.where(x >= windows_across * WW, x - windows_across * WW, x)
        last_row = window // windows_across == windows_down - 1
        last_column = window % windows_across == windows_across - 1
        region = tl.where(last_row & (down >= WH - WH // 2), 2, 0)
        region += tl.where(last_column & (across >= WW - WW // 2), 1, 0)
    frame = token // (WH * WW)
    inside = (y < height) & (x < width) & (frame < T)
    return (frame * height + y) * width + x, inside, region


@triton.jit
def load_heads(
    qkv, qkv_bias, row, part, head, inside, C: tl.constexpr, D: tl.constexpr, DP: tl.constexpr
):  # fmt: skip
    """Queries (part 0), keys (1) or values (2) of one head: (tokens, DP).

    Padding is zero after the norm, so its queries, keys and values equal the projection's bias.
    """
    d = tl.arange(0, DP)
    column = part * C + head * D + d
    known = inside[:, None] & (d < D)[None, :]
    found = tl.load(qkv + row[:, None] * (3 * C) + column[None, :], mask=known, other=0.0)
    padding = tl.load(qkv_bias + column, mask=d < D, other=0.0).to(found.dtype)
    return tl.where(inside[:, None], found, padding[None, :])


@triton.jit
def logits_of(
    query, key, bias, query_token, query_region, key_token, key_region, head, scale,
    N: tl.constexpr, SHIFT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """q k^T / sqrt(d) + bias + mask; minus infinity for keys that only fill the last tile."""
    inside = (query_token < N)[:, None] & (key_token < N)[None, :]
    place = bias + head * N * N + query_token[:, None] * N + key_token[None, :]
    logits = tl.dot(query, tl.trans(key), input_precision=PRECISION) * scale
    logits += tl.load(place, mask=inside, other=0.0).to(tl.float32)
    if SHIFT:
        logits += tl.where(query_region[:, None] != key_region[None, :], MASKED, 0.0)
    return tl.where((key_token < N)[None, :], logits, float("-inf"))


@triton.jit
def norm_qkv_kernel(
    x,  # (rows, C)
    norm_weight, norm_bias,
    weight,  # (3 C, C)
    bias,
    qkv,  # (rows, 3 C), written
    rows, epsilon, C: tl.constexpr, CP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Norm and the projection to queries, keys and values."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, CP)
    tokens = load_tile(x, row, channel, rows, C).to(tl.float32)
    normed, _ = normalised(tokens, channel, epsilon, C)
    normed = normed * load_vector(norm_weight, channel, C) + load_vector(norm_bias, channel, C)
    normed = normed.to(weight.dtype.element_ty)
    for first in range(0, 3 * C, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        part = load_transposed(weight, column, channel, 3 * C, C)
        out = tl.dot(normed, part, input_precision=PRECISION)
        out += load_vector(bias, column, 3 * C)[None, :]
        store_tile(qkv, out, row, column, rows, 3 * C)


@triton.jit(do_not_specialize=SIZES)
def attention_kernel(
    qkv,  # (clips * T * pixels, 3 C)
    qkv_bias,
    bias,  # (heads, N, N), query by key
    out,  # (clips * FRAMES * pixels, C), written
    logsumexp,  # (clips * FRAMES * pixels, heads), written
    height, width, windows_down, windows_across, scale, T: tl.constexpr, FIRST: tl.constexpr,
    FRAMES: tl.constexpr, WH: tl.constexpr, WW: tl.constexpr, HEADS: tl.constexpr, D: tl.constexpr,
    DP: tl.constexpr, SHIFT: tl.constexpr, TOKENS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Attention of one window and head, for the frames FIRST to FIRST + FRAMES."""
    C: tl.constexpr = HEADS * D
    N: tl.constexpr = T * WH * WW
    head = tl.program_id(0) % HEADS  # a window's heads run together and share cache lines
    window = tl.program_id(0) // HEADS
    clip = tl.program_id(1).to(tl.int64)
    first_row = clip * T * height * width
    first_out = (clip * FRAMES - FIRST) * height * width  # less the frames before FIRST
    d = tl.arange(0, DP)
    for first in range(FIRST * WH * WW, (FIRST + FRAMES) * WH * WW, TOKENS):
        query_token = first + tl.arange(0, TOKENS)
        row, inside, query_region = find_tokens(
            query_token, window, height, width, windows_down, windows_across, T, WH, WW, SHIFT
        )
        wanted = inside & (query_token < (FIRST + FRAMES) * WH * WW)
        query = load_heads(qkv, qkv_bias, first_row + row, 0, head, inside, C, D, DP)
        out_row = first_out + row
        highest = tl.full((TOKENS,), float("-inf"), tl.float32)
        total = tl.zeros((TOKENS,), tl.float32)
        mixed = tl.zeros((TOKENS, DP), tl.float32)
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
            higher = tl.maximum(highest, tl.max(logits, 1))
            weights = tl.exp(logits - higher[:, None])
            faded = tl.exp(highest - higher)
            total = total * faded + tl.sum(weights, 1)
            mixed = mixed * faded[:, None]
            mixed += tl.dot(weights.to(value.dtype), value, input_precision=PRECISION)
            highest = higher
        place = out + out_row[:, None] * C + head * D + d[None, :]
        mixed = (mixed / total[:, None]).to(out.dtype.element_ty)
        tl.store(place, mixed, mask=wanted[:, None] & (d < D)[None, :])
        tl.store(logsumexp + out_row * HEADS + head, highest + tl.log(total), mask=wanted)


@triton.jit
def projected(
    x, weight, bias, row, rows, C: tl.constexpr, CP: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A linear layer from C to C channels, some input channels at a time: (ROWS, CP)."""
    channel = tl.arange(0, CP)
    out = tl.zeros((ROWS, CP), tl.float32) + load_vector(bias, channel, C)[None, :]
    for first in range(0, C, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        part = load_transposed(weight, channel, column, C, C)
        out = tl.dot(load_tile(x, row, column, rows, C), part, out, input_precision=PRECISION)
    return out


@triton.jit
def project_mlp_kernel(
    x,  # (clips * in_rows, C)
    attended,  # (rows, C), of the wanted frame or frames
    proj_weight, proj_bias, norm_weight, norm_bias,
    fc1_weight,  # (HIDDEN, C)
    fc1_bias,
    fc2_weight,  # (C, HIDDEN)
    fc2_bias,
    scales,  # (2, clips), of attention and of MLP, or None
    out,  # (rows, C), written
    rows,
    in_rows,  # tokens of a clip in x
    out_rows,  # and in out
    skipped,  # tokens of a clip in x before the first that is wanted
    epsilon, clips, C: tl.constexpr, CP: tl.constexpr, HIDDEN: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Projection of the attended tokens, shortcut, norm, MLP, shortcut."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, CP)
    clip = row // out_rows
    source = tl.where(row < rows, row + clip * (in_rows - out_rows) + skipped, clips * in_rows)
    tokens = load_tile(x, source, channel, clips * in_rows, C).to(tl.float32)
    branch = projected(attended, proj_weight, proj_bias, row, rows, C, CP, ROWS, COLUMNS, PRECISION)
    last_bias = load_vector(fc2_bias, channel, C)[None, :]
    if scales is not None:
        scale = load_vector(scales + clips, clip, clips)[:, None]
        branch *= load_vector(scales, clip, clips)[:, None]
        last_bias *= scale
    tokens += branch
    normed, _ = normalised(tokens, channel, epsilon, C)
    normed = normed * load_vector(norm_weight, channel, C) + load_vector(norm_bias, channel, C)
    normed = normed.to(fc1_weight.dtype.element_ty)
    tokens += last_bias
    for first in range(0, HIDDEN, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        fc1 = load_transposed(fc1_weight, column, channel, HIDDEN, C)
        hidden = tl.dot(normed, fc1, input_precision=PRECISION)
        hidden += load_vector(fc1_bias, column, HIDDEN)[None, :]
        hidden *= 0.5 * (1 + tl.erf(hidden * 0.7071067811865476))
        if scales is not None:
            hidden *= scale
        fc2 = load_transposed(fc2_weight, channel, column, C, HIDDEN)
        tokens = tl.dot(hidden.to(fc2.dtype), fc2, tokens, input_precision=PRECISION)
    store_tile(out, tokens, row, channel, rows, C)

"""The gradients of an MFSAB block's token-wise parts, in Triton kernels.

Each kernel recomputes what it needs from the forward pass. The gradients of weight matrices are
left to cuBLAS; the kernels store both factors for it. For the gradients of biases and norms, each
program writes one row of sums, and the rows are added up afterwards. This needs no atomics, so
results are exactly reproducible. Names are as in :mod:`.mfsab_forward`.
"""

import triton
import triton.language as tl

from .mfsab_forward import load_tile, load_vector, normalised, projected, store_tile


@triton.jit
def store_sums(sums, width, first, tile, column, columns):
    """Writes the sum over a tile's rows to this program's row of ``sums``, from ``first`` on."""
    place = sums + tl.program_id(0).to(tl.int64) * width + first + column
    tl.store(place, tl.sum(tile, 0), mask=column < columns)


@triton.jit
def norm_backward(gradient, normal, scale, weight, C: tl.constexpr):
    """Computes the gradient of a norm's input from its output's gradient.

    ``normal`` and ``scale`` are the results of :func:`.mfsab_forward.normalised`.
    """
    gradient = gradient * weight[None, :]
    mean = tl.sum(gradient, 1) / C
    along = tl.sum(gradient * normal, 1) / C
    return (gradient - mean[:, None] - normal * along[:, None]) * scale[:, None]


@triton.jit
def mlp_backward(
    inner, outer, fc1_weight, fc1_bias, fc2_weight, hidden, hidden_gradient, sums, row, rows,
    C: tl.constexpr, CP: tl.constexpr, HIDDEN: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Computes the gradient of the MLP's input ``inner``, (ROWS, CP).

    ``outer`` is the gradient of the MLP's output.
    """
    channel = tl.arange(0, CP)
    inner_gradient = tl.zeros((ROWS, CP), tl.float32)
    for first in range(0, HIDDEN, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        fc1 = load_tile(fc1_weight, column, channel, HIDDEN, C)
        z = tl.dot(inner, tl.trans(fc1), input_precision=PRECISION)
        z += load_vector(fc1_bias, column, HIDDEN)[None, :]
        below = 0.5 * (1 + tl.erf(z * 0.7071067811865476))  # GELU is z times this
        store_tile(hidden, z * below, row, column, rows, HIDDEN)
        slope = below + z * tl.exp(-0.5 * z * z) * 0.3989422804014327
        fc2 = load_tile(fc2_weight, channel, column, C, HIDDEN)
        slope *= tl.dot(outer, fc2, input_precision=PRECISION)
        store_sums(
            sums, 4 * C + HIDDEN, 4 * C + first, slope, tl.arange(0, COLUMNS), HIDDEN - first
        )
        slope = slope.to(inner.dtype)
        store_tile(hidden_gradient, slope, row, column, rows, HIDDEN)
        inner_gradient = tl.dot(slope, fc1, inner_gradient, input_precision=PRECISION)
    return inner_gradient


@triton.jit
def project_mlp_backward_kernel(
    gradient,  # (rows, C) of the block's output
    x,  # (clips * in_rows, C)
    attended,  # (rows, C)
    proj_weight, proj_bias, norm_weight, norm_bias,
    fc1_weight,  # (HIDDEN, C)
    fc1_bias,
    fc2_weight,  # (C, HIDDEN)
    scales,  # (2, clips), or None
    normed, hidden, hidden_gradient, out_gradient, projected_gradient, attended_gradient,
    x_gradient, sums,
    rows, in_rows, out_rows, skipped, epsilon, clips, C: tl.constexpr, CP: tl.constexpr,
    HIDDEN: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The backward pass of :func:`.mfsab_forward.project_mlp_kernel`.

    Writes:
        normed: (rows, C), the input of the MLP.
        hidden: (rows, HIDDEN), the input of its second layer.
        hidden_gradient: (rows, HIDDEN), of the first layer's output.
        out_gradient: (rows, C), of the second layer's output.
        projected_gradient: (rows, C), of the projection's output.
        attended_gradient: (rows, C).
        x_gradient: (rows, C), what the shortcut around attention passes back.
        sums: (programs, 4 C + HIDDEN), of the norm's weight and bias, and of the biases of the
            projection, of the second layer and of the first.
    """
    WIDTH: tl.constexpr = 4 * C + HIDDEN
    DTYPE: tl.constexpr = proj_weight.dtype.element_ty
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, CP)
    clip = row // out_rows
    source = tl.where(row < rows, row + clip * (in_rows - out_rows) + skipped, clips * in_rows)
    tokens = load_tile(x, source, channel, clips * in_rows, C).to(tl.float32)
    branch = projected(attended, proj_weight, proj_bias, row, rows, C, CP, ROWS, COLUMNS, PRECISION)
    upper = load_tile(gradient, row, channel, rows, C).to(tl.float32)
    outer = upper
    if scales is not None:
        scale = load_vector(scales, clip, clips)[:, None]
        branch *= scale
        outer *= load_vector(scales + clips, clip, clips)[:, None]
    normal, deviation = normalised(tokens + branch, channel, epsilon, C)
    gain = load_vector(norm_weight, channel, C)
    inner = (normal * gain[None, :] + load_vector(norm_bias, channel, C)[None, :]).to(DTYPE)
    store_tile(normed, inner, row, channel, rows, C)
    store_sums(sums, WIDTH, 3 * C, outer, channel, C)
    outer = outer.to(DTYPE)
    store_tile(out_gradient, outer, row, channel, rows, C)

    inner_gradient = mlp_backward(
        inner, outer, fc1_weight, fc1_bias, fc2_weight, hidden, hidden_gradient, sums, row, rows,
        C, CP, HIDDEN, ROWS, COLUMNS, PRECISION,
    )  # fmt: skip
    store_sums(sums, WIDTH, 0, inner_gradient * normal, channel, C)
    store_sums(sums, WIDTH, C, inner_gradient, channel, C)
    upper += norm_backward(inner_gradient, normal, deviation, gain, C)
    store_tile(x_gradient, upper, row, channel, rows, C)
    if scales is not None:
        upper *= scale
    store_sums(sums, WIDTH, 2 * C, upper, channel, C)
    lower = upper.to(DTYPE)
    store_tile(projected_gradient, lower, row, channel, rows, C)
    for first in range(0, C, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        part = load_tile(proj_weight, channel, column, C, C)
        out = tl.dot(lower, part, input_precision=PRECISION)
        store_tile(attended_gradient, out, row, column, rows, C)


@triton.jit
def norm_qkv_backward_kernel(
    qkv_gradient,  # (rows, 3 C)
    x,  # (rows, C)
    shortcut_gradient,  # (clips * out_rows, C)
    norm_weight, norm_bias,
    weight,  # (3 C, C)
    normed,  # (rows, C), written: the input of the projection
    x_gradient,  # (rows, C), written
    sums,  # (programs, 5 C), written: norm weight, norm bias, bias of the projection
    rows,
    in_rows,  # tokens of a clip in x
    out_rows,  # and in the block's output, which are those after the first `skipped`
    skipped, epsilon, C: tl.constexpr, CP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """The backward pass of :func:`.mfsab_forward.norm_qkv_kernel`, plus the shortcut's gradient."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, CP)
    inner_gradient = tl.zeros((ROWS, CP), tl.float32)
    for first in range(0, 3 * C, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        upper = load_tile(qkv_gradient, row, column, rows, 3 * C)
        store_sums(
            sums, 5 * C, 2 * C + first, upper.to(tl.float32), tl.arange(0, COLUMNS), 3 * C - first
        )
        part = load_tile(weight, column, channel, 3 * C, C)
        inner_gradient = tl.dot(upper, part, inner_gradient, input_precision=PRECISION)
    tokens = load_tile(x, row, channel, rows, C).to(tl.float32)
    normal, deviation = normalised(tokens, channel, epsilon, C)
    gain = load_vector(norm_weight, channel, C)
    inner = normal * gain[None, :] + load_vector(norm_bias, channel, C)[None, :]
    store_tile(normed, inner, row, channel, rows, C)
    store_sums(sums, 5 * C, 0, inner_gradient * normal, channel, C)
    store_sums(sums, 5 * C, C, inner_gradient, channel, C)
    lower = norm_backward(inner_gradient, normal, deviation, gain, C)
    place = row % in_rows - skipped
    wanted = (row < rows) & (place >= 0) & (place < out_rows)
    source = (row // in_rows) * out_rows + place
    inside = wanted[:, None] & (channel < C)[None, :]
    shortcut = shortcut_gradient + source[:, None] * C + channel[None, :]
    lower += tl.load(shortcut, mask=inside, other=0.0).to(tl.float32)
    store_tile(x_gradient, lower, row, channel, rows, C)

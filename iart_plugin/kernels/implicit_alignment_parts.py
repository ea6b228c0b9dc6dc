"""The parts that both kernels of implicit alignment share: positions, encodings, windows.

Positions and angles are float32, and so are keys and values once they are loaded.
"""

import triton
import triton.language as tl

# Half pi as a sum of three parts. The first two have so few digits that their products with the
# number of quarter turns in an angle, at most some hundreds, are exact.
HALF_PI_1 = tl.constexpr(1.5703125)
HALF_PI_2 = tl.constexpr(4.837512969970703125e-4)
HALF_PI_3 = tl.constexpr(7.54978995489188216e-8)


@triton.jit
def wave(angle, quarters):
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
def channel_axis(channel, C: tl.constexpr, INPUTS: tl.constexpr):
    """Whether a channel's encoding is of x, not y, and its index among those of its axis."""
    beside = channel >= C
    index = tl.where(beside, channel - C, channel)
    axis = tl.where(beside, (INPUTS - C) // 2, C // 2)
    is_x = index >= axis
    return is_x, tl.where(is_x, index - axis, index)


@triton.jit
def encoding(
    x, y, divisors, quarters, C: tl.constexpr, INPUTS: tl.constexpr, INPUTS_PAD: tl.constexpr
):
    """Eq. 7 and 18 of normalised positions (M,), ``quarters`` quarter turns ahead: (M, INPUTS)."""
    channel = tl.arange(0, INPUTS_PAD)
    is_x, index = channel_axis(channel, C, INPUTS)
    divisor = tl.load(divisors + channel, mask=channel < INPUTS, other=1.0)
    position = tl.where(is_x[None, :], x[:, None], y[:, None])
    # Same order of operations as the reference form: another changes the fastest angles by 1e-5.
    angle = tl.div_rn(position * 6.283185307179586, divisor[None, :])
    return wave(angle, (index % 2)[None, :] + quarters)


@triton.jit
def split_position(flow, image, pixel, valid, height, width, WINDOW: tl.constexpr):
    """Eq. 12: the window's first pixel, clamped to where it still matters, and the decimals.

    The decimals are returned over the window's side, as they are encoded.
    """
    SIDE: tl.constexpr = WINDOW + 1e-6
    flow += image * 2 * height * width + pixel
    x = tl.load(flow, mask=valid, other=0.0) + (pixel % width).to(tl.float32)
    y = tl.load(flow + height * width, mask=valid, other=0.0) + (pixel // width).to(tl.float32)
    base_x, base_y = tl.floor(x), tl.floor(y)
    decimal_x, decimal_y = tl.div_rn(x - base_x, SIDE), tl.div_rn(y - base_y, SIDE)
    # Casting NaN or a huge float to an integer is undefined, and could give any index.
    base_x = tl.where(base_x == base_x, base_x, 0.0)
    base_y = tl.where(base_y == base_y, base_y, 0.0)
    # Triton turns a size of one into a constant, which has no method ``to``.
    base_x = tl.minimum(tl.maximum(base_x, -WINDOW), tl.cast(width, tl.float32)).to(tl.int32)
    base_y = tl.minimum(tl.maximum(base_y, -WINDOW), tl.cast(height, tl.float32)).to(tl.int32)
    return base_x, base_y, decimal_x, decimal_y


@triton.jit
def query_tokens(
    current, divisors, image, pixel, valid, x, y, stride_n, stride_c, stride_p,
    C: tl.constexpr, INPUTS: tl.constexpr, INPUTS_PAD: tl.constexpr,
):  # fmt: skip
    """Eq. 16 and 17: the input of the query's layer, (M, INPUTS) in float32."""
    channel = tl.arange(0, INPUTS_PAD)
    at = current + image * stride_n + pixel[:, None] * stride_p + channel[None, :] * stride_c
    tokens = tl.load(at, mask=valid[:, None] & (channel < C)[None, :], other=0.0).to(tl.float32)
    if divisors is not None:
        tokens += encoding(x, y, divisors, 0, C, INPUTS, INPUTS_PAD)
    return tokens


@triton.jit
def head_query(
    tokens, weight, bias, head, scale,
    WIDTH: tl.constexpr, WIDTH_PAD: tl.constexpr, INPUTS: tl.constexpr, INPUTS_PAD: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Eq. 9 for one head: scaled queries (M, WIDTH), and the transposed rows of the weight."""
    inputs, d = tl.arange(0, INPUTS_PAD), tl.arange(0, WIDTH_PAD)
    at = weight + (head * WIDTH + d)[None, :] * INPUTS + inputs[:, None]
    mask = (inputs < INPUTS)[:, None] & (d < WIDTH)[None, :]
    rows = tl.load(at, mask=mask, other=0.0).to(tokens.dtype)  # (INPUTS, WIDTH)
    shift = tl.load(bias + head * WIDTH + d, mask=d < WIDTH, other=0.0).to(tl.float32)
    query = tl.dot(tokens, rows, input_precision=PRECISION) + shift[None, :]
    return query * scale, rows


@triton.jit
def window_pixel(
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

"""Implicit alignment from projected keys and values, written like the equations.

:func:`align_windows` and the operator of :mod:`~iart_plugin.ops.alignment_operator` take the same
arguments:

    keys_values: (n, h * w, 2 c), the keys, then the values, of every pixel of the reference.
    current: (n, c, h, w), the current frame's features.
    flow: (n, 2, h, w) in pixels, x then y.
    weight, bias: (c, c + p) and (c,), the query's linear layer; its last p inputs are encodings
        without features.
    table: (w * w, 2 c), what the window's encodings add to keys and values (Eq. 14), or None.
    outside: (2 c,), the keys and values of pixels outside the frame; None repeats the border.
    divisors: (c + p,), the divisor of the angle in each of the query's input channels (Eq. 18);
        None if the decimals are not encoded.

The result is (n, h, w, c). Positions, logits and softmax are float32, or float64 for float64 input.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .constants import kept
from .parts import in_parts
from .positional_encoding import sinusoidal_encoding
from .precision import full_precision, wide_dtype
from .tracing import is_traced
from .warp import pixel_grid

FAR = 2.0**23
"""A coordinate in pixels that lies outside any frame and is still exact in float32."""

STRIP_PIXELS = 2048
"""Pixels aligned at a time on a CPU without gradients. More would need too much memory: each pixel
gathers eight times its features."""


def align_windows(
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
    """Attends to the window of every pixel, on a CPU without gradients in strips of rows.

    Products and the result have the dtype of ``keys_values``.
    """
    c, height, width = current.shape[1:]
    base, decimal = split_position(flow)

    def strip(top: int, bottom: int) -> Tensor:
        rows = current[:, :, top:bottom].permute(0, 2, 3, 1)  # (n, rows, w, c)
        tokens = F.pad(rows, (0, weight.shape[1] - c))
        if divisors is not None:
            position = decimal[:, :, top:bottom].flip(1).permute(0, 2, 3, 1)  # as y, x
            tokens = tokens + encode(position / (window_size + 1e-6), c, weight.shape[1] - c)
        query = _linear(tokens.to(keys_values.dtype), weight, bias) * (c // num_heads) ** -0.5
        window = _gather(keys_values, base[:, :, top:bottom], window_size, (height, width), outside)
        if table is not None:
            window = window + table.to(window.dtype)
        key, value = window.unflatten(-1, (2, num_heads, -1)).unbind(-3)
        query = query.unflatten(-1, (1, num_heads, -1))  # (n, rows, w, 1, heads, c / heads)
        weights = (query * key).sum(-1, dtype=wide_dtype(query)).softmax(-2).to(value.dtype)
        return (weights.unsqueeze(-1) * value).sum(-3).flatten(-2)

    whole = torch.is_grad_enabled() or flow.device.type != "cpu" or is_traced(flow)
    return in_parts(strip, height, height if whole else max(1, STRIP_PIXELS // width))


def split_position(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Splits p + flow into its integral base (int64) and decimal part, both (n, 2, h, w) (Eq. 12).

    The decimal is taken from the position, not from the flow: the two differ in float32.
    """
    flow = flow.to(wide_dtype(flow))
    position = flow + kept(pixel_grid, *flow.shape[-2:], device=flow.device, dtype=flow.dtype)
    base = position.floor()
    decimal = position - base
    # Casting NaN or a huge float to an integer is undefined, and could give any index.
    base = base.nan_to_num(nan=0.0).clamp(-FAR, FAR)
    return base.detach().long(), decimal


def encode(position: Tensor, channels: int, position_channels: int) -> Tensor:
    """Encodes (..., 2) positions, y then x, as (..., channels + position_channels)."""
    parts = [sinusoidal_encoding(position, size) for size in (channels, position_channels) if size]
    return torch.cat(parts, -1)


def _gather(
    keys_values: Tensor,
    base: Tensor,
    window_size: int,
    size: tuple[int, int],
    outside: Tensor | None,
) -> Tensor:
    """Keys and values of the windows at (n, 2, rows, w): (n, rows, w, w * w, 2 c) (Eq. 13)."""
    (height, width), n = size, base.shape[0]  # len() would fix an exported batch size
    index = torch.arange(window_size, device=base.device)
    y = base[:, 1, ..., None, None] + index.unsqueeze(1)
    x = base[:, 0, ..., None, None] + index  # (n, rows, w, window, 1) and (n, rows, w, 1, window)
    image = torch.arange(n, device=base.device).view(n, 1, 1, 1, 1) * (height * width)
    row = (image + y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).flatten(-2)
    window = keys_values.flatten(0, 1).index_select(0, row.flatten()).view(*row.shape, -1)
    if outside is None:
        return window
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return torch.where(inside.flatten(-2).unsqueeze(-1), window, outside.to(window.dtype))


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear layer in the dtype of ``x``, even under autocast."""
    with full_precision(x.device):
        return F.linear(x, weight.to(x.dtype), bias.to(x.dtype))

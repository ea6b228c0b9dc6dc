"""Implicit alignment as Eq. 6-18 read, pixel window by pixel window: the oracle of the fast form.

Only for tests: nothing is shared with the package but the names of the parameters.
"""

import math

import torch
from torch import Tensor


def gamma(position: Tensor, channels: int) -> Tensor:
    """Eq. 7 and 18 for positions (..., 2) as y, x: channels of y, then of x."""
    half = channels // 2
    out = []
    for axis in range(2):
        for m in range(half):
            angle = 2 * math.pi * position[..., axis] / 0.01 ** (2 * (m // 2) / half)
            out.append(angle.sin() if m % 2 == 0 else angle.cos())
    return torch.stack(out, -1)


def plain_alignment(op, reference: Tensor, current: Tensor, flow: Tensor) -> Tensor:
    """What ``op`` (an ImplicitAlignment) should compute; all tensors float64, (n, c, h, w)."""
    n, c, h, w = reference.shape
    size, heads = op.window_size, op.num_heads
    grid_y, grid_x = torch.meshgrid(
        torch.arange(h, dtype=flow.dtype), torch.arange(w, dtype=flow.dtype), indexing="ij"
    )
    u_x, u_y = grid_x + flow[:, 0], grid_y + flow[:, 1]
    z_x, z_y = u_x.floor(), u_y.floor()
    d = torch.stack((u_y - z_y, u_x - z_x), -1)  # Eq. 12

    def linear(layer, x: Tensor) -> Tensor:
        return x @ layer.weight.to(x.dtype).t() + layer.bias.to(x.dtype)

    def encoded(x: Tensor, position: Tensor) -> Tensor:
        """The sum of a feature and an encoding, and the encoding's own channels."""
        extra = gamma(position, op.position_channels) if op.position_channels else None
        shared = x + gamma(position, c)
        return shared if extra is None else torch.cat((shared, extra.expand(*x.shape[:3], -1)), -1)

    x_t = current.permute(0, 2, 3, 1)  # Eq. 16
    if op.encode_decimal:
        x_t = encoded(x_t, d / (size + 1e-6))  # Eq. 17
    query = linear(op.q, x_t)  # Eq. 9

    keys, values = [], []
    batch = torch.arange(n).view(n, 1, 1)
    for i in range(size):
        for j in range(size):
            row = (z_y + i).clamp(0, h - 1).long()
            column = (z_x + j).clamp(0, w - 1).long()
            w_r = reference.permute(0, 2, 3, 1)[batch, row, column]  # Eq. 13
            if op.padding_mode == "zeros":
                outside = (row != z_y + i) | (column != z_x + j)
                w_r = w_r.masked_fill(outside[..., None], 0)
            if op.encode_window:
                index = torch.tensor([i, j], dtype=flow.dtype) / (size - 1 + 1e-6)
                w_r = encoded(w_r, index)  # Eq. 14
            keys.append(linear(op.k, w_r))  # Eq. 10
            values.append(linear(op.v, w_r))  # Eq. 11
    key, value = torch.stack(keys, 3), torch.stack(values, 3)  # (n, h, w, size^2, c)

    out = []
    for head in range(heads):  # Eq. 8
        part = slice(head * c // heads, (head + 1) * c // heads)
        logits = (query[..., None, part] * key[..., part]).sum(-1) / math.sqrt(c / heads)
        out.append((logits.softmax(-1)[..., None] * value[..., part]).sum(3))
    return torch.cat(out, -1).permute(0, 3, 1, 2)

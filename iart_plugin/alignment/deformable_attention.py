"""Flow-guided deformable attention (FGDA, 'FGDA' of Table 1).

Written from the equations of RVRT (Liang et al., NeurIPS 2022) in plain PyTorch: attention of the
current frame over reference features sampled at the flow's positions plus learnt offsets.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iart_plugin.ops.aligner import Alignment
from iart_plugin.ops.precision import full_precision, wide_dtype
from iart_plugin.ops.warp import check_flow, per_axis, pixel_grid, warp

from .offsets import OffsetNetwork, convolutions, groups_of

KERNEL_SIZE = 3
POINTS = KERNEL_SIZE**2
MAX_HEADS = 12
EXPANSION = 2
OFFSET_CHANNELS = 64


class DeformableAttentionAlignment(Alignment):
    """Aligns by attention over 3 x 3 sampled points; every head has its own offsets.

    Keys and values are linear in the reference, so they are projected once per frame and sampled
    afterwards. Sampling is bilinear, with zeros outside the frame.

    Args:
        channels: C, the width of both features; attention works at twice that width.
        num_heads: attention heads, each with its own group of offsets; by default the largest
            divisor of ``2 * channels`` up to 12.
        hidden_channels: width of the offset network.
        max_offset: largest offset from the flow in pixels.

    Raises:
        ValueError: if ``num_heads`` does not divide ``2 * channels``.
    """

    OPTIONS = ("num_heads", "hidden_channels", "max_offset")
    takes_channels = True
    uses_current = True

    def __init__(
        self,
        channels: int,
        *,
        num_heads: int | None = None,
        hidden_channels: int = OFFSET_CHANNELS,
        max_offset: float = 10.0,
    ) -> None:
        super().__init__()
        inner = EXPANSION * channels
        self.num_heads = groups_of(inner, num_heads, MAX_HEADS)
        self.hidden_channels = hidden = hidden_channels
        self.max_offset = max_offset
        widths = (2 * channels + 2, *[hidden] * 5, 2 * POINTS * self.num_heads)
        self.offsets = OffsetNetwork(
            convolutions(widths, (1, 3, 3, 3, 3, 1)), max_offset=max_offset
        )
        self.q = nn.Linear(channels, inner)
        self.k = nn.Linear(channels, inner)
        self.v = nn.Linear(channels, inner)
        self.out = nn.Linear(inner, channels)
        self.mlp = nn.Sequential(nn.Linear(channels, inner), nn.GELU(), nn.Linear(inner, channels))

    def extra_repr(self) -> str:
        """The options that are shown when the module is printed."""
        return f"num_heads={self.num_heads}"

    def project_reference(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the reference and its keys and values (n, 2 inner, h, w), head by head."""
        tokens = x.permute(0, 2, 3, 1)
        keys = self.k(tokens).unflatten(-1, (self.num_heads, -1))
        values = self.v(tokens).unflatten(-1, (self.num_heads, -1))
        return x, torch.cat((keys, values), -1).flatten(3).permute(0, 3, 1, 2)

    def align(self, projected: tuple[Tensor, Tensor], current: Tensor, flow: Tensor) -> Tensor:
        """Attends to the offset points; see :class:`Alignment` for the shapes."""
        reference, keys_values = projected
        check_flow(reference, flow)
        n, _, h, w = reference.shape
        raw = self.offsets(warp(reference, flow), current, flow)
        sampled = self._sample(keys_values, raw, flow)  # (n, heads, 2 d, points, h * w)
        key, value = sampled.chunk(2, 2)
        query = self.q(current.flatten(2).transpose(1, 2))  # (n, h * w, heads * d)
        query = query.unflatten(-1, (self.num_heads, -1)).permute(0, 2, 3, 1)  # (n, heads, d, hw)
        scale = query.shape[2] ** -0.5
        logits = (query.unsqueeze(3) * key).sum(2, dtype=wide_dtype(query)) * scale
        weight = logits.softmax(2).to(value.dtype)  # (n, heads, points, h * w)
        mixed = (weight.unsqueeze(2) * value).sum(3).flatten(1, 2)  # (n, heads * d, h * w)
        out = self.out(mixed.transpose(1, 2))  # (n, h * w, c)
        out = out + self.mlp(out)
        return out.transpose(1, 2).reshape(n, -1, h, w)

    def _sample(self, keys_values: Tensor, raw: Tensor, flow: Tensor) -> Tensor:
        """Keys and values at every head's points: (n, heads, 2 d, points, h * w)."""
        n, _, h, w = keys_values.shape
        dtype = wide_dtype(keys_values, flow)
        flow = flow.to(dtype)
        # The points of a 3 x 3 window around the flow's target, row by row, x then y.
        window = pixel_grid(KERNEL_SIZE, KERNEL_SIZE, device=flow.device, dtype=dtype)
        window = (window - KERNEL_SIZE // 2).flatten(1).t().view(1, 1, POINTS, 2, 1, 1)
        target = flow + pixel_grid(h, w, device=flow.device, dtype=dtype)
        offset = self.offsets.bounded(raw.to(dtype)).view(n, self.num_heads, POINTS, 2, h, w)
        position = target.view(n, 1, 1, 2, h, w) + window + offset
        size = per_axis(w, h, position).view(1, 1, 1, 2, 1, 1)
        grid = ((2 * position + 1) / size - 1).permute(0, 1, 2, 4, 5, 3)
        with full_precision(flow.device):
            sampled = F.grid_sample(
                keys_values.to(dtype).reshape(n * self.num_heads, -1, h, w),
                grid.reshape(n * self.num_heads, POINTS, h * w, 2),
                align_corners=False,
            )
        return sampled.view(n, self.num_heads, -1, POINTS, h * w).to(keys_values.dtype)

"""The networks' parts written out as the equations read: what the fast forms must equal.

Nothing is fused, cached or skipped: attention through explicit products and softmax, pad, roll and
partition by views, a mask for every window, all frames through the last block, and keys and values
projected for every gathered pixel of an alignment window, which is what the paper counts.
:func:`iart_plugin.set_fused` turns to these; the benchmarks measure against them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from .ops.window_attention import MASKED

if TYPE_CHECKING:
    from .archs.mfsab import Block, Layer, MFSABBackbone, WindowAttention


def plain_backbone(backbone: MFSABBackbone, x: Tensor) -> Tensor:
    """MFSAB step by step: (n, t, c, h, w) to (n, c, h, w)."""
    n, t, c, h, w = x.shape
    mask = shift_mask(h, w, backbone.window_size).to(x)
    tokens = backbone.patch_embed.norm(x.permute(0, 1, 3, 4, 2))  # (n, t, h, w, c)
    for layer in backbone.layers:
        tokens = plain_layer(layer, tokens, backbone.window_size, mask)
    tokens = backbone.norm(tokens)
    out = backbone.conv_after_body(tokens.permute(0, 1, 4, 2, 3).flatten(0, 1))
    return out.view(n, t, c, h, w)[:, backbone.output_frame] + x[:, backbone.output_frame]


def plain_layer(layer: Layer, tokens: Tensor, window: Sequence[int], mask: Tensor) -> Tensor:
    """A layer on (n, t, h, w, c): blocks, a convolution on every frame, the shortcut."""
    shortcut = tokens
    for i, block in enumerate(layer.residual_group.blocks):
        tokens = plain_block(block, tokens, window, mask if i % 2 else None)
    frames = tokens.permute(0, 1, 4, 2, 3)
    out = layer.conv(frames.flatten(0, 1)).view_as(frames)
    return out.permute(0, 1, 3, 4, 2) + shortcut


def plain_block(block: Block, x: Tensor, window: Sequence[int], mask: Tensor | None) -> Tensor:
    """A Swin block on (n, t, h, w, c); rolled by half a window where there is a mask."""
    n, t, h, w, c = x.shape
    _, wh, ww = window
    y = F.pad(block.norm1(x), (0, 0, 0, -w % ww, 0, -h % wh))
    height, width = y.shape[2:4]
    if mask is not None:
        y = torch.roll(y, (-(wh // 2), -(ww // 2)), (2, 3))
    y = y.view(n, t, height // wh, wh, width // ww, ww, c).permute(0, 2, 4, 1, 3, 5, 6)
    y = plain_attention(block.attn, y.reshape(-1, t * wh * ww, c), mask)
    y = y.view(n, height // wh, width // ww, t, wh, ww, c).permute(0, 3, 1, 4, 2, 5, 6)
    y = y.reshape(n, t, height, width, c)
    if mask is not None:
        y = torch.roll(y, (wh // 2, ww // 2), (2, 3))
    x = x + dropped(block, y[:, :, :h, :w])
    return x + dropped(block, block.mlp(block.norm2(x)))


def dropped(block: Block, x: Tensor) -> Tensor:
    """Stochastic depth on (n, t, h, w, c)."""
    return block.drop_path(x.reshape(-1, x.shape[-1]), x.shape[0]).view(x.shape)


def plain_attention(attention: WindowAttention, x: Tensor, mask: Tensor | None) -> Tensor:
    """Attention within (windows, tokens, c), written out."""
    windows, tokens, c = x.shape
    heads = attention.num_heads
    qkv = attention.qkv(x).view(windows, tokens, 3, heads, c // heads).permute(2, 0, 3, 1, 4)
    q, k, v = qkv[0] * (c // heads) ** -0.5, qkv[1], qkv[2]
    logits = q @ k.transpose(-2, -1) + attention.bias().unsqueeze(0)
    if mask is not None:
        logits = logits.view(-1, len(mask), heads, tokens, tokens) + mask.unsqueeze(1)
        logits = logits.view(windows, heads, tokens, tokens)
    out = (logits.softmax(-1) @ v).transpose(1, 2).reshape(windows, tokens, c)
    return attention.proj(out)


def shift_mask(h: int, w: int, window: Sequence[int]) -> Tensor:
    """The (windows, tokens, tokens) mask of a rolled clip, for every window."""
    t, wh, ww = window
    height, width = h + -h % wh, w + -w % ww
    region = torch.zeros(t, height, width)
    for i, rows in enumerate((slice(0, -wh), slice(-wh, -(wh // 2)), slice(-(wh // 2), None))):
        for j, cols in enumerate((slice(0, -ww), slice(-ww, -(ww // 2)), slice(-(ww // 2), None))):
            region[:, rows, cols] = 3 * i + j
    region = region.view(t, height // wh, wh, width // ww, ww).permute(1, 3, 0, 2, 4)
    region = region.reshape(-1, t * wh * ww)
    return MASKED * (region.unsqueeze(1) != region.unsqueeze(2)).float()

"""One block of multi-frame self-attention (MFSAB), written like the equations.

A block maps the tokens of a clip, (n, t, h, w, c), to tokens of the same shape. It applies
attention within windows that span all frames (Liu et al. 2021, Shi et al. 2022), then an MLP; each
follows a layer norm and has a shortcut around it. :mod:`.mfsab_windows` computes the same in a form
that is fast on a CPU, and :mod:`.mfsab_operator` computes it with GPU kernels. The networks' blocks
choose one of the three.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from iart_plugin.kernels.mfsab_sizes import BlockWeights

MASKED = -100.0
"""Added to the logits of tokens that only the roll brought together. The released weights were
trained with this value, not with minus infinity."""


class Windows(NamedTuple):
    """How frames are cut into windows.

    Frames are padded with zeros at the bottom and the right until they hold whole windows. With a
    shift, they are then rolled up and left by half a window. This brings tokens from opposite
    borders together in the last row and column of windows, where they must not see each other.

    Attributes:
        size: (rows, columns) of a window.
        shift: whether to roll the frames.
    """

    size: tuple[int, int]
    shift: bool

    @property
    def roll(self) -> tuple[int, int]:
        """How many rows up and columns left the frames are rolled."""
        return (self.size[0] // 2, self.size[1] // 2) if self.shift else (0, 0)


def reference_block(
    x: Tensor,
    weights: BlockWeights,
    windows: Windows,
    frame: int | None = None,
    scales: Tensor | None = None,
) -> Tensor:
    """Computes a block step by step.

    Args:
        x: (n, t, h, w, c) tokens.
        weights: the block's weights.
        windows: how frames are cut.
        frame: the number of the only frame to compute; None for all.
        scales: (2, n) factors of stochastic depth, by which what attention and the MLP add to each
            clip is multiplied; None for no factors.

    Returns:
        (n, t, h, w, c), or (n, 1, h, w, c) of the wanted frame.
    """
    scale, mlp_scale = (1, 1) if scales is None else scales.view(2, -1, 1, 1, 1, 1)
    normed = cut(norm(x, weights.norm1_weight, weights.norm1_bias), windows)
    added = weights.bias
    if windows.shift:
        added = added + masks(regions(*x.shape[2:4], windows).to(x), x.shape[1]).unsqueeze(1)
    wanted = slice(None)
    if frame is not None:
        x = x[:, frame : frame + 1]
        wanted = frame_tokens(windows, frame)
    x = x + scale * uncut(attention(normed, weights, added, wanted), windows, x)
    return x + mlp_scale * mlp(norm(x, weights.norm2_weight, weights.norm2_bias), weights)


def attention(x: Tensor, weights: BlockWeights, added: Tensor, wanted: slice) -> Tensor:
    """Computes softmax(q k^T / sqrt(d) + added) v within windows, and projects it.

    Args:
        x: (..., tokens, c).
        weights: the block's weights.
        added: (..., heads, tokens, tokens), the bias plus the mask.
        wanted: the tokens to compute the output for.

    Returns:
        (..., wanted, c).
    """
    qkv = linear(x, weights.qkv_weight, weights.qkv_bias)
    qkv = qkv.unflatten(-1, (3, len(weights.bias), -1))  # (..., tokens, 3, heads, d)
    q, k, v = (part.transpose(-2, -3) for part in qkv.unbind(-3))  # (..., heads, tokens, d)
    logits = (q[..., wanted, :] * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    mixed = (logits + added[..., wanted, :]).softmax(-1).to(v.dtype) @ v
    return linear(mixed.transpose(-2, -3).flatten(-2), weights.proj_weight, weights.proj_bias)


def mlp(x: Tensor, weights: BlockWeights) -> Tensor:
    """Two linear layers with a GELU between."""
    hidden = F.gelu(linear(x, weights.fc1_weight, weights.fc1_bias))
    return linear(hidden, weights.fc2_weight, weights.fc2_bias)


def norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Normalises every token over its channels."""
    return F.layer_norm(x, x.shape[-1:], weight, bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear layer in the dtype of its weight matrix."""
    return F.linear(x.to(weight.dtype), weight, bias.to(weight.dtype))


def cut(x: Tensor, windows: Windows) -> Tensor:
    """Cuts (n, t, h, w, c) into (n, windows, tokens, c), tokens by frame, row and column."""
    (wh, ww), (down, right) = windows.size, windows.roll
    x = F.pad(x, (0, 0, 0, -x.shape[3] % ww, 0, -x.shape[2] % wh))
    n, t, height, width, c = x.shape
    x = torch.roll(x, (-down, -right), (2, 3))
    x = x.view(n, t, height // wh, wh, width // ww, ww, c).permute(0, 2, 4, 1, 3, 5, 6)
    return x.reshape(n, -1, t * wh * ww, c)


def uncut(x: Tensor, windows: Windows, like: Tensor) -> Tensor:
    """Undoes :func:`cut`: gives tokens in the shape of ``like``, with the padding removed."""
    (wh, ww), (down, right) = windows.size, windows.roll
    n, t, h, w, _ = like.shape
    rows, columns = -(-h // wh), -(-w // ww)
    x = x.view(n, rows, columns, t, wh, ww, -1).permute(0, 3, 1, 4, 2, 5, 6)
    x = x.reshape(n, t, rows * wh, columns * ww, -1)
    return torch.roll(x, (down, right), (2, 3))[:, :, :h, :w]


def frame_tokens(windows: Windows, frame: int) -> slice:
    """The slice of a window's tokens that belongs to a frame."""
    count = windows.size[0] * windows.size[1]
    return slice(frame * count, (frame + 1) * count)


def regions(height: int, width: int, windows: Windows) -> Tensor:
    """Gives each token of rolled windows the number of its region: (windows, rows * columns).

    Tokens of a window may see each other only if their numbers are equal.
    """
    (wh, ww), (down, right) = windows.size, windows.roll
    height, width = height + -height % wh, width + -width % ww
    is_top = torch.arange(height) >= height - down  # rolled there from the top
    is_left = torch.arange(width) >= width - right
    region = 2 * is_top.int().view(1, 1, -1, 1, 1) + is_left.int().view(-1, 1)
    return cut(region, Windows(windows.size, shift=False)).flatten(1).view(-1, wh * ww)


def masks(regions: Tensor, frames: int) -> Tensor:
    """The attention masks of windows with these regions: (windows, tokens, tokens)."""
    regions = regions.repeat(1, frames)
    return MASKED * (regions.unsqueeze(1) != regions.unsqueeze(2)).to(regions.dtype)

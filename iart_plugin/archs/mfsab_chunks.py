"""A Swin block a few windows at a time, from the gather to the last shortcut.

Windows are apart from each other within a block, so nothing larger than a few of them is ever
allocated beside the stream of tokens: in place where no gradient is wanted, and with a backward
pass that computes a few windows again and goes back through them at once.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from iart_plugin.ops.linear import linear
from iart_plugin.ops.window_attention import MaskedWindows, attend


class WindowChunk(NamedTuple):
    """A few windows of a plan.

    Attributes:
        index: (windows * tokens,) source row of every slot; any row for a slot of padding.
        padding: (windows * tokens, 1) whether a slot is padding; None if none is.
        kept: the slots that are not padding; None if all are kept.
        masks: its windows that have a mask, (tokens, tokens).
    """

    index: Tensor
    padding: Tensor | None
    kept: Tensor | None
    masks: tuple[MaskedWindows, ...]

    def write(self, rows: Tensor, out: Tensor) -> None:
        """Puts the windows' rows where they belong in ``out``, dropping padding."""
        if self.kept is None:
            out.index_copy_(0, self.index, rows)
        else:
            out.index_copy_(0, self.index[self.kept], rows[self.kept])

    def read(self, x: Tensor) -> Tensor:
        """The windows' rows of ``x``, zero in the slots of padding."""
        rows = x.index_select(0, self.index)
        return rows if self.padding is None else rows.masked_fill(self.padding, 0)


class BlockWeights(NamedTuple):
    """A block's weights, gathered once for a clip.

    Attributes:
        bias: (heads, tokens, tokens) on the logits, query by key.
    """

    bias: Tensor
    norm1_weight: Tensor
    norm1_bias: Tensor
    qkv_weight: Tensor
    qkv_bias: Tensor
    proj_weight: Tensor
    proj_bias: Tensor
    norm2_weight: Tensor
    norm2_bias: Tensor
    fc1_weight: Tensor
    fc1_bias: Tensor
    fc2_weight: Tensor
    fc2_bias: Tensor

    def cast(self, dtype: torch.dtype) -> "BlockWeights":
        """The same with everything but the norms in the dtype of the products."""
        return BlockWeights(
            **{
                name: value if name.startswith("norm") else value.to(dtype)
                for name, value in self._asdict().items()
            }
        )


class Work(NamedTuple):
    """What to compute of a block.

    Attributes:
        chunks: all windows.
        targets: the same windows, of the wanted frames only.
        queries: the wanted frames' tokens in a window.
        tokens: tokens in a window.
        num_rows: rows of the output.
        num_heads: attention heads.
        dtype: of matrix products.
        scales: factors (batch,) of attention and of MLP, by stochastic depth; None without.
        scratch: memory that all blocks of a clip use again, by name; filled here.
    """

    chunks: Sequence[WindowChunk]
    targets: Sequence[WindowChunk]
    queries: slice
    tokens: int
    num_rows: int
    num_heads: int
    dtype: torch.dtype
    scales: tuple[Tensor, Tensor] | None
    scratch: dict[str, Tensor]

    def buffer(self, name: str, rows: int, width: int, like: Tensor) -> Tensor | None:
        """Scratch memory (rows, width) in the dtype of products; None where gradients are wanted.

        It holds what was put there until the same name is asked for again.
        """
        if torch.is_grad_enabled():
            return None
        kept = self.scratch.get(name)
        if kept is None or len(kept) < rows or (kept.shape[1], kept.dtype) != (width, self.dtype):
            kept = self.scratch[name] = like.new_empty(rows, width, dtype=self.dtype)
        return kept[:rows]


def run_chunks(x: Tensor, work: Work, weights: BlockWeights, *, in_place: bool = False) -> Tensor:
    """A block's output rows.

    Args:
        x: (rows, c) tokens.
        work: what to compute.
        weights: the block's.
        in_place: may overwrite ``x``, if nobody wants a gradient and all frames are computed.

    Returns:
        (work.num_rows, c).
    """
    if torch.is_grad_enabled():
        return _ChunkedBlock.apply(x, work, *weights)
    return _forward(x, work, weights, x if in_place else x.new_empty(work.num_rows, x.shape[-1]))


def _forward(x: Tensor, work: Work, weights: BlockWeights, out: Tensor) -> Tensor:
    weights = weights.cast(work.dtype)
    for chunk, target in zip(work.chunks, work.targets, strict=True):
        rows = x.index_select(0, chunk.index)
        target.write(_chunk(rows, chunk, target, len(x), work, weights), out)
    return out


class _ChunkedBlock(torch.autograd.Function):
    """Keeps a block's input and nothing else."""

    @staticmethod
    def forward(ctx, x, work, *weights):
        ctx.work = work
        ctx.save_for_backward(x, *weights)
        out = x.new_empty(work.num_rows, x.shape[-1])
        return _forward(x, work, BlockWeights(*weights), out)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        x, *weights = ctx.saved_tensors
        work, wanted = ctx.work, ctx.needs_input_grad
        leaves = [
            weight.detach().requires_grad_(is_wanted)
            for weight, is_wanted in zip(weights, wanted[2:], strict=True)
        ]
        grad_x = torch.empty_like(x)
        for chunk, target in zip(work.chunks, work.targets, strict=True):
            rows = x.index_select(0, chunk.index).requires_grad_()
            with torch.enable_grad():
                own = BlockWeights(*leaves).cast(work.dtype)
                out = _chunk(rows, chunk, target, len(x), work, own)
            out.backward(target.read(grad))
            chunk.write(rows.grad, grad_x)
        return grad_x, None, *(leaf.grad for leaf in leaves)


def _chunk(
    rows: Tensor,
    chunk: WindowChunk,
    target: WindowChunk,
    num_rows: int,
    work: Work,
    weights: BlockWeights,
) -> Tensor:
    """A few windows' rows (windows * tokens, c) to those of the wanted frames."""
    c, w = rows.shape[-1], weights
    y = F.layer_norm(rows, (c,), w.norm1_weight, w.norm1_bias)
    if chunk.padding is not None:
        y = y.masked_fill(chunk.padding, 0)
    y = y.to(work.dtype).view(-1, work.tokens, c)
    heads = (work.num_heads, -1)
    if work.queries == slice(None):
        buffer = work.buffer("qkv", len(rows), 3 * c, rows)
        qkv = linear(y, w.qkv_weight, w.qkv_bias, buffer).unflatten(-1, (3, *heads))
        q, key_value = qkv[:, :, 0], qkv[:, :, 1:]
    else:
        rows = rows.view(-1, work.tokens, c)[:, work.queries].reshape(-1, c)
        q = linear(y[:, work.queries], w.qkv_weight[:c], w.qkv_bias[:c]).unflatten(-1, heads)
        key_value = linear(y, w.qkv_weight[c:], w.qkv_bias[c:]).unflatten(-1, (2, *heads))
    bias = w.bias[:, work.queries]
    masks = [run._replace(mask=run.mask[work.queries].to(bias.dtype)) for run in chunk.masks]
    scale = mlp_scale = 1
    if work.scales is not None:
        clips = target.index // (num_rows // len(work.scales[0]))
        scale, mlp_scale = (s[clips].unsqueeze(-1) for s in work.scales)
    attended = attend(q, key_value, bias, masks).flatten(0, 1)
    buffer = work.buffer("branch", len(rows), c, rows)
    rows = _add(rows, linear(attended, w.proj_weight, w.proj_bias, buffer), scale)
    y = F.layer_norm(rows, (c,), w.norm2_weight, w.norm2_bias).to(work.dtype)
    hidden = work.buffer("hidden", len(rows), len(w.fc1_bias), rows)
    y = _gelu(linear(y, w.fc1_weight, w.fc1_bias, hidden))
    return _add(rows, linear(y, w.fc2_weight, w.fc2_bias, buffer), mlp_scale)


def _gelu(x: Tensor) -> Tensor:
    return F.gelu(x) if torch.is_grad_enabled() else torch.ops.aten.gelu_(x)


def _add(rows: Tensor, branch: Tensor, scale: Tensor | int) -> Tensor:
    """The shortcut's sum, in place of ``rows``, which are a copy, where no gradient is wanted."""
    branch = branch if isinstance(scale, int) else branch * scale
    return rows + branch if torch.is_grad_enabled() else rows.add_(branch)

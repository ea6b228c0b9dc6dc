"""Multi-frame self-attention blocks (MFSAB): the backbone of PSRT-recurrent and of IA-RT.

Swin blocks whose windows span all frames of a short clip (Shi et al. 2022). Tokens stay
channels-last and frame by frame; one gather with precomputed indices pads, rolls and partitions.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from iart_plugin.fused import is_fused
from iart_plugin.ops.precision import compute_dtype, is_autocast, wide_dtype
from iart_plugin.ops.tracing import is_traced
from iart_plugin.ops.window_attention import MASKED, MaskedWindows, attend, windows_at_once
from iart_plugin.plain import plain_backbone

from .mfsab_chunks import BlockWeights, WindowChunk, Work, run_chunks

MLP_RATIO = 2
MAX_DROP_PATH = 0.1


class WindowPlan(NamedTuple):
    """Where every token goes when a clip is cut into windows, and back.

    Attributes:
        index: (batch * windows * tokens,) source row of every window slot; the number of rows for
            a slot of padding.
        inverse: (batch * rows,) window slot of every row.
        tokens: tokens in a window.
        runs: the windows in the order of ``index`` as (count, mask): count windows over the
            whole batch sharing one additive (tokens, tokens) mask, or none.
        chunks: the same windows, a few at a time; none under a compiler or without
            data.
    """

    index: Tensor
    inverse: Tensor
    tokens: int
    runs: tuple[tuple[int, Tensor | None], ...]
    chunks: tuple[WindowChunk, ...]


class BackbonePlans(NamedTuple):
    """All that a backbone needs to know of a clip's size.

    Attributes:
        batch: number of clips.
        frames: the plans of plain and of rolled blocks.
        frame: the same for one frame alone.
        scratch: memory that the calls use one after another; see :class:`.mfsab_chunks.Work`.
    """

    batch: int
    frames: tuple[WindowPlan, WindowPlan]
    frame: tuple[WindowPlan, WindowPlan]
    scratch: dict[str, Tensor]


def plan_windows(
    batch: int,
    height: int,
    width: int,
    window_size: Sequence[int],
    *,
    shift: bool,
    device: torch.device,
) -> WindowPlan:
    """Plans the cut of (batch, frames, height, width) tokens into windows.

    Height and width are padded right and bottom to whole windows. With ``shift`` the frames are
    first rolled by half a window up and left; then only the last row and column of windows hold
    tokens from opposite borders, and only they get a mask.

    Args:
        batch: number of clips.
        height: rows of a frame.
        width: columns of a frame.
        window_size: (frames, rows, columns) of a window; windows span all frames.
        shift: whether to roll by half a window.
        device: where the plan's tensors live.

    Returns:
        The plan; windows ordered interior, right edge, bottom edge, corner when shifted.
    """
    frames, wh, ww = window_size
    rows, cols = -(-height // wh), -(-width // ww)
    total = frames * height * width

    t = torch.arange(frames, device=device).view(-1, 1, 1)
    y = torch.arange(rows * wh, device=device).view(1, -1, 1)
    x = torch.arange(cols * ww, device=device).view(1, 1, -1)
    if shift:
        y, x = (y + wh // 2) % (rows * wh), (x + ww // 2) % (cols * ww)
    source = torch.where((y < height) & (x < width), (t * height + y) * width + x, -1)
    source = source.view(frames, rows, wh, cols, ww).permute(1, 3, 0, 2, 4)
    if shift:
        parts = [
            (source[:-1, :-1], False, False),
            (source[:-1, -1:], False, True),
            (source[-1:, :-1], True, False),
            (source[-1:, -1:], True, True),
        ]
    else:
        parts = [(source, False, False)]

    tokens = frames * wh * ww
    slots, runs = [], []
    for part, bottom, right in parts:
        windows = part.reshape(-1, tokens)
        if not len(windows):
            continue
        slots.append(windows)
        mask = edge_mask(window_size, bottom=bottom, right=right, device=device)
        runs.append((len(windows) * batch, mask))
    windows = torch.cat(slots)

    # (windows, batch, tokens): a run of windows over the whole batch stays contiguous.
    clip = torch.arange(batch, device=device).view(1, -1, 1)
    windows = windows.unsqueeze(1)
    index = torch.where(windows >= 0, windows + clip * total, batch * total).flatten()
    inverse = index.new_empty(batch * total + 1)
    inverse[index] = torch.arange(len(index), device=device)
    chunks = () if is_traced(index) else tuple(_chunks(index, batch * total, tokens, runs))
    return WindowPlan(index, inverse[:-1], tokens, tuple(runs), chunks)


def _chunks(
    index: Tensor, rows: int, tokens: int, runs: Sequence[tuple[int, Tensor | None]]
) -> Iterator[WindowChunk]:
    """Cuts a plan into chunks of nearly equal size, whatever their windows' masks."""
    count = sum(length for length, _ in runs)
    parts = -(-count // windows_at_once(index.device))
    for i in range(parts):
        first, last = count * i // parts, count * (i + 1) // parts
        masks, start = [], 0
        for length, mask in runs:
            begin, end = max(first, start), min(last, start + length)
            if mask is not None and begin < end:
                masks.append(MaskedWindows(begin - first, end - first, mask))
            start += length
        part = index[first * tokens : last * tokens]
        padding = part == rows
        if padding.any():
            kept = (~padding).nonzero().flatten()
            part = part.masked_fill(padding, 0)
            yield WindowChunk(part, padding.unsqueeze(-1), kept, tuple(masks))
        else:
            yield WindowChunk(part, None, None, tuple(masks))


def edge_mask(
    window_size: Sequence[int], *, bottom: bool, right: bool, device: torch.device
) -> Tensor | None:
    """The additive (tokens, tokens) mask of a rolled window at the bottom or right edge."""
    if not (bottom or right):
        return None
    _, wh, ww = window_size
    y = torch.arange(wh, device=device).view(1, -1, 1).expand(window_size) >= wh - wh // 2
    x = torch.arange(ww, device=device).view(1, 1, -1).expand(window_size) >= ww - ww // 2
    region = (bottom * y * 2 + right * x).flatten()
    return MASKED * (region.unsqueeze(0) != region.unsqueeze(1)).float()


class _TakeRows(torch.autograd.Function):
    """Rows of a matrix by an index that names each at most once; one past the end reads zero.

    ``inverse`` leads back the same way, so the gradient is the same operation with the two
    exchanged, where indexing's own gradient would be a scattered addition.
    """

    @staticmethod
    def forward(ctx, x: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(index, inverse)
        if len(index) > len(x):  # some slots are padding
            x = F.pad(x, (0, 0, 0, 1))
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        index, inverse = ctx.saved_tensors
        return _TakeRows.apply(grad, inverse, index), None, None


def to_windows(x: Tensor, plan: WindowPlan) -> Tensor:
    """Cuts (rows, c) tokens into (windows, tokens, c), zero in the slots of padding."""
    return _TakeRows.apply(x, plan.index, plan.inverse).view(-1, plan.tokens, x.shape[-1])


def from_windows(x: Tensor, plan: WindowPlan) -> Tensor:
    """Puts (windows, tokens, c) back into (rows, c), dropping padding."""
    return _TakeRows.apply(x.flatten(0, 1), plan.inverse, plan.index)


class DropPath(nn.Module):
    """Stochastic depth: drops a residual branch for whole clips while training."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def extra_repr(self) -> str:
        return f"rate={self.rate:.4f}"

    def draw(self, batch: int, like: Tensor) -> Tensor | None:
        """Factors (batch,), each 0 or 1 / (1 - rate); None if nothing is dropped."""
        if not self.training or self.rate == 0:
            return None
        return like.new_empty(batch).bernoulli_(1 - self.rate) / (1 - self.rate)

    def forward(self, x: Tensor, batch: int) -> Tensor:
        """Scales (batch * rows, c) tokens, clip by clip, by 0 or 1 / (1 - rate)."""
        keep = self.draw(batch, x)
        if keep is None:
            return x
        return (x.unflatten(0, (batch, -1)) * keep.view(-1, 1, 1)).flatten(0, 1)


class WindowAttention(nn.Module):
    """Multi-head self-attention in windows with relative position bias.

    Args:
        dim: channels.
        window_size: (frames, rows, columns).
        num_heads: heads; they split the channels.
    """

    def __init__(self, dim: int, window_size: Sequence[int], num_heads: int) -> None:
        super().__init__()
        self.window_size = tuple(window_size)
        self.num_heads = num_heads
        span = 1
        for side in self.window_size:
            span *= 2 * side - 1
        self.relative_position_bias_table = nn.Parameter(torch.zeros(span, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer(
            "relative_position_index", relative_position_index(self.window_size), persistent=False
        )
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def bias(self) -> Tensor:
        """The (heads, tokens, tokens) bias on the logits, query by key."""
        bias = self.relative_position_bias_table[self.relative_position_index]
        return bias.permute(2, 0, 1).contiguous()

    def forward(
        self,
        x: Tensor,
        runs: Sequence[tuple[int, Tensor | None]],
        bias: Tensor,
        queries: slice = slice(None),
    ) -> Tensor:
        """Attends within windows.

        Args:
            x: (windows, tokens, c).
            runs: as in :class:`WindowPlan`.
            bias: what :meth:`bias` gives.
            queries: the tokens whose output is wanted; all by default.

        Returns:
            (windows, queries, c).
        """
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))
        q, key_value = qkv[:, queries, 0], qkv[:, :, 1:]
        step, parts, start = windows_at_once(x.device), [], 0
        for count, mask in runs:
            added = bias[:, queries] if mask is None else (bias + mask)[:, queries]
            for begin in range(start, start + count, step):
                at = slice(begin, min(begin + step, start + count))
                parts.append(attend(q[at], key_value[at], added.to(q.dtype)))
            start += count
        out = parts[0] if len(parts) == 1 else torch.cat(parts)
        return self.proj(out)


def relative_position_index(window_size: Sequence[int]) -> Tensor:
    """Row of the bias table for every (query, key) pair of a window: (tokens, tokens) int64."""
    axes = [torch.arange(side) for side in window_size]
    position = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)
    difference = position.unsqueeze(2) - position.unsqueeze(1)  # query minus key
    index = torch.zeros_like(difference[0])
    for axis, side in zip(difference, window_size, strict=True):
        index = index * (2 * side - 1) + axis + side - 1
    return index


class Mlp(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """One Swin block over all frames: windowed attention, then an MLP, each with a shortcut."""

    def __init__(
        self, dim: int, window_size: Sequence[int], num_heads: int, drop_path: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, window_size, num_heads)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, MLP_RATIO * dim)

    def prepare(self) -> BlockWeights:
        """The weights for all of a clip's calls, which may share the gathered bias."""
        weights = BlockWeights(
            self.attn.bias(),
            *(self.norm1.weight, self.norm1.bias),
            *(self.attn.qkv.weight, self.attn.qkv.bias),
            *(self.attn.proj.weight, self.attn.proj.bias),
            *(self.norm2.weight, self.norm2.bias),
            *(self.mlp.fc1.weight, self.mlp.fc1.bias),
            *(self.mlp.fc2.weight, self.mlp.fc2.bias),
        )
        return weights if torch.is_grad_enabled() else weights.cast(compute_dtype(weights.bias))

    def forward(
        self,
        x: Tensor,
        plans: BackbonePlans,
        shift: int,
        weights: BlockWeights,
        frame: int | None = None,
        in_place: bool = False,
    ) -> Tensor:
        """Maps tokens to the same shape, or to those of one frame without work on the others.

        Args:
            x: (rows, c) tokens of all frames.
            plans: the backbone's.
            shift: 1 to work on rolled frames, else 0.
            weights: what :meth:`prepare` gives.
            frame: the frame that is wanted; all if None.
            in_place: may overwrite ``x`` if there are no gradients.

        Returns:
            (rows, c), of one frame if ``frame`` is given.
        """
        plan = plans.frames[shift]
        target = plan if frame is None else plans.frame[shift]
        tokens = target.tokens
        queries = slice(None) if frame is None else slice(frame * tokens, (frame + 1) * tokens)
        if not plan.chunks or (torch.is_grad_enabled() and x.device.type != "cpu"):
            windows = to_windows(self.norm1(x), plan)
            windows = self.attn(windows, plan.runs, weights.bias, queries)
            if frame is not None:
                x = frame_of(x, plans.batch, plan.tokens // tokens, frame)
            x = x + self.drop_path(from_windows(windows, target), plans.batch)
            return x + self.drop_path(self.mlp(self.norm2(x)), plans.batch)
        draws = [self.drop_path.draw(plans.batch, x) for _ in range(2)]
        work = Work(
            chunks=plan.chunks,
            targets=target.chunks,
            queries=queries,
            tokens=plan.tokens,
            num_rows=len(target.inverse),
            num_heads=self.attn.num_heads,
            dtype=compute_dtype(self.attn.qkv.weight),
            scales=None if draws[0] is None else tuple(draws),
            scratch=plans.scratch,
        )
        return run_chunks(x, work, weights, in_place=in_place and frame is None)


class ResidualGroup(nn.Module):
    """The blocks of one layer; every second one works on rolled frames."""

    def __init__(
        self, dim: int, window_size: Sequence[int], num_heads: int, drop_path: Sequence[float]
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(dim, window_size, num_heads, p) for p in drop_path)

    def forward(
        self,
        x: Tensor,
        plans: BackbonePlans,
        weights: Sequence[BlockWeights],
        frame: int | None = None,
    ) -> Tensor:
        """Maps (rows, c) tokens to the same shape, or to one frame's rows if ``frame`` is given."""
        for i, block in enumerate(self.blocks):
            wanted = frame if i == len(self.blocks) - 1 else None
            x = block(x, plans, i % 2, weights[i], wanted, in_place=i > 0)
        return x


class Layer(nn.Module):
    """A group of blocks, a convolution on every frame, and a shortcut around both."""

    def __init__(
        self, dim: int, window_size: Sequence[int], num_heads: int, drop_path: Sequence[float]
    ) -> None:
        super().__init__()
        self.residual_group = ResidualGroup(dim, window_size, num_heads, drop_path)
        self.conv = nn.Conv2d(dim, dim, 3, padding=1)


class PatchEmbed(nn.Module):
    """Holds the norm in front of the first layer under the released key name."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)


class MFSABBackbone(nn.Module):
    """Refines one frame of a short clip by multi-frame self-attention.

    Args:
        dim: C, the channels.
        depths: blocks in every layer.
        num_heads: heads in every layer's attention.
        window_size: (frames, rows, columns) of a window; frames is the length of the clip.
        output_frame: which frame is refined; the middle one by default.
        use_checkpoint: recompute each layer's activations in the backward pass.

    Raises:
        ValueError: if the lists differ in length or the heads do not divide the channels.
    """

    def __init__(
        self,
        dim: int,
        *,
        depths: Sequence[int],
        num_heads: Sequence[int],
        window_size: Sequence[int] = (3, 8, 8),
        output_frame: int | None = None,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        if len(depths) != len(num_heads) or not depths or min(depths) < 1:
            raise ValueError(
                f"depths and num_heads must have one positive entry a layer, "
                f"got {list(depths)} and {list(num_heads)}"
            )
        if any(heads < 1 or dim % heads for heads in num_heads):
            raise ValueError(f"every num_heads must divide {dim} channels, got {list(num_heads)}")
        if len(window_size) != 3 or min(window_size) < 1:
            raise ValueError(f"window_size must be (frames, rows, columns), got {window_size}")
        self.window_size = tuple(window_size)
        self.output_frame = window_size[0] // 2 if output_frame is None else output_frame
        self.use_checkpoint = use_checkpoint
        self.patch_embed = PatchEmbed(dim)
        blocks = sum(depths)
        rates = [MAX_DROP_PATH * i / max(1, blocks - 1) for i in range(blocks)]
        self.layers = nn.ModuleList(
            Layer(dim, window_size, heads, [rates.pop(0) for _ in range(depth)])
            for depth, heads in zip(depths, num_heads, strict=True)
        )
        self.norm = nn.LayerNorm(dim)
        self.conv_after_body = nn.Conv2d(dim, dim, 3, padding=1)

    def plan(self, batch: int, height: int, width: int, device: torch.device) -> BackbonePlans:
        """The plans for clips of this size, to be made once and used for any number of calls."""
        frames, frame = (
            tuple(
                plan_windows(batch, height, width, window, shift=shift, device=device)
                for shift in (False, True)
            )
            for window in (self.window_size, (1, *self.window_size[1:]))
        )
        return BackbonePlans(batch, frames, frame, {})

    def prepare(self) -> list[list[BlockWeights]]:
        """Every layer's blocks' weights, to be made once and used while they do not change."""
        return [[block.prepare() for block in layer.residual_group.blocks] for layer in self.layers]

    def forward(
        self,
        x: Tensor,
        plans: BackbonePlans | None = None,
        weights: list[list[BlockWeights]] | None = None,
    ) -> Tensor:
        """Refines the output frame.

        Args:
            x: (n, t, c, h, w), t the window's frames.
            plans: what :meth:`plan` gives for this size, so that a caller can make it once.
            weights: what :meth:`prepare` gives, likewise.

        Returns:
            (n, c, h, w).
        """
        n, t, c, h, w = x.shape
        if t != self.window_size[0]:
            raise ValueError(f"expected {self.window_size[0]} frames, got {tuple(x.shape)}")
        if not is_fused():
            return plain_backbone(self, x)
        plans = plans or self.plan(n, h, w, x.device)
        weights = weights or self.prepare()
        x = x.to(wide_dtype(x)) if is_autocast(x.device) else x  # so is the stream of tokens
        shortcut = x[:, self.output_frame]
        tokens = x.permute(0, 1, 3, 4, 2).reshape(-1, c)  # (n * t * h * w, c)
        tokens = self.patch_embed.norm(tokens)
        for layer, prepared in zip(self.layers[:-1], weights, strict=False):
            # Nested, and the sum by a function: a name here would hold a layer's result through the
            # next layer, which makes one as large.
            tokens = _add_convolved(
                tokens, self._run(layer, tokens, plans, prepared), layer.conv, x
            )
        # Nothing after the last attention mixes frames: only the output frame is taken further.
        last = self.layers[-1]
        frame = self._run(last, tokens, plans, weights[-1], self.output_frame)
        out = last.conv(to_frames(frame, shortcut.unsqueeze(1)))
        del frame
        out = _add(to_tokens(out), frame_of(tokens, n, t, self.output_frame))
        del tokens
        out = to_frames(self.norm(out), shortcut.unsqueeze(1))
        return _add(self.conv_after_body(out), shortcut)

    def _run(
        self,
        layer: Layer,
        tokens: Tensor,
        plans: BackbonePlans,
        weights: Sequence[BlockWeights],
        frame: int | None = None,
    ) -> Tensor:
        group = partial(layer.residual_group, plans=plans, weights=weights, frame=frame)
        if self.use_checkpoint and torch.is_grad_enabled():
            # Only the tokens as an argument: every tensor among them has a device, whose random
            # state is read going forward and set going back, and one is enough.
            return checkpoint(group, tokens, use_reentrant=False)
        return group(tokens)


def _add_convolved(tokens: Tensor, rows: Tensor, conv: nn.Conv2d, like: Tensor) -> Tensor:
    """Tokens plus convolved rows; without gradients in place, one frame after another."""
    frames = to_frames(rows, like)
    if torch.is_grad_enabled() or is_traced(tokens):
        return tokens + to_tokens(conv(frames))
    for stream, frame in zip(to_frames(tokens, like).split(1), frames.split(1), strict=True):
        stream += conv(frame)
    return tokens


def _add(fresh: Tensor, other: Tensor) -> Tensor:
    """A sum, in place of ``fresh`` where no gradient is wanted and autocast has not narrowed it."""
    if torch.is_grad_enabled() or fresh.dtype != other.dtype:
        return fresh + other
    return fresh.add_(other)


def frame_of(tokens: Tensor, batch: int, frames: int, frame: int) -> Tensor:
    """One frame's rows of (batch * frames * pixels, c) tokens: (batch * pixels, c)."""
    return tokens.unflatten(0, (batch, frames, -1))[:, frame].flatten(0, 1)


def to_frames(tokens: Tensor, like: Tensor) -> Tensor:
    """Views (n * t * h * w, c) tokens as (n * t, c, h, w), channels last in memory."""
    n, t, c, h, w = like.shape
    return tokens.reshape(n * t, h, w, c).permute(0, 3, 1, 2)


def to_tokens(frames: Tensor) -> Tensor:
    """The way back from :func:`to_frames`."""
    return frames.permute(0, 2, 3, 1).reshape(-1, frames.shape[1])

"""Multi-frame self-attention blocks (MFSAB): the backbone of PSRT-recurrent and of IA-RT.

These are Swin blocks with windows that span all frames of a short clip (Shi et al. 2022). Between
convolutions the features are tokens, (n, t, h, w, c). A block has three forms that give the same
values: the reference form, written like the equations; one that works on a few windows at a time,
for CPUs; and GPU kernels. :meth:`Block.forward` chooses one.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from iart_plugin.fused import is_fused
from iart_plugin.kernels.availability import uses_kernel
from iart_plugin.kernels.mfsab_sizes import MAX_CHANNELS, BlockWeights, PackedWeights, pack
from iart_plugin.ops.mfsab import Windows, reference_block
from iart_plugin.ops.mfsab_operator import kernel_block
from iart_plugin.ops.mfsab_windows import Tables, windowed_block
from iart_plugin.ops.precision import compute_dtype, is_autocast, wide_dtype
from iart_plugin.ops.tracing import is_traced

MLP_RATIO = 2
MAX_DROP_PATH = 0.1
"""The probability that stochastic depth skips a branch of the last block for a clip."""


def draw_depths(blocks: int, clips: int, device: torch.device) -> Tensor:
    """Draws stochastic depth for all blocks at once: during training, branches are skipped.

    The probability rises from 0 at the first block to ``MAX_DROP_PATH`` at the last.

    Returns:
        (blocks, 2, clips) factors of what attention and the MLP add, 0 or 1 / (1 - probability).
    """
    kept = torch.linspace(1, 1 - MAX_DROP_PATH, blocks, device=device).view(-1, 1, 1)
    return torch.bernoulli(kept.expand(-1, 2, clips)).div_(kept)


class WindowAttention(nn.Module):
    """The weights of multi-head self-attention in windows with relative position bias.

    Args:
        dim: channels.
        window_size: (frames, rows, columns).
        num_heads: heads; they split the channels.
    """

    def __init__(self, dim: int, window_size: Sequence[int], num_heads: int) -> None:
        super().__init__()
        self.window_size = tuple(window_size)
        self.num_heads = num_heads
        span = math.prod(2 * side - 1 for side in window_size)
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


def relative_position_index(window_size: Sequence[int]) -> Tensor:
    """The row of the bias table for every (query, key) pair in a window: (tokens, tokens) int64."""
    axes = [torch.arange(side) for side in window_size]
    position = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)
    difference = position.unsqueeze(2) - position.unsqueeze(1)  # query minus key
    index = torch.zeros_like(difference[0])
    for axis, side in zip(difference, window_size, strict=True):
        index = index * (2 * side - 1) + axis + side - 1
    return index


class Mlp(nn.Module):
    """The weights of two linear layers; a block applies a GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)


class Prepared(NamedTuple):
    """What many calls of a block share.

    Attributes:
        weights: packed for the kernels, or as the other forms take them; this decides the form.
        tables: the tables of windows, which the blocks of a backbone share.
    """

    weights: BlockWeights | PackedWeights
    tables: Tables


class Block(nn.Module):
    """One Swin block over all frames: windowed attention, then an MLP, each with a shortcut.

    Args:
        dim: channels.
        window_size: (frames, rows, columns) of a window.
        num_heads: attention heads.
        shift: whether the frames are rolled by half a window.
    """

    def __init__(
        self, dim: int, window_size: Sequence[int], num_heads: int, *, shift: bool
    ) -> None:
        super().__init__()
        self.windows = Windows(tuple(window_size[1:]), shift)
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, window_size, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, MLP_RATIO * dim)

    def prepare(self, tables: Tables) -> Prepared:
        """Gathers the bias and casts the matrices for products, so that many calls can share it."""
        dtype = compute_dtype(self.attn.qkv.weight)
        qkv, proj, fc1, fc2 = self.attn.qkv, self.attn.proj, self.mlp.fc1, self.mlp.fc2
        weights = BlockWeights(
            *(self.attn.bias(), qkv.weight, proj.weight, fc1.weight, fc2.weight),
            *(self.norm1.weight, self.norm1.bias, qkv.bias),
            *(self.norm2.weight, self.norm2.bias, proj.bias, fc2.bias, fc1.bias),
        )
        if uses_kernel(weights.bias.device, dtype) and len(self.norm1.bias) <= MAX_CHANNELS:
            return Prepared(pack(weights, dtype), tables)
        cast = (x.to(dtype) if x.dim() > 1 else x for x in weights)
        return Prepared(BlockWeights(*cast), tables)

    def forward(
        self,
        x: Tensor,
        prepared: Prepared,
        frame: int | None = None,
        scales: Tensor | None = None,
        *,
        in_place: bool = False,
    ) -> Tensor:
        """Applies the block to all frames, or computes the result of one frame only.

        Args:
            x: (n, t, h, w, c) tokens of all frames.
            prepared: the result of :meth:`prepare`.
            frame: the number of the only frame to compute; None for all.
            scales: (2, n) factors of what attention and the MLP add, or None.
            in_place: whether ``x`` may be overwritten if there are no gradients.

        Returns:
            (n, t, h, w, c), or (n, 1, h, w, c) of the wanted frame.
        """
        arguments = x, prepared.weights, self.windows, frame, scales
        if isinstance(prepared.weights, PackedWeights):
            return kernel_block(*arguments)
        if is_fused() and not is_traced(x):
            return windowed_block(*arguments, in_place=in_place, tables=prepared.tables)
        return reference_block(*arguments)


class ResidualGroup(nn.Module):
    """The blocks of one layer; every second one works on rolled frames."""

    def __init__(self, dim: int, window_size: Sequence[int], num_heads: int, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(dim, window_size, num_heads, shift=i % 2 == 1) for i in range(depth)
        )

    def forward(
        self,
        x: Tensor,
        prepared: Sequence[Prepared],
        frame: int | None = None,
        scales: Sequence[Tensor | None] = (),
    ) -> Tensor:
        """Maps (n, t, h, w, c) tokens to the same shape, or to the wanted frame's.

        Args:
            x: the tokens.
            prepared: the blocks' weights.
            frame: the number of the only frame to compute; None for all.
            scales: each block's factors of stochastic depth, or nothing.
        """
        for i, block in enumerate(self.blocks):
            is_last = i == len(self.blocks) - 1
            scale = scales[i] if scales else None
            x = block(x, prepared[i], frame if is_last else None, scale, in_place=i > 0)
        return x


class Layer(nn.Module):
    """A group of blocks, a convolution on every frame, and a shortcut around both.

    Args:
        use_checkpoint: recompute the group's activations in the backward pass.
    """

    def __init__(
        self,
        dim: int,
        window_size: Sequence[int],
        num_heads: int,
        depth: int,
        use_checkpoint: bool,
    ) -> None:
        super().__init__()
        self.residual_group = ResidualGroup(dim, window_size, num_heads, depth)
        self.conv = nn.Conv2d(dim, dim, 3, padding=1)
        self.use_checkpoint = use_checkpoint

    def forward(
        self,
        x: Tensor,
        prepared: Sequence[Prepared],
        frame: int | None = None,
        scales: Sequence[Tensor | None] = (),
    ) -> Tensor:
        """Maps (n, t, h, w, c) tokens to the same shape, or to the wanted frame's.

        It takes the same as :meth:`ResidualGroup.forward`. Without gradients ``x`` is overwritten.
        """
        group = partial(self.residual_group, prepared=prepared, frame=frame, scales=scales)
        if self.use_checkpoint and torch.is_grad_enabled():
            # Nothing inside is random, so no state of a random generator needs to be restored.
            y = checkpoint(group, x, use_reentrant=False, preserve_rng_state=False)
        else:
            y = group(x)
        x = x if frame is None else x[:, frame : frame + 1]
        if torch.is_grad_enabled() or is_traced(x):
            return x + convolved(y, self.conv)
        at_once = 1 if x.device.type == "cpu" else x.shape[1]  # frame by frame saves memory
        for stream, part in zip(x.split(at_once, 1), y.split(at_once, 1), strict=True):
            stream += convolved(part, self.conv)
        return x


class PatchEmbed(nn.Module):
    """Holds the norm before the first layer, under the key that released checkpoints have."""

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
        self.patch_embed = PatchEmbed(dim)
        self.depths = list(depths)
        self.layers = nn.ModuleList(
            Layer(dim, window_size, heads, depth, use_checkpoint)
            for depth, heads in zip(depths, num_heads, strict=True)
        )
        self.norm = nn.LayerNorm(dim)
        self.conv_after_body = nn.Conv2d(dim, dim, 3, padding=1)

    def prepare(self) -> list[list[Prepared]]:
        """Prepares all blocks, by layer, for use until the weights change."""
        tables: Tables = {}
        return [
            [block.prepare(tables) for block in layer.residual_group.blocks]
            for layer in self.layers
        ]

    def forward(self, x: Tensor, prepared: list[list[Prepared]] | None = None) -> Tensor:
        """Refines the output frame.

        Args:
            x: (n, t, c, h, w), t the window's frames.
            prepared: the result of :meth:`prepare`, so that many calls can share it.

        Returns:
            (n, c, h, w).
        """
        if x.shape[1] != self.window_size[0]:
            raise ValueError(f"expected {self.window_size[0]} frames, got {tuple(x.shape)}")
        x = x.to(wide_dtype(x)) if is_autocast(x.device) else x  # tokens stay wide between blocks
        tokens = self.patch_embed.norm(x.permute(0, 1, 3, 4, 2))  # (n, t, h, w, c)
        scales: list[Sequence[Tensor | None]] = [()] * len(self.layers)
        if self.training:
            drawn = draw_depths(sum(self.depths), len(x), x.device)
            scales = [part.unbind() for part in drawn.split(self.depths)]
        for layer, weights, scale in zip(
            self.layers, prepared or self.prepare(), scales, strict=True
        ):
            # After the last attention nothing mixes frames, so only one frame is computed further.
            frame = self.output_frame if layer is self.layers[-1] else None
            tokens = layer(tokens, weights, frame, scale)
        out = convolved(self.norm(tokens), self.conv_after_body)[:, 0].permute(0, 3, 1, 2)
        return out + x[:, self.output_frame]


def convolved(tokens: Tensor, conv: nn.Conv2d) -> Tensor:
    """Convolves every frame of (n, t, h, w, c) tokens."""
    frames = tokens.flatten(0, 1).permute(0, 3, 1, 2)
    return conv(frames).permute(0, 2, 3, 1).unflatten(0, tokens.shape[:2])

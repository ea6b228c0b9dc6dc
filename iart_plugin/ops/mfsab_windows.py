"""Computes an MFSAB block for a few windows at a time, from their tokens to the block's output.

Within a block, windows do not depend on each other. So beside the tokens themselves and the masks
of windows at two borders, memory is needed only for a few windows. Without gradients the results
can be written in place; with gradients, the backward pass computes a few windows again at a time.
"""

from collections.abc import Hashable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from iart_plugin.kernels.mfsab_sizes import BlockWeights

from .mfsab import Windows, cut, frame_tokens, masks, norm, regions
from .processor import has_fast_mkl

WINDOWS_AT_ONCE = {"cpu": 24}
"""How many windows are computed together, by type of device. On a CPU, the temporaries of 24
windows fit the cache and memory that the allocator already holds."""
GPU_WINDOWS_AT_ONCE = 8192  # with up to 7 heads, below the 65,535 blocks of a CUDA grid's 2nd axis


class Chunk(NamedTuple):
    """A few windows that are computed together. Either all of them have masks, or none has.

    Attributes:
        source: (k, tokens), the row of each token in the input; -1 for padding.
        target: (k, wanted tokens), the row of each wanted token in the output; -1 for padding.
        kept: the places in the flattened ``target`` that are not padding; None if no token may be.
        clips: (k,) the number of each window's clip.
        mask: (k, tokens, tokens), or None.
    """

    source: Tensor
    target: Tensor
    kept: Tensor | None
    clips: Tensor
    mask: Tensor | None


Tables = dict[Hashable, list[Chunk]]
"""Chunks that were cut before, by all that they depend on."""


def windowed_block(
    x: Tensor,
    weights: BlockWeights,
    windows: Windows,
    frame: int | None = None,
    scales: Tensor | None = None,
    *,
    in_place: bool = False,
    tables: Tables | None = None,
) -> Tensor:
    """Computes a block; otherwise the same as :func:`.mfsab.reference_block`.

    With ``in_place`` and without gradients, ``x`` may be overwritten. The chunks are taken from
    ``tables`` if they were cut before, and kept there.
    """
    n, t, h, w, c = x.shape
    tables = {} if tables is None else tables
    key = x.shape, x.dtype, x.device, windows, frame
    if key not in tables:
        tables[key] = list(cut_to_chunks(x, windows, frame))
    chunks = tables[key]
    wanted = slice(None) if frame is None else frame_tokens(windows, frame)
    rows, num_out = x.reshape(-1, c), n * (t if frame is None else 1) * h * w
    if torch.is_grad_enabled():
        out = _recomputed(rows, num_out, chunks, weights, wanted, scales)
        return out.view(n, -1, h, w, c)
    out = rows if in_place and frame is None else rows.new_empty(num_out, c)
    for chunk in chunks:
        part = rows.index_select(0, chunk.source.flatten().clamp(min=0))
        part = few_windows(part, chunk, weights, wanted, scales)
        target = chunk.target.flatten()
        if chunk.kept is not None:
            target, part = target[chunk.kept], part[chunk.kept]
        out.index_copy_(0, target, part)
    return out.view(n, -1, h, w, c)


def _recomputed(
    rows: Tensor,
    num_out: int,
    chunks: list[Chunk],
    weights: BlockWeights,
    wanted: slice,
    scales: Tensor | None,
) -> Tensor:
    """Computes the output's rows, keeping only the windows' input tokens for the gradient."""
    source = torch.cat([chunk.source.flatten() for chunk in chunks])
    parts = rows.index_select(0, source.clamp(min=0))
    parts = parts.split([chunk.source.numel() for chunk in chunks])
    done = [
        checkpoint(
            *(few_windows, part, chunk, weights, wanted, scales),
            use_reentrant=False,
            preserve_rng_state=False,  # few_windows does nothing random
        )
        for part, chunk in zip(parts, chunks, strict=True)
    ]
    target = torch.cat([chunk.target.flatten() for chunk in chunks])
    inverse = target.new_empty(num_out + 1)  # padding's target, -1, is the last entry
    inverse[target] = torch.arange(len(target), device=target.device)
    return torch.cat(done).index_select(0, inverse[:-1])


def few_windows(
    rows: Tensor, chunk: Chunk, weights: BlockWeights, wanted: slice, scales: Tensor | None
) -> Tensor:
    """Maps the tokens of k windows, (k * tokens, c), to the wanted tokens of the output."""
    (k, tokens), c, w = chunk.source.shape, rows.shape[1], weights
    scale = mlp_scale = None
    if scales is not None:
        scale, mlp_scale = scales[:, chunk.clips].view(2, k, 1, 1)
    rows = rows.view(k, tokens, c)
    y = norm(rows, w.norm1_weight, w.norm1_bias)
    if chunk.kept is not None:
        y = y.masked_fill((chunk.source < 0).unsqueeze(-1), 0)
    query = linear(y[:, wanted], w.qkv_weight[:c], w.qkv_bias[:c])
    key_value = linear(y, w.qkv_weight[c:], w.qkv_bias[c:])
    mask = None if chunk.mask is None else chunk.mask[:, wanted].to(w.bias.dtype)
    y = attend(query, key_value, w.bias[:, wanted], mask)
    y = linear(y, w.proj_weight, w.proj_bias)
    rows = _add(rows[:, wanted], y, scale)
    y = norm(rows, w.norm2_weight, w.norm2_bias)
    y = linear(y, w.fc1_weight, w.fc1_bias)
    y = F.gelu(y) if torch.is_grad_enabled() else torch.ops.aten.gelu_(y)
    return _add(rows, linear(y, w.fc2_weight, w.fc2_bias), mlp_scale).flatten(0, 1)


def _add(rows: Tensor, branch: Tensor, scale: Tensor | None) -> Tensor:
    """Adds a scaled branch to a shortcut; without gradients in place, as ``rows`` is a copy."""
    branch = branch if scale is None else branch * scale
    return rows + branch if torch.is_grad_enabled() else rows.add_(branch)


def cut_to_chunks(x: Tensor, windows: Windows, frame: int | None) -> Iterator[Chunk]:
    """Cuts tokens (n, t, h, w, c) into chunks, those without masks before those with masks."""
    n, t, h, w, _ = x.shape
    down, across = -(-h // windows.size[0]), -(-w // windows.size[1])
    source = target = rows_of_windows(n, t, h, w, windows)
    if frame is not None:
        target = rows_of_windows(n, 1, h, w, windows)
    number = torch.arange(n * down * across).view(n, down, across)
    groups = [(number.flatten(), False)]
    if windows.shift:  # only windows in the last row or column have masks
        at_edge = number[:, :-1, -1].flatten(), number[:, -1].flatten()
        groups = [(number[:, :-1, :-1].flatten(), False), (torch.cat(at_edge), True)]
        found = regions(h, w, windows)
    is_padded = h % windows.size[0] != 0 or w % windows.size[1] != 0
    step = WINDOWS_AT_ONCE.get(x.device.type, GPU_WINDOWS_AT_ONCE)
    for group, is_masked in groups:
        if group.numel() == 0:
            continue
        for part in group.tensor_split(-(-group.numel() // step)):
            kept = (target[part].flatten() >= 0).nonzero().flatten() if is_padded else None
            mask = masks(found[part % (down * across)].to(x), t) if is_masked else None
            yield Chunk(
                source[part].to(x.device),
                target[part].to(x.device),
                None if kept is None else kept.to(x.device),
                (part // (down * across)).to(x.device),
                mask,
            )


def rows_of_windows(n: int, t: int, h: int, w: int, windows: Windows) -> Tensor:
    """The number of every window token among the n * t * h * w rows; -1 for padding."""
    rows = torch.arange(1, n * t * h * w + 1).view(n, t, h, w, 1)
    return cut(rows, windows).flatten(0, 1).squeeze(-1) - 1


def attend(query: Tensor, key_value: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
    """Computes softmax(q k^T / sqrt(d) + bias + mask) v within windows.

    PyTorch's own kernel does this, except on a CPU with gradients or with a slow MKL, where one
    head after another takes less time.

    Args:
        query: (k, queries, c).
        key_value: (k, tokens, 2 c).
        bias: (heads, queries, tokens).
        mask: (k, queries, tokens), or None.

    Returns:
        (k, queries, c).
    """
    heads, width = len(bias), query.shape[-1] // len(bias)
    if query.device.type == "cpu" and (torch.is_grad_enabled() or not has_fast_mkl()):
        weights, mixed = None, []
        # split() is used because the gradient of indexing would fill a whole tensor for each head.
        queries, both = query.split(width, -1), key_value.split(width, -1)
        for q, k, v, added in zip(queries, both[:heads], both[heads:], bias, strict=True):
            added = added.expand(len(q), -1, -1) if mask is None else added + mask
            if torch.is_grad_enabled():
                logits = torch.baddbmm(added, q, k.transpose(1, 2), alpha=width**-0.5)
                weights = logits.softmax(-1)
            else:  # in place: the buffer of the weights stays in the cache
                weights = torch.baddbmm(added, q, k.transpose(1, 2), alpha=width**-0.5, out=weights)
                torch.softmax(weights, -1, out=weights)
            # MKL takes less time for this product than for weights @ v.
            mixed.append((v.transpose(1, 2) @ weights.transpose(1, 2)).transpose(1, 2))
        return torch.cat(mixed, -1)
    parts = (query, *key_value.chunk(2, -1))
    q, k, v = (part.unflatten(-1, (heads, width)).transpose(1, 2) for part in parts)
    # PyTorch's kernels need rows of a multiple of 16 bytes, and a bias that needs no gradient.
    padding = -width % (16 // q.element_size()) if q.is_cuda else 0
    if padding:
        q, k, v = (F.pad(part, (0, padding)) for part in (q, k, v))
    added = bias.unsqueeze(0) if mask is None else bias + mask.unsqueeze(1)
    added = added if torch.is_grad_enabled() else added.detach()
    mixed = F.scaled_dot_product_attention(q, k, v, added, scale=width**-0.5)
    return mixed[..., :width].transpose(1, 2).flatten(2)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear layer in the dtype of its matrix, by the library that is fastest on this CPU.

    PyTorch uses MKL. If that is slow here, float32 is computed by oneDNN as a 1 x 1 convolution.
    """
    x, bias = x.to(weight.dtype), bias.to(weight.dtype)
    is_slow = x.device.type == "cpu" and x.dtype == torch.float32 and not has_fast_mkl()
    if not is_slow or not torch.backends.mkldnn.is_available():
        return F.linear(x, weight, bias)
    image = x.reshape(1, 1, -1, x.shape[-1]).permute(0, 3, 1, 2)
    out = F.conv2d(image, weight[..., None, None], bias)
    return out.permute(0, 2, 3, 1).view(*x.shape[:-1], -1)

"""Softmax attention within windows with an additive bias."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .processor import has_fast_mkl

WINDOWS_AT_ONCE = {"cpu": 16}
"""Windows computed together, by type of device. On a CPU the temporaries of so many stay in the
cache and in memory that the allocator already holds; whole ones cost more in page faults than in
arithmetic."""
GPU_WINDOWS_AT_ONCE = 8192  # below the 65,535 blocks of a CUDA grid's second axis, for 7 heads

MASKED = -100.0
"""Added between tokens that a roll brought together; not minus infinity in the released weights."""


def windows_at_once(device: torch.device) -> int:
    """How many windows to compute together."""
    return WINDOWS_AT_ONCE.get(device.type, GPU_WINDOWS_AT_ONCE)


class MaskedWindows(NamedTuple):
    """A run of windows that share a mask.

    Attributes:
        start: the first of them.
        stop: the one after the last.
        mask: (queries, tokens), added to the logits of every head.
    """

    start: int
    stop: int
    mask: Tensor


def attend(
    q: Tensor, key_value: Tensor, added: Tensor, masks: Sequence[MaskedWindows] = ()
) -> Tensor:
    """softmax(q k^T / sqrt(d) + added + mask) v within windows.

    By PyTorch's own kernel, except with gradients on a CPU, and on one with a slow MKL, where
    written out one head at a time for all windows it takes two thirds of the kernel's time.

    Args:
        q: (windows, queries, heads, d).
        key_value: (windows, tokens, 2, heads, d).
        added: (heads, queries, tokens), for all windows.
        masks: runs of windows with a mask, in order.

    Returns:
        (windows, queries, heads * d).
    """
    if q.device.type == "cpu" and not torch.compiler.is_compiling():
        if torch.is_grad_enabled():
            return _Attend.apply(q, key_value, added, masks)
        if not has_fast_mkl():
            return _written_out(q, key_value, added, masks)
        added = added.detach()  # the kernel is slow for a bias that might want a gradient
    if not masks:
        return _by_kernel(q, key_value, added)
    parts, start = [], 0
    for run in masks:
        for stop, mask in ((run.start, None), (run.stop, run.mask)):
            if stop > start:
                both = added if mask is None else added + mask
                parts.append(_by_kernel(q[start:stop], key_value[start:stop], both))
            start = stop
    if start < len(q):
        parts.append(_by_kernel(q[start:], key_value[start:], added))
    return torch.cat(parts)


def _by_kernel(q: Tensor, key_value: Tensor, added: Tensor) -> Tensor:
    """By PyTorch's kernel; ``added`` holds for all of the windows."""
    k, v = key_value.unbind(2)
    width = q.shape[-1]
    # PyTorch's fused kernels want whole units of 16 bytes.
    padding = -width % (16 // q.element_size()) if q.is_cuda else 0
    if padding:
        q, k, v = (F.pad(x, (0, padding)) for x in (q, k, v))
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    mask = added.unsqueeze(0).to(q.dtype)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=width**-0.5)
    return out[..., :width].transpose(1, 2).flatten(2)


def _written_out(
    q: Tensor,
    key_value: Tensor,
    added: Tensor,
    masks: Sequence[MaskedWindows],
    keep: list | None = None,
) -> Tensor:
    windows, queries, heads, d = q.shape
    out = q.new_empty(heads, windows, d, queries)
    shape = (windows, queries, key_value.shape[1])
    for head in range(heads):
        if head == 0 or keep is not None:
            weights = q.new_empty(shape)
        k, v = key_value[:, :, :, head].unbind(2)
        bias = added[head].expand(shape)
        torch.baddbmm(bias, q[:, :, head], k.transpose(1, 2), alpha=d**-0.5, out=weights)
        for run in masks:
            weights[run.start : run.stop] += run.mask
        torch.softmax(weights, -1, out=weights)  # in place: one buffer stays in the cache
        torch.bmm(v.transpose(1, 2), weights.transpose(1, 2), out=out[head])
        if keep is not None:
            keep.append(weights)
    return out.permute(1, 3, 0, 2).reshape(windows, queries, heads * d)


class _Attend(torch.autograd.Function):
    """The written out form's gradient, which works in place on what it need not keep."""

    @staticmethod
    def forward(ctx, q, key_value, added, masks):
        weights = []
        out = _written_out(q, key_value, added, masks, weights)
        ctx.save_for_backward(q, key_value, out, *weights)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        q, key_value, out, *weights = ctx.saved_tensors
        heads, d = q.shape[2:]
        along = (grad * out).unflatten(-1, (heads, d)).sum(-1, keepdim=True)
        grad = grad.unflatten(-1, (heads, d))
        grad_q, grad_key_value = torch.empty_like(q), torch.empty_like(key_value)
        grad_added = []
        for head in range(heads):
            k, v = key_value[:, :, :, head].unbind(2)
            grad_k, grad_v = grad_key_value[:, :, :, head].unbind(2)
            upper = grad[:, :, head]
            grad_v.copy_(weights[head].transpose(1, 2) @ upper)
            d_logits = upper @ v.transpose(1, 2)
            d_logits.sub_(along[:, :, head]).mul_(weights[head])
            grad_added.append(d_logits.sum(0))
            grad_q[:, :, head] = (d_logits @ k).mul_(d**-0.5)
            grad_k.copy_((d_logits.transpose(1, 2) @ q[:, :, head]).mul_(d**-0.5))
        return grad_q, grad_key_value, torch.stack(grad_added), None

"""Starts the kernels of the MFSAB block on a GPU, forward and backward.

The backward pass needs only the block's input and the logsumexp of its logits, and recomputes the
rest. :mod:`iart_plugin.ops.mfsab_operator` turns both passes into one operator.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .launching import Shipped, launch
from .mfsab_sizes import BlockWeights, Shape, token_tiles, window_tiles

BIAS_PROGRAMS = 1024
"""About how many programs share the work on the gradient of the bias."""


def forward(
    x: Tensor, weights: BlockWeights, scales: Tensor | None, shape: Shape
) -> tuple[Tensor, Tensor]:
    """Computes a block.

    Args:
        x: (n, t, h, w, c) contiguous.
        weights: the block's.
        scales: (2, n) factors of what attention and the MLP add, or None.
        shape: the sizes.

    Returns:
        The output, (n, t or 1, h, w, c), and the logsumexp of the logits, (tokens, heads).
    """
    qkv = _norm_qkv(x, weights, shape)
    attended, logsumexp = _attention(qkv, weights, shape)
    del qkv
    return _project_mlp(x, attended, weights, scales, shape), logsumexp


def backward(
    gradient: Tensor,
    x: Tensor,
    logsumexp: Tensor,
    weights: BlockWeights,
    scales: Tensor | None,
    shape: Shape,
) -> list[Tensor]:
    """Computes a block's gradients.

    Returns:
        The gradients of the input, of ``MATRICES``, and of ``VECTORS`` joined in float32.
    """
    qkv = _norm_qkv(x, weights, shape)
    attended, _ = _attention(qkv, weights, shape)
    shortcut, upper, matrices, vectors = _project_mlp_backward(
        gradient, x, attended, weights, scales, shape
    )
    read = {
        "qkv": qkv,
        "qkv_bias": weights.qkv_bias,
        "bias": weights.bias,
        "gradient": upper,
        "logsumexp": logsumexp,
        "along": torch.empty_like(logsumexp),
        **shape.on_windows(),
    }
    qkv_gradient, padding = _qkv_gradient(attended, read, shape)
    bias = _bias_gradient(read, shape)
    del qkv, attended, upper, read
    x_gradient, qkv_weight, inner = _norm_qkv_backward(qkv_gradient, x, shortcut, weights, shape)
    if padding is not None:
        inner[-len(padding) :] += padding
    return [x_gradient, bias, qkv_weight, *matrices, torch.cat((inner, vectors))]


def _norm_qkv(x: Tensor, weights: BlockWeights, shape: Shape) -> Tensor:
    from .mfsab_forward import norm_qkv_kernel

    rows = shape.rows(shape.frames)
    qkv = x.new_empty(rows, 3 * shape.channels, dtype=weights.qkv_weight.dtype)
    cut = token_tiles("norm_qkv", qkv)
    launch(
        norm_qkv_kernel,
        (-(-rows // cut.rows),),
        x.device,
        x=x,
        norm_weight=weights.norm1_weight,
        norm_bias=weights.norm1_bias,
        weight=weights.qkv_weight,
        bias=weights.qkv_bias,
        qkv=qkv,
        rows=rows,
        **shape.on_tokens(cut),
    )
    return qkv


def _attention(qkv: Tensor, weights: BlockWeights, shape: Shape) -> tuple[Tensor, Tensor]:
    from .mfsab_forward import attention_kernel

    rows = shape.rows(shape.wanted)
    attended = qkv.new_empty(rows, shape.channels)
    logsumexp = qkv.new_empty(rows, shape.heads, dtype=torch.float32)
    down, across = shape.windows
    launch(
        attention_kernel,
        (down * across * shape.heads, shape.clips),
        qkv.device,
        qkv=qkv,
        qkv_bias=weights.qkv_bias,
        bias=weights.bias,
        out=attended,
        logsumexp=logsumexp,
        **shape.on_windows(),
        **window_tiles("attention", qkv),
    )
    return attended, logsumexp


def _project_mlp(
    x: Tensor, attended: Tensor, weights: BlockWeights, scales: Tensor | None, shape: Shape
) -> Tensor:
    from .mfsab_forward import project_mlp_kernel

    out = x.new_empty(shape.clips, shape.wanted, *x.shape[2:])
    cut = token_tiles("project_mlp", attended)
    launch(
        project_mlp_kernel,
        (-(-len(attended) // cut.rows),),
        x.device,
        out=out,
        fc2_bias=weights.fc2_bias,
        **_after_attention(x, attended, weights, scales, shape),
        **shape.on_tokens(cut),
    )
    return out


def _after_attention(
    x: Tensor, attended: Tensor, weights: BlockWeights, scales: Tensor | None, shape: Shape
) -> dict[str, Any]:
    """The arguments of the kernels for what follows attention, forward and backward."""
    return {
        "x": x,
        "attended": attended,
        "proj_weight": weights.proj_weight,
        "proj_bias": weights.proj_bias,
        "norm_weight": weights.norm2_weight,
        "norm_bias": weights.norm2_bias,
        "fc1_weight": weights.fc1_weight,
        "fc1_bias": weights.fc1_bias,
        "fc2_weight": weights.fc2_weight,
        "scales": scales,
        "rows": len(attended),
        "clips": shape.clips,
        "HIDDEN": len(weights.fc1_bias),
        **shape.selection(),
    }


def _project_mlp_backward(
    gradient: Tensor,
    x: Tensor,
    attended: Tensor,
    weights: BlockWeights,
    scales: Tensor | None,
    shape: Shape,
) -> tuple[Tensor, Tensor, list[Tensor], Tensor]:
    """Returns the gradients of the shortcut's input, attended tokens, matrices and vectors."""
    from .mfsab_backward import project_mlp_backward_kernel

    cut = token_tiles("project_mlp_backward", attended)
    programs, hidden = -(-len(attended) // cut.rows), len(weights.fc1_bias)
    normed, out_gradient, projected_gradient, attended_gradient = (
        torch.empty_like(attended) for _ in range(4)
    )
    middle, middle_gradient = (attended.new_empty(len(attended), hidden) for _ in range(2))
    shortcut = torch.empty_like(gradient)
    sums = x.new_empty(programs, 4 * shape.channels + hidden, dtype=torch.float32)
    launch(
        project_mlp_backward_kernel,
        (programs,),
        x.device,
        gradient=gradient,
        normed=normed,
        hidden=middle,
        hidden_gradient=middle_gradient,
        out_gradient=out_gradient,
        projected_gradient=projected_gradient,
        attended_gradient=attended_gradient,
        x_gradient=shortcut,
        sums=sums,
        **_after_attention(x, attended, weights, scales, shape),
        **shape.on_tokens(cut),
    )
    matrices = [
        projected_gradient.t() @ attended,
        middle_gradient.t() @ normed,
        out_gradient.t() @ middle,
    ]
    return shortcut, attended_gradient, matrices, sums.sum(0)


def _bias_gradient(read: dict[str, Any], shape: Shape) -> Tensor:
    """The gradient of the bias on the logits, (heads, tokens, tokens)."""
    from .mfsab_attention_backward import bias_gradient_kernel

    bias = read["bias"]
    heads, tokens, _ = bias.shape
    queries = tokens // shape.frames * shape.wanted
    how = window_tiles("bias_gradient", bias)
    pairs = heads * -(-queries // how["TOKENS"]) * -(-tokens // how["TOKENS"])
    windows = shape.clips * shape.windows[0] * shape.windows[1]
    groups = min(windows, max(1, BIAS_PROGRAMS // pairs))
    sums = bias.new_empty(groups, heads, queries, tokens, dtype=torch.float32)
    arguments = {"bias_gradient": sums, "windows": windows, **read, **how}
    launch(bias_gradient_kernel, (pairs, groups), bias.device, **arguments)
    summed = sums.sum(0).to(bias.dtype)
    if shape.frame < 0:
        return summed
    whole = torch.zeros_like(bias)
    whole[:, shape.frame * queries : (shape.frame + 1) * queries] = summed
    return whole


def _qkv_gradient(
    attended: Tensor, read: dict[str, Any], shape: Shape
) -> tuple[Tensor, Tensor | None]:
    """Returns the gradients of queries, keys and values, and of padding's keys and values."""
    from .mfsab_attention_backward import key_value_gradient_kernel, query_gradient_kernel

    qkv, (down, across) = read["qkv"], shape.windows
    # The queries of the other frames have a gradient of zero.
    qkv_gradient = torch.empty_like(qkv) if shape.frame < 0 else torch.zeros_like(qkv)
    padding = None
    if shape.is_padded:
        windows = shape.clips * down * across
        padding = qkv.new_empty(windows, 2 * shape.channels, dtype=torch.float32)
    grid = (down * across * shape.heads, shape.clips)
    read = {**read, "qkv_gradient": qkv_gradient}
    how = window_tiles("query_gradient", qkv)
    launch(query_gradient_kernel, grid, qkv.device, attended=attended, **read, **how)
    how = window_tiles("key_value_gradient", qkv)
    launch(key_value_gradient_kernel, grid, qkv.device, padding_gradient=padding, **read, **how)
    return qkv_gradient, None if padding is None else padding.sum(0)


def _norm_qkv_backward(
    gradient: Tensor, x: Tensor, shortcut: Tensor, weights: BlockWeights, shape: Shape
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the block's input, of the projection's matrix, of the vectors."""
    from .mfsab_backward import norm_qkv_backward_kernel

    cut = token_tiles("norm_qkv_backward", gradient)
    programs = -(-len(gradient) // cut.rows)
    normed = gradient.new_empty(len(gradient), shape.channels)
    x_gradient = torch.empty_like(x)
    sums = x.new_empty(programs, 5 * shape.channels, dtype=torch.float32)
    launch(
        norm_qkv_backward_kernel,
        (programs,),
        x.device,
        qkv_gradient=gradient,
        x=x,
        shortcut_gradient=shortcut,
        norm_weight=weights.norm1_weight,
        norm_bias=weights.norm1_bias,
        weight=weights.qkv_weight,
        normed=normed,
        x_gradient=x_gradient,
        sums=sums,
        rows=len(gradient),
        **shape.selection(),
        **shape.on_tokens(cut),
    )
    return x_gradient, gradient.t() @ normed, sums.sum(0)


def shipped() -> Iterator[Shipped]:
    """Yields every use of the block in this package's networks, rolled, which needs the most."""
    networks = {"IA-RT": (3, 120), "the study's extractor": (1, 60), "the study's fusion": (2, 60)}
    kinds = {
        "float16": (torch.float16, False),
        "bfloat16": (torch.bfloat16, False),
        "TF32": (torch.float32, True),
        "float32": (torch.float32, False),
    }
    for network, (frames, channels) in networks.items():
        for kind, (dtype, is_tf32) in kinds.items():
            start = partial(_start, frames, channels, dtype, is_tf32)
            yield Shipped(f"MFSAB of {network}, {kind}", start)


def _start(frames: int, channels: int, dtype: torch.dtype, is_tf32: bool) -> None:
    """Starts a padded block, forward and backward, with stochastic depth, on the meta device."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = is_tf32
    try:
        _start_in(frames, channels, dtype)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def _start_in(frames: int, channels: int, dtype: torch.dtype) -> None:
    c, hidden, heads, tokens = channels, 2 * channels, 6, frames * 64

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    weights = BlockWeights(
        empty(heads, tokens, tokens, dtype=dtype),
        *(empty(c), empty(c)),
        *(empty(3 * c, c, dtype=dtype), empty(3 * c)),
        *(empty(c, c, dtype=dtype), empty(c)),
        *(empty(c), empty(c)),
        *(empty(hidden, c, dtype=dtype), empty(hidden)),
        *(empty(c, hidden, dtype=dtype), empty(c)),
    )
    shape = Shape(2, frames, 180, 320, c, heads, (8, 8), True, -1)
    x, scales = empty(2, frames, 180, 320, c), empty(2, 2)
    out, logsumexp = forward(x, weights, scales, shape)
    backward(out, x, logsumexp, weights, scales, shape)

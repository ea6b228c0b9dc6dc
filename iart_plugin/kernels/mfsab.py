"""Starts the kernels of the MFSAB block on a GPU, forward and backward.

The backward pass needs only the block's input and the logsumexp of its logits, and recomputes the
rest. :mod:`iart_plugin.ops.mfsab_operator` turns both passes into one operator.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .launching import Shipped, dot_precision, launch
from .mfsab_sizes import BlockWeights, Shape, token_tiles, unpack, window_tiles

BIAS_PROGRAMS = 1024
"""About how many programs share the work on the gradient of the bias."""


def forward(
    x: Tensor, matrices: Tensor, vectors: Tensor, scales: Tensor | None, shape: Shape
) -> tuple[Tensor, Tensor]:
    """Computes a block.

    Args:
        x: (n, t, h, w, c) contiguous.
        matrices: the block's, see :class:`~.mfsab_sizes.PackedWeights`.
        vectors: the block's, likewise.
        scales: (2, n) factors of what attention and the MLP add, or None.
        shape: the sizes.

    Returns:
        The output, (n, t or 1, h, w, c), and the logsumexp of the logits, (tokens, heads).
    """
    weights = unpack(matrices, vectors, shape)
    qkv = _norm_qkv(x, weights, shape)
    attended, logsumexp = _attention(qkv, weights, shape)
    del qkv
    return _project_mlp(x, attended, weights, scales, shape), logsumexp


def backward(
    gradient: Tensor,
    x: Tensor,
    logsumexp: Tensor,
    matrices: Tensor,
    vectors: Tensor,
    scales: Tensor | None,
    shape: Shape,
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes a block's gradients.

    Returns:
        The gradients of the input, of the matrices, and in float32 of the vectors.
    """
    weights = unpack(matrices, vectors, shape)
    found = torch.empty_like(matrices), torch.empty_like(vectors, dtype=torch.float32)
    gradients = unpack(*found, shape)
    before_attention = 5 * shape.channels  # the first vectors' length
    qkv = _norm_qkv(x, weights, shape)
    attended, _ = _attention(qkv, weights, shape)
    shortcut, upper, sums = _project_mlp_backward(
        gradient, x, attended, weights, gradients, scales, shape
    )
    torch.sum(sums, 0, out=found[1][before_attention:])
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
    _bias_gradient(read, gradients.bias, shape)
    del qkv, attended, upper, read, sums
    x_gradient, sums = _norm_qkv_backward(qkv_gradient, x, shortcut, weights, gradients, shape)
    torch.sum(sums, 0, out=found[1][:before_attention])
    if padding is not None:
        gradients.qkv_bias[shape.channels :] += padding
    return x_gradient, *found


def _norm_qkv(x: Tensor, weights: BlockWeights, shape: Shape) -> Tensor:
    from .mfsab_forward import norm_qkv_kernel

    rows = shape.rows(shape.frames)
    qkv = x.new_empty(rows, 3 * shape.channels, dtype=weights.qkv_weight.dtype)
    cut = token_tiles("norm_qkv", qkv, shape.precision)
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
        **window_tiles("attention", qkv, shape.precision),
    )
    return attended, logsumexp


def _project_mlp(
    x: Tensor, attended: Tensor, weights: BlockWeights, scales: Tensor | None, shape: Shape
) -> Tensor:
    from .mfsab_forward import project_mlp_kernel

    out = x.new_empty(shape.clips, shape.wanted, *x.shape[2:])
    cut = token_tiles("project_mlp", attended, shape.precision)
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
        "HIDDEN": shape.hidden,
        **shape.selection(),
    }


def _project_mlp_backward(
    gradient: Tensor,
    x: Tensor,
    attended: Tensor,
    weights: BlockWeights,
    gradients: BlockWeights,
    scales: Tensor | None,
    shape: Shape,
) -> tuple[Tensor, Tensor, Tensor]:
    """Writes the matrices' gradients.

    Returns:
        The gradients of the shortcut's input and of the attended tokens, and the sums whose total
        over all programs is the gradient of the vectors.
    """
    from .mfsab_backward import project_mlp_backward_kernel

    cut = token_tiles("project_mlp_backward", attended, shape.precision)
    programs, hidden = -(-len(attended) // cut.rows), shape.hidden
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
    torch.mm(projected_gradient.t(), attended, out=gradients.proj_weight)
    torch.mm(middle_gradient.t(), normed, out=gradients.fc1_weight)
    torch.mm(out_gradient.t(), middle, out=gradients.fc2_weight)
    return shortcut, attended_gradient, sums


def _bias_gradient(read: dict[str, Any], gradient: Tensor, shape: Shape) -> None:
    """Writes the gradient of the bias on the logits, (heads, tokens, tokens)."""
    from .mfsab_attention_backward import bias_gradient_kernel

    bias = read["bias"]
    heads, tokens, _ = bias.shape
    queries = tokens // shape.frames * shape.wanted
    how = window_tiles("bias_gradient", bias, shape.precision)
    pairs = heads * -(-queries // how["TOKENS"]) * -(-tokens // how["TOKENS"])
    windows = shape.clips * shape.windows[0] * shape.windows[1]
    groups = min(windows, max(1, BIAS_PROGRAMS // pairs))
    sums = bias.new_empty(groups, heads, queries, tokens, dtype=torch.float32)
    arguments = {"bias_gradient": sums, "windows": windows, **read, **how}
    launch(bias_gradient_kernel, (pairs, groups), bias.device, **arguments)
    first = max(shape.frame, 0) * queries
    if shape.frame >= 0:
        gradient.zero_()  # the queries of the other frames have none
    gradient[:, first : first + queries] = sums.sum(0)


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
    how = window_tiles("query_gradient", qkv, shape.precision)
    launch(query_gradient_kernel, grid, qkv.device, attended=attended, **read, **how)
    how = window_tiles("key_value_gradient", qkv, shape.precision)
    launch(key_value_gradient_kernel, grid, qkv.device, padding_gradient=padding, **read, **how)
    return qkv_gradient, None if padding is None else padding.sum(0)


def _norm_qkv_backward(
    gradient: Tensor,
    x: Tensor,
    shortcut: Tensor,
    weights: BlockWeights,
    gradients: BlockWeights,
    shape: Shape,
) -> tuple[Tensor, Tensor]:
    """Writes the matrix's gradient; returns that of the block's input, and sums for the vectors."""
    from .mfsab_backward import norm_qkv_backward_kernel

    cut = token_tiles("norm_qkv_backward", gradient, shape.precision)
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
    torch.mm(gradient.t(), normed, out=gradients.qkv_weight)
    return x_gradient, sums


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

    matrices = empty(heads * tokens**2 + 4 * c * c + 2 * hidden * c, dtype=dtype)
    vectors = empty(9 * c + hidden)
    shape = Shape(2, frames, 180, 320, c, heads, hidden, (8, 8), True, -1, dot_precision())
    x, scales = empty(2, frames, 180, 320, c), empty(2, 2)
    out, logsumexp = forward(x, matrices, vectors, scales, shape)
    backward(out, x, logsumexp, matrices, vectors, scales, shape)

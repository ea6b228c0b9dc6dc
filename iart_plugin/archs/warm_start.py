"""Starts an IA-CNN from a BasicVSR: implicit alignment whose first output is bilinear warping.

Softmax attention over four pixels is bilinear interpolation if the logits are the logarithms of the
bilinear weights, up to a constant. These are separable: logit(i, j) = i f(d_y) + j f(d_x) with
f(d) = log(d / (1 - d)). So for each axis it is enough that one row of W_q computes f(d) from the
encoding of the decimal, and one row of W_k computes i (or j) from the encoding of the window pixel
while ignoring its features. In a window larger than 2 x 2, a third row gives all other pixels a
weight of almost zero.

In the paper's sums of features and encodings this cannot be exact, because BasicVSR's features use
all their channels: two of 64 dimensions would be lost to the indices, and with them 0.1 dB. So the
network has a few further channels that hold only encodings (``position_channels``), from which the
indices are computed. The value projection subtracts what the encodings add to the features.
"""

import torch
from torch import Tensor, nn

from iart_plugin.ops import ImplicitAlignment, sinusoidal_encoding

from .ia_cnn import ALIGNMENT_OPTIONS

KERNEL_GRID = 2001
"""The number of decimals in [0, 1] at which the kernel is fitted."""

RIDGE = 1e-7
"""The penalty that keeps the kernel's coefficients small. They would amplify what the queries learn
from the features."""

UNSEEN = 20.0
"""In a window larger than 2 x 2, how far the logits of the other rows and columns lie below those
of the first two. Their weights, about 2e-9, vanish in float32 rounding, but they have gradients."""


def warm_start(network: nn.Module) -> nn.Module:
    """Makes an IA-CNN that has BasicVSR's weights compute what BasicVSR computes.

    With ``padding_mode='zeros'``, as in BasicVSR, the results are the same except for the small
    error of the fitted kernel. Solving for the alignment's weights takes some seconds. The
    extractor's first convolution is set to zero, so that the current frame's features do not affect
    the query at first. All weights can be trained from there.

    Args:
        network: an :class:`iart_plugin.archs.IACNN` with an implicit alignment that has
            ``position_channels`` and a window of 2 or more. Its trunks, flow network and upsampler
            hold a BasicVSR's weights.

    Returns:
        The same network, changed in place.

    Raises:
        ValueError: if the alignment does not fit, or its encodings do not tell window pixels apart.
    """
    op = network.alignment
    if not isinstance(op, ImplicitAlignment) or op.window_size < 2 or network.extractor is None:
        raise ValueError(
            "a warm start needs alignment='implicit' with a window of 2 or more, an extractor"
        )
    needed = rows_of(op.window_size)
    if op.channels // op.num_heads < needed:
        raise ValueError(
            f"a warm start needs {needed} channels a head for a window of {op.window_size}, got "
            f"{op.channels} / {op.num_heads}"
        )
    with torch.no_grad():
        set_bilinear(op)
        first = network.extractor.main[0]
        first.weight.zero_()
        first.bias.zero_()
    return network


def fit_kernel(encoding: Tensor, decimal: Tensor) -> Tensor:
    """Fits coefficients a such that sigmoid([encoding, 1] a) = decimal.

    The sigmoid is the weight of the second pixel in the linear interpolation of two pixels.

    Args:
        encoding: (k, m) encodings of the decimals along one axis, float64.
        decimal: (k,) in [0, 1], float64.

    Returns:
        (m + 1,) coefficients, the constant last.
    """
    basis = torch.cat((encoding, torch.ones_like(encoding[:, :1])), 1)
    target = decimal.clamp(0.002, 0.998).logit()
    damping = 1e-3 * len(decimal) * torch.eye(basis.shape[1], dtype=basis.dtype)
    start = torch.linalg.solve(basis.t() @ basis + damping, basis.t() @ target)
    coefficients = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [coefficients],
        max_iter=2000,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-12,
        tolerance_change=1e-14,
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        error = ((basis @ coefficients).sigmoid() - decimal).square().mean()
        loss = error + RIDGE * coefficients[:-1].square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return coefficients.detach()


def rows_of(window_size: int) -> int:
    """The number of channels of every head that a warm start sets."""
    return 2 if window_size == 2 else 3


def set_bilinear(op: ImplicitAlignment) -> None:
    """Sets the projections so that attention is bilinear and the values are the features."""
    channels, half, w = op.channels, op.channels // 2, op.window_size
    head_dim = channels // op.num_heads
    unreadable = ValueError(
        f"a warm start reads the indices of a window of {w} from position_channels and cannot from "
        f"{op.position_channels}: give alignment_options={ALIGNMENT_OPTIONS} and a small window"
    )
    if op.position_channels < 2 * (w - 1):
        raise unreadable
    # The first window pixel's encoding, and what a step to another row or column adds to it.
    window = op.window_encoding(torch.device("cpu"), torch.float64).unflatten(0, (w, w))
    origin = window[0, 0]
    steps = torch.cat((window[1:, 0], window[0, 1:])).t() - origin.unsqueeze(1)
    own = steps[channels:]
    if torch.linalg.matrix_rank(own, atol=0.1) < 2 * (w - 1):
        raise unreadable
    # Row y - 1 of the reader computes from a pixel's encoding whether it is in the window's row y.
    # The last w - 1 rows do the same for its column. All of them ignore the features.
    reader = torch.zeros(2 * (w - 1), len(origin), dtype=torch.float64)
    reader[:, channels:] = torch.linalg.pinv(own)
    keys = [reader[0], reader[w - 1]]  # for the window's second row and second column
    if w > 2:  # for all rows and columns that bilinear interpolation does not use
        keys.append(-UNSEEN * (reader[1 : w - 1].sum(0) + reader[w:].sum(0)))

    decimal = torch.linspace(0, 1, KERNEL_GRID, dtype=torch.float64)
    position = torch.stack((decimal, decimal), 1) / (w + 1e-6)
    kernel = fit_kernel(sinusoidal_encoding(position, channels)[:, :half], decimal)

    for layer in (op.k, op.v, op.q):
        layer.weight.zero_()
        layer.bias.zero_()
    generator = torch.Generator().manual_seed(0)
    for row in range(0, channels, head_dim):
        # The other rows have random queries and zero keys, which change nothing and can be trained.
        queries = op.q.weight[row : row + head_dim]
        queries.copy_(torch.empty(queries.shape).normal_(std=channels**-0.5, generator=generator))
        op.q.weight[row : row + len(keys)] = 0
        op.q.bias[row : row + len(keys)] = 1  # right for the third row; the first two follow below
        for axis in range(2):
            op.q.weight[row + axis, axis * half : (axis + 1) * half] = kernel[:-1].float()
            op.q.bias[row + axis] = kernel[-1]
        for offset, key in enumerate(keys):
            op.k.weight[row + offset] = head_dim**0.5 * key
            op.k.bias[row + offset] = -(head_dim**0.5) * (key @ origin)

    # The value is the feature itself: what the encodings add to it is a linear function of the
    # reader's result and is subtracted.
    value = torch.eye(channels, len(origin), dtype=torch.float64) - steps[:channels] @ reader
    op.v.weight.copy_(value)
    op.v.bias.copy_(-(value @ origin))

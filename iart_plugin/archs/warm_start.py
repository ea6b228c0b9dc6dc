"""Starts an IA-CNN from a BasicVSR: implicit alignment whose first output is bilinear warping.

Softmax attention over four pixels is bilinear interpolation when the logits are those of the
bilinear weights, and these are separable: logit(i, j) = i f(d_y) + j f(d_x) with
f(d) = log(d / (1 - d)). So it is enough that one row of W_q reads f(d) off the encoding of the
decimal, and one row of W_k reads i (or j) off the encoded window pixel while ignoring its content.
In a window larger than 2 x 2 a third row gives all other pixels a share of zero.

In the paper's sums of features and encodings that cannot be exact, since BasicVSR's features fill
all their channels: two of 64 dimensions would be lost to the indices, and 0.1 dB. So the network
has a few channels of encodings beside the features (``position_channels``), from which the indices
are read; the values take off the features again what the encodings add to them.
"""

import torch
from torch import Tensor, nn

from iart_plugin.ops import ImplicitAlignment, sinusoidal_encoding

from .ia_cnn import ALIGNMENT_OPTIONS

KERNEL_GRID = 2001
"""Decimals in [0, 1] on which the kernel is fitted."""

RIDGE = 1e-7
"""Keeps the kernel's coefficients small: they multiply what the queries learn of the content."""

UNSEEN = 20.0
"""How far the logits of a larger window's further rows and columns lie below the others: their
shares, about 2e-9, are lost in float32's rounding, and their gradients are not quite zero."""


def warm_start(network: nn.Module) -> nn.Module:
    """Makes an IA-CNN with BasicVSR's weights compute what BasicVSR computes.

    The same but for the error of the kernel if the alignment takes features outside the frame to
    be zeros, as BasicVSR does (``padding_mode='zeros'``). The alignment's weights are solved for,
    in some seconds. The query's content starts at zero (the extractor's first convolution is zero)
    and everything can be trained from here.

    Args:
        network: an :class:`iart_plugin.archs.IACNN` with an implicit alignment that has
            ``position_channels`` and a window of 2 or more, whose trunks, flow network and
            upsampler hold a BasicVSR's weights.

    Returns:
        The same network, changed in place.

    Raises:
        ValueError: if the alignment is another, or pixels' indices cannot be read from it.
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
    """Fits a with sigmoid([encoding, 1] a) = decimal, the linear interpolation of two pixels.

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
    """How many channels of every head a warm start sets."""
    return 2 if window_size == 2 else 3


def set_bilinear(op: ImplicitAlignment) -> None:
    """Solves for projections whose attention is a bilinear kernel and whose values are features."""
    channels, half, w = op.channels, op.channels // 2, op.window_size
    head_dim = channels // op.num_heads
    unreadable = ValueError(
        f"a warm start reads the indices of a window of {w} from position_channels and cannot from "
        f"{op.position_channels}: give alignment_options={ALIGNMENT_OPTIONS} and a small window"
    )
    if op.position_channels < 2 * (w - 1):
        raise unreadable
    # The first pixel's encoding, and what another row y or another column x adds to it.
    window = op.window_encoding(torch.device("cpu"), torch.float64).unflatten(0, (w, w))
    origin = window[0, 0]
    steps = torch.cat((window[1:, 0], window[0, 1:])).t() - origin.unsqueeze(1)
    own = steps[channels:]
    if torch.linalg.matrix_rank(own, atol=0.1) < 2 * (w - 1):
        raise unreadable
    # Row y - 1 reads off an encoded pixel whether it is in the window's row y; the last w - 1 read
    # its column. They see no feature.
    reader = torch.zeros(2 * (w - 1), len(origin), dtype=torch.float64)
    reader[:, channels:] = torch.linalg.pinv(own)
    keys = [reader[0], reader[w - 1]]  # of the second row and column
    if w > 2:  # of all rows and columns that bilinear interpolation does not see
        keys.append(-UNSEEN * (reader[1 : w - 1].sum(0) + reader[w:].sum(0)))

    decimal = torch.linspace(0, 1, KERNEL_GRID, dtype=torch.float64)
    position = torch.stack((decimal, decimal), 1) / (w + 1e-6)
    kernel = fit_kernel(sinusoidal_encoding(position, channels)[:, :half], decimal)

    for layer in (op.k, op.v, op.q):
        layer.weight.zero_()
        layer.bias.zero_()
    generator = torch.Generator().manual_seed(0)
    for row in range(0, channels, head_dim):
        # Rows without a task: random queries on zero keys change nothing and can be learnt.
        queries = op.q.weight[row : row + head_dim]
        queries.copy_(torch.empty(queries.shape).normal_(std=channels**-0.5, generator=generator))
        op.q.weight[row : row + len(keys)] = 0
        op.q.bias[row : row + len(keys)] = 1  # the third row's query; the others' follow
        for axis in range(2):
            op.q.weight[row + axis, axis * half : (axis + 1) * half] = kernel[:-1].float()
            op.q.bias[row + axis] = kernel[-1]
        for offset, key in enumerate(keys):
            op.k.weight[row + offset] = head_dim**0.5 * key
            op.k.bias[row + offset] = -(head_dim**0.5) * (key @ origin)

    # The feature itself: what the encodings add to it is linear in what the reader reads.
    value = torch.eye(channels, len(origin), dtype=torch.float64) - steps[:channels] @ reader
    op.v.weight.copy_(value)
    op.v.bias.copy_(-(value @ origin))

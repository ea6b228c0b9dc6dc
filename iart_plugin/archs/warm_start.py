"""Starts an IA-CNN from a BasicVSR: implicit alignment whose first output is bilinear warping.

Softmax attention over four pixels is bilinear interpolation when the logits are those of the
bilinear weights, and these are separable: logit(i, j) = i f(d_y) + j f(d_x) with
f(d) = log(d / (1 - d)). So it is enough that one row of W_q reads f(d) off the encoding of the
decimal, and one row of W_k reads i (or j) off the encoded window pixel while ignoring its content.

Keys and values are projections of content + encoding (Eq. 10, 11), whose sum cannot be told apart
in the plane of the two encodings' steps. BasicVSR's features fill all their dimensions alike, so
that this plane would cost it two of them. Therefore the features are turned first, such that they
hold in it what is missed least (feature_turn.py).
"""

import torch
from torch import Tensor, nn

from iart_plugin.ops import ImplicitAlignment, sinusoidal_encoding

from .feature_turn import RIDGE, measure_branches, turn_features

KERNEL_GRID = 2001
"""Decimals in [0, 1] on which the kernel is fitted."""


def warm_start(network: nn.Module, clips: Tensor | None = None) -> nn.Module:
    """Makes an IA-CNN with BasicVSR's weights compute nearly what BasicVSR computes.

    The alignment's weights are solved for, in some seconds. The query's content starts at zero
    (the extractor's first convolution is zero) and everything can be trained from here.

    Args:
        network: an :class:`iart_plugin.archs.IACNN` with a 2 x 2 implicit alignment, whose trunks,
            flow network and upsampler hold a BasicVSR's weights.
        clips: (n, t, 3, h, w) RGB in [0, 1], t >= 2, on which features are measured; None for
            noise with the spectrum of natural images, made here.

    Returns:
        The same network, changed in place.

    Raises:
        ValueError: if the alignment is another.
    """
    op = network.alignment
    if not isinstance(op, ImplicitAlignment) or op.window_size != 2 or network.extractor is None:
        raise ValueError("a warm start needs alignment='implicit' with a window of 2, an extractor")
    if op.channels // op.num_heads < 2:
        raise ValueError(
            f"a warm start needs 2 channels a head, got {op.channels} / {op.num_heads}"
        )
    clips = natural_noise() if clips is None else clips
    with torch.no_grad():
        steps = _encoding_steps(op)[1]
        turned = [
            turn_features(network, index, measured, steps)
            for index, measured in enumerate(measure_branches(network, clips))
        ]
        mean = sum(mean for mean, _ in turned) / 2
        spread = sum(torch.outer(each - mean, each - mean) for each, _ in turned) / 2
        _set_bilinear(op, mean, sum(covariance for _, covariance in turned) / 2 + spread)
        first = network.extractor.main[0]
        first.weight.zero_()
        first.bias.zero_()
    return network


def natural_noise(
    frames: int = 5, size: int = 64, clips: int = 2, *, exponent: float = 1.2, seed: int = 0
) -> Tensor:
    """Clips (clips, frames, 3, size, size) of moving noise with a falling spectrum, in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    canvas = 2 * size
    noise = torch.randn(clips, 3, canvas, canvas, generator=generator)
    noise = noise + 2 * noise.mean(1, keepdim=True)  # mostly grey, as photographs are
    frequency = torch.fft.fftfreq(canvas)
    radius = (frequency.view(-1, 1) ** 2 + frequency.view(1, -1) ** 2).sqrt()
    radius[0, 0] = 1 / canvas
    image = torch.fft.ifft2(torch.fft.fft2(noise) / radius**exponent).real
    image = image - image.mean((2, 3), keepdim=True)
    image = (0.5 + 0.22 * image / image.std((2, 3), keepdim=True)).clamp(0, 1)
    return torch.stack(
        [image[..., 2 * i : 2 * i + size, 3 * i : 3 * i + size] for i in range(frames)], 1
    )


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
    damping = 1e-6 * len(decimal) * torch.eye(basis.shape[1], dtype=basis.dtype)
    start = torch.linalg.solve(basis.t() @ basis + damping, basis.t() @ target)
    coefficients = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [coefficients], max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-12
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        error = ((basis @ coefficients).sigmoid() - decimal).square().mean()
        loss = error + 1e-12 * coefficients.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return coefficients.detach()


def _set_bilinear(op: ImplicitAlignment, mean: Tensor, covariance: Tensor) -> None:
    """Solves for the projections of a bilinear kernel among features of these statistics."""
    channels, half = op.channels, op.channels // 2
    head_dim = channels // op.num_heads
    origin, steps = _encoding_steps(op)
    # The reading of a pixel's index that is exact on the encodings and least moved by content:
    # minimise g' S g subject to g' steps = 1, the minimum-variance beamformer.
    noise = covariance + RIDGE * covariance.trace() / channels * torch.eye(channels).double()
    whitened = torch.linalg.solve(noise, steps)
    reader = torch.linalg.solve(steps.t() @ whitened, whitened.t())  # (2, c)

    decimal = torch.linspace(0, 1, KERNEL_GRID, dtype=torch.float64)
    position = torch.stack((decimal, decimal), 1) / (op.window_size + 1e-6)
    encoding = sinusoidal_encoding(position, channels)[:, :half]
    kernel = fit_kernel(encoding, decimal)

    for layer in (op.k, op.v, op.q):
        layer.weight.zero_()
        layer.bias.zero_()
    generator = torch.Generator().manual_seed(0)
    for row in range(0, channels, head_dim):
        # Rows without a task: random queries on zero keys change nothing and can be learnt.
        op.q.weight[row : row + head_dim].normal_(std=channels**-0.5, generator=generator)
        for axis in range(2):
            op.q.weight[row + axis].zero_()
            op.q.weight[row + axis, axis * half : (axis + 1) * half] = kernel[:-1].float()
            op.q.bias[row + axis] = kernel[-1]
        op.k.weight[row : row + 2] = head_dim**0.5 * reader
        op.k.bias[row : row + 2] = -(head_dim**0.5) * (reader @ (origin + mean))

    keep = torch.eye(channels).double() - steps @ reader  # removes the encodings' plane
    op.v.weight.copy_(keep)
    op.v.bias.copy_(mean - keep @ (origin + mean))


def _encoding_steps(op: ImplicitAlignment) -> tuple[Tensor, Tensor]:
    """The encoding (c,) of a window's first pixel, and (c, 2) what one pixel in y or x adds."""
    window = op.window_encoding(torch.device("cpu"), torch.float64)  # rows (0,0) (0,1) (1,0) (1,1)
    return window[0], torch.stack((window[2] - window[0], window[1] - window[0]), 1)

"""Measures the frequency response of resampling methods (Sec. 3.3 and 4.1).

A sinusoid is resampled at a constant sub-pixel shift. The result is compared with the sinusoid's
exact values at the shifted positions. The response is the complex amplitude of the result: 1 is
perfect, a modulus below 1 means smoothing, and an angle other than 0 means a displacement.

Averaged over all shifts, the response of a fixed kernel is the kernel's Fourier transform: sinc for
nearest, sinc squared for bilinear. The plot shows these curves beside the measured ones.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from iart_plugin.ops import ImplicitAlignment, pixel_grid, warp

Resampler = Callable[[Tensor, Tensor], Tensor]  # (n, 1, h, w), (n, 2, h, w) -> (n, 1, h, w)
SPECTRA = ("uniform", "natural")
SLOWEST = 0.02  # cycles per pixel; below it the amplitude no longer grows
MARGIN = 6  # pixels left out at each side, because the border affects them


class ImplicitResampler(nn.Module):
    """Resamples a single channel by implicit alignment.

    A convolution lifts the channel to features, the features are aligned, and a second convolution
    reads one channel out of them. The current frame's features are zeros, so that only the
    resampling of the reference is measured. In a network the current frame's features sharpen the
    attention further.

    Args:
        lift_size: Kernel size of the lifting convolution. With 1, a result depends on 2 x 2 input
            pixels, as in bilinear resampling; with 3, on 4 x 4 pixels, as in bicubic resampling. A
            network's features depend on more pixels than either.
        channels: Width of the features.
        num_heads: Heads of the alignment.
    """

    def __init__(self, *, lift_size: int = 1, channels: int = 32, num_heads: int = 8) -> None:
        super().__init__()
        self.lift = nn.Conv2d(1, channels, lift_size, padding=lift_size // 2)
        self.alignment = ImplicitAlignment(channels, num_heads=num_heads)
        self.readout = nn.Conv2d(channels, 1, 1)

    def forward(self, reference: Tensor, flow: Tensor) -> Tensor:
        """Resamples ``reference``, (n, 1, h, w), at every pixel's position plus its flow."""
        features = self.lift(reference)
        return self.readout(self.alignment(features, torch.zeros_like(features), flow))


@dataclass(frozen=True, kw_only=True)
class Response:
    """The measured frequency response of one resampling method.

    Attributes:
        frequencies: (k,) in cycles per pixel, 0 to 0.5.
        shifts: (m,) in pixels.
        values: (k, m) complex responses by frequency and shift.
    """

    frequencies: np.ndarray
    shifts: np.ndarray
    values: np.ndarray

    def mean_over_shifts(self) -> np.ndarray:
        """The real part of the mean over shifts, (k,): a fixed kernel's Fourier transform."""
        return self.values.mean(axis=1).real

    def at_half_a_pixel(self) -> np.ndarray:
        """The modulus at the shift nearest to half a pixel, where smoothing is worst: (k,)."""
        return np.abs(self.values[:, np.abs(self.shifts).argmax()])

    def error_by_shift(self) -> np.ndarray:
        """The root mean square distance from 1, the perfect response, over frequencies: (m,)."""
        return np.sqrt((np.abs(self.values - 1) ** 2).mean(axis=0))

    def error(self) -> float:
        """The root mean square distance from 1, the perfect response, over all measurements."""
        return float(np.sqrt(np.mean(np.abs(self.values - 1) ** 2)))


def explicit_resamplers() -> dict[str, Resampler]:
    """Nearest, bilinear and bicubic resampling, by name."""

    def make(mode: str) -> Resampler:
        return lambda reference, flow: warp(reference, flow, mode=mode, padding="border")

    return {mode: make(mode) for mode in ("nearest", "bilinear", "bicubic")}


def sinusoids(
    frequency: Tensor, phase: Tensor, position: Tensor, amplitude: Tensor | None = None
) -> Tensor:
    """Sums of sinusoids at given positions.

    Args:
        frequency: (n, k, 2) in cycles per pixel, x then y.
        phase: (n, k) in radians.
        position: (n, 2, h, w) or (1, 2, h, w) in pixels, x then y.
        amplitude: (n, k), 1 by default.

    Returns:
        (n, 1, h, w).
    """
    angle = (
        2
        * math.pi
        * torch.einsum("nka,nahw->nkhw", frequency, position.expand(len(phase), -1, -1, -1))
    )
    waves = torch.cos(angle + phase[..., None, None])
    if amplitude is not None:
        waves = waves * amplitude[..., None, None]
    return waves.sum(1, keepdim=True)


@torch.no_grad()
def measure(
    resampler: Resampler, *, num_frequencies: int = 25, num_shifts: int = 32, size: int = 48
) -> Response:
    """Measure the response to horizontal sinusoids shifted horizontally.

    Args:
        resampler: The method to measure.
        num_frequencies: How many frequencies to measure, from 0.02 to 0.48 cycles per pixel.
        num_shifts: How many shifts to measure, evenly and symmetrically from -1/2 to 1/2 pixel.
        size: Side of the frame in pixels.

    Returns:
        The response.
    """
    frequencies = torch.linspace(0.02, 0.48, num_frequencies)
    shifts = (torch.arange(num_shifts) + 0.5) / num_shifts - 0.5
    pixels = pixel_grid(size, size, device=torch.device("cpu"), dtype=torch.float32)[None]
    inner = slice(MARGIN, size - MARGIN)
    values = np.empty((num_frequencies, num_shifts), complex)
    for i, frequency in enumerate(frequencies):
        wave = torch.zeros(2, 1, 2)
        wave[..., 0] = frequency
        # Two waves a quarter of a period apart are the real and imaginary part of a complex wave.
        phase = torch.tensor([[0.0], [-math.pi / 2]])
        reference = sinusoids(wave, phase, pixels)
        for j, shift in enumerate(shifts):
            flow = torch.zeros(2, 2, size, size)
            flow[:, 0] = shift
            out = resampler(reference, flow)[..., inner, inner]
            ideal = sinusoids(wave, phase, pixels + flow[:1])[..., inner, inner]
            analytic, wanted = torch.complex(*out), torch.complex(*ideal)
            values[i, j] = (analytic * wanted.conj()).mean().item()
    return Response(frequencies=frequencies.numpy(), shifts=shifts.numpy(), values=values)


def train_implicit(
    *,
    lift_size: int = 1,
    spectrum: str = "uniform",
    steps: int = 1500,
    seed: int = 0,
    size: int = 16,
    batch: int = 8,
    waves: int = 8,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> ImplicitResampler:
    """Train implicit alignment to resample sums of sinusoids of all frequencies up to Nyquist's.

    The directions and moduli of the frequencies are drawn uniformly. With the uniform spectrum all
    waves have the same amplitude, so that no frequency is preferred; with the natural one the
    amplitude falls with the frequency, as it does in photographs.

    Args:
        lift_size: See :class:`ImplicitResampler`.
        spectrum: 'uniform' for equal amplitudes, 'natural' for amplitudes of 1 / frequency.
        steps: Optimiser steps (Adam, with a learning rate that falls along a cosine).
        seed: Seed of the first weights and of the data.
        size: Side of the frames in pixels.
        batch: Frames per step, each with its own shift.
        waves: Sinusoids per frame.
        progress: Called after every step with its number and loss.

    Returns:
        The trained module.

    Raises:
        ValueError: If the spectrum is not one of these two.
    """
    if spectrum not in SPECTRA:
        raise ValueError(f"spectrum must be one of {', '.join(SPECTRA)}, got {spectrum!r}")
    torch.manual_seed(seed)
    network = ImplicitResampler(lift_size=lift_size)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=1e-5)
    pixels = pixel_grid(size, size, device=torch.device("cpu"), dtype=torch.float32)[None]
    for step in range(steps):
        modulus, turn = torch.rand(batch, waves) / 2, 2 * math.pi * torch.rand(batch, waves)
        frequency = torch.stack((modulus * turn.cos(), modulus * turn.sin()), -1)
        phase = 2 * math.pi * torch.rand(batch, waves)
        amplitude = torch.ones_like(modulus)
        if spectrum == "natural":
            amplitude = 1 / modulus.clamp(min=SLOWEST)
        amplitude = amplitude / amplitude.norm(dim=1, keepdim=True)
        flow = (4 * torch.rand(batch, 2, 1, 1) - 2).expand(-1, -1, size, size)
        reference = sinusoids(frequency, phase, pixels, amplitude)
        target = sinusoids(frequency, phase, pixels + flow, amplitude)
        inner = (..., slice(3, -4), slice(3, -4))
        loss = (network(reference, flow)[inner] - target[inner]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        progress(step + 1, loss.item())
    return network.eval()


def theory(frequencies: np.ndarray) -> dict[str, np.ndarray]:
    """Fourier transforms of the kernels (Sec. 3.3): sinc for nearest, its square for bilinear."""
    return {"nearest": np.sinc(frequencies), "bilinear": np.sinc(frequencies) ** 2}


def plot(responses: dict[str, list[Response]], path: Path) -> None:
    """Plot the mean over shifts beside the theory, the half-pixel shift, and the error by shift.

    Args:
        responses: The responses of each method, one for each seed. A line is drawn at their mean,
            with a band of one standard deviation around it.
        path: The PNG file to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(14, 4.2))
    for index, (name, seeds) in enumerate(responses.items()):
        f, shifts = seeds[0].frequencies, seeds[0].shifts
        curves = (
            (f, [response.mean_over_shifts() for response in seeds]),
            (f, [response.at_half_a_pixel() for response in seeds]),
            (shifts, [response.error_by_shift() for response in seeds]),
        )
        for axis, (x, values) in zip(axes, curves, strict=True):
            mean, spread = np.mean(values, axis=0), np.std(values, axis=0)
            style = "o" if axis is axes[0] and name in ("nearest", "bilinear") else "-"
            axis.plot(x, mean, style, color=f"C{index}", ms=4, label=name)
            axis.fill_between(x, mean - spread, mean + spread, color=f"C{index}", alpha=0.2)
    f = next(iter(responses.values()))[0].frequencies
    for (name, curve), label in zip(theory(f).items(), ("sinc", "sinc$^2$"), strict=True):
        colour = f"C{list(responses).index(name)}" if name in responses else "k"
        axes[0].plot(f, curve, color=colour, lw=1, label=f"{label} (theory)")
    axes[0].set_title("mean response over all shifts")
    axes[1].set_title("amplitude at a shift of half a pixel")
    axes[2].set_title("rms error of the response over the band")
    for axis in axes[:2]:
        axis.set_xlabel("frequency (cycles a pixel)")
        axis.set_ylim(0, 1.25)
    axes[2].set_xlabel("shift (pixels)")
    axes[0].legend(fontsize=7)
    axes[1].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)

"""Clips with the spectrum of natural images, of which a network makes what it makes of videos."""

import torch
from torch import Tensor


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

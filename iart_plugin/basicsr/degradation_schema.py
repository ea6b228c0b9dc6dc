"""The keys of ``degradation:``, which say how strongly clips are degraded for training."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from iart_plugin.basicsr.schema import NUMBER, NotNegative, Positive, Section


def _ascending(values: list[float]) -> list[float]:
    if values[0] > values[1]:
        raise ValueError("it must be [lowest, highest]")
    return values


def _quality(values: list[float]) -> list[float]:
    if values[1] > 100:
        raise ValueError("the highest quality is 100")
    return values


def _some_chance(values: list[float]) -> list[float]:
    if not sum(values):
        raise ValueError("one of the probabilities must be above 0")
    return values


Probability = Annotated[float, NUMBER, Field(ge=0, le=1)]
Range = Annotated[list[NotNegative], Field(min_length=2, max_length=2), AfterValidator(_ascending)]
PositiveRange = Annotated[
    list[Positive], Field(min_length=2, max_length=2), AfterValidator(_ascending)
]
# Stronger values would take all memory, or be more than an encoder's option can hold.
Factors = Annotated[
    list[Annotated[Positive, Field(le=8)]],
    Field(min_length=2, max_length=2),
    AfterValidator(_ascending),
]
Bitrates = Annotated[
    list[Annotated[Positive, Field(le=1e9)]],
    Field(min_length=2, max_length=2),
    AfterValidator(_ascending),
]
ResizeProbabilities = Annotated[  # of making frames larger, making them smaller, keeping them
    list[Probability], Field(min_length=3, max_length=3), AfterValidator(_some_chance)
]


class FirstDegradation(Section):
    """The first round of blur, resizing, noise and compression; keys are Real-ESRGAN's."""

    blur_prob: Probability = 1.0
    sinc_prob: Probability = 0.1
    blur_sigma: PositiveRange = Field([0.2, 3])  # pixels
    resize_prob: ResizeProbabilities = Field([0.2, 0.7, 0.1])
    resize_range: Factors = Field([0.15, 1.5])
    gaussian_noise_prob: Probability = 0.5  # otherwise the noise is Poisson's
    noise_range: Range = Field([1, 30])  # of 255
    poisson_scale_range: Range = Field([0.05, 3])
    gray_noise_prob: Probability = 0.4
    jpeg_range: Annotated[PositiveRange, AfterValidator(_quality)] = Field([30, 95])
    bitrate_range: Bitrates = Field([1e4, 1e5])  # bits per frame of a clip of 256 x 256 pixels


class SecondDegradation(FirstDegradation):
    """The second, weaker round."""

    blur_prob: Probability = 0.8
    blur_sigma: PositiveRange = Field([0.2, 1.5])
    resize_prob: ResizeProbabilities = Field([0.3, 0.4, 0.3])
    resize_range: Factors = Field([0.3, 1.2])
    noise_range: Range = Field([1, 25])
    poisson_scale_range: Range = Field([0.05, 2.5])


class Degradation(Section):
    """``degradation:``, how clips are degraded. The defaults are RealBasicVSR's."""

    first: FirstDegradation = FirstDegradation()
    second: SecondDegradation = SecondDegradation()
    final_sinc_prob: Probability = 0.8

"""Pixel-shuffle reconstruction to four times the size, on top of a bilinear enlargement."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iart_plugin.fused import is_fused
from iart_plugin.ops.tracing import is_traced

from .hub import HubNetwork

SCALE = 4
NEGATIVE_SLOPE = 0.1
STRIP_BYTES = 2**23
"""Bytes of the largest temporary on a CPU. A larger one would not fit the memory that the allocator
keeps, and would cost page faults."""


def lrelu(x: Tensor) -> Tensor:
    """Leaky ReLU with the slope that all networks here use; it overwrites ``x``."""
    return F.leaky_relu(x, NEGATIVE_SLOPE, inplace=True)


def channels_last(x: Tensor) -> Tensor:
    """Gives images the memory layout in which convolutions on a CPU are fastest."""
    is_gain = x.device.type == "cpu" and is_fused()
    return x.contiguous(memory_format=torch.channels_last) if is_gain else x


class UpsamplingNetwork(nn.Module, HubNetwork):
    """Base of the networks: the layers that turn features into a frame four times as large.

    Networks inherit these layers instead of holding them in a submodule, because released files
    have their keys at the top level.

    Args:
        num_feat: channels of the features that enter ``upconv1``.
        hr_channels: channels at four times the size, after ``upconv2``.
    """

    def __init__(self, num_feat: int, hr_channels: int = 64) -> None:
        super().__init__()
        self.upconv1 = nn.Conv2d(num_feat, 4 * num_feat, 3, padding=1)
        self.upconv2 = nn.Conv2d(num_feat, 4 * hr_channels, 3, padding=1)
        self.conv_hr = nn.Conv2d(hr_channels, hr_channels, 3, padding=1)
        self.conv_last = nn.Conv2d(hr_channels, 3, 3, padding=1)

    def upsample(self, features: Tensor, frame: Tensor) -> Tensor:
        """Reconstructs a frame, on a CPU without gradients in strips; the result is the same.

        Args:
            features: (n, num_feat, h, w).
            frame: (n, 3, h, w) the low-resolution frame.

        Returns:
            (n, 3, 4h, 4w).
        """
        base = F.interpolate(frame, scale_factor=SCALE, mode="bilinear", align_corners=False)
        features = channels_last(features)
        n, _, height, width = features.shape
        on_cpu = features.device.type == "cpu"
        if torch.is_grad_enabled() or not on_cpu or is_traced(features) or not is_fused():
            return self._rows(features, 0, height) + base
        row = n * self.conv_hr.in_channels * SCALE**2 * width * features.element_size()
        step = max(4, STRIP_BYTES // row)
        for top in range(0, height, step):
            bottom = min(top + step, height)
            base[:, :, SCALE * top : SCALE * bottom] += self._rows(features, top, bottom)
        return base

    def _rows(self, features: Tensor, top: int, bottom: int) -> Tensor:
        """What is added to the enlarged frame from low-resolution row ``top`` to ``bottom``."""
        height = features.shape[2]
        # From the last layer to the first: the rows, (top, bottom), that each layer must compute.
        last = (SCALE * top, SCALE * bottom)
        hr = _with_neighbours(last, SCALE * height)
        second = _halved(_with_neighbours(hr, SCALE * height))
        first = _halved(_with_neighbours(second, 2 * height))

        x = _convolve(self.upconv1, features, 0, first, height)
        x = lrelu(F.pixel_shuffle(x, 2))
        x = _convolve(self.upconv2, x, 2 * first[0], second, 2 * height)
        x = lrelu(F.pixel_shuffle(x, 2))
        x = lrelu(_convolve(self.conv_hr, x, 2 * second[0], hr, SCALE * height))
        return _convolve(self.conv_last, x, hr[0], last, SCALE * height)


def _with_neighbours(rows: tuple[int, int], height: int) -> tuple[int, int]:
    return max(rows[0] - 1, 0), min(rows[1] + 1, height)


def _halved(rows: tuple[int, int]) -> tuple[int, int]:
    return rows[0] // 2, -(-rows[1] // 2)


def _convolve(conv: nn.Conv2d, x: Tensor, first: int, rows: tuple[int, int], height: int) -> Tensor:
    """Computes some rows of a 3 x 3 convolution; ``x`` holds the frame's rows from ``first`` on."""
    if rows == (0, height):
        return conv(x)
    above, below = _with_neighbours(rows, height)
    x = x[:, :, above - first : below - first]
    missing = (above - rows[0] + 1, rows[1] + 1 - below)  # rows of zeros outside the frame
    if any(missing):
        x = F.pad(x, (0, 0, *missing))
    return F.conv2d(x, conv.weight, conv.bias, padding=(0, 1))

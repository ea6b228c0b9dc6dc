"""Pixel-shuffle reconstruction to four times the size, on top of a bilinear enlargement."""

import torch.nn.functional as F
from torch import Tensor, nn

SCALE = 4
NEGATIVE_SLOPE = 0.1


def lrelu(x: Tensor) -> Tensor:
    """Leaky ReLU with the slope that every network here uses."""
    return F.leaky_relu(x, NEGATIVE_SLOPE)


class UpsamplingNetwork(nn.Module):
    """Base of the networks: the layers that turn features into a frame four times as large.

    Inherited and not a child, because released files have these keys at the top level.

    Args:
        num_feat: channels of the features that enter ``upconv1``.
    """

    def __init__(self, num_feat: int) -> None:
        super().__init__()
        self.upconv1 = nn.Conv2d(num_feat, 4 * num_feat, 3, padding=1)
        self.upconv2 = nn.Conv2d(num_feat, 4 * 64, 3, padding=1)
        self.conv_hr = nn.Conv2d(64, 64, 3, padding=1)
        self.conv_last = nn.Conv2d(64, 3, 3, padding=1)

    def upsample(self, features: Tensor, frame: Tensor) -> Tensor:
        """Reconstructs a frame.

        Args:
            features: (n, num_feat, h, w).
            frame: (n, 3, h, w) the low-resolution frame.

        Returns:
            (n, 3, 4h, 4w).
        """
        x = lrelu(F.pixel_shuffle(self.upconv1(features), 2))
        x = lrelu(F.pixel_shuffle(self.upconv2(x), 2))
        x = self.conv_last(lrelu(self.conv_hr(x)))
        base = F.interpolate(frame, scale_factor=SCALE, mode="bilinear", align_corners=False)
        return x + base

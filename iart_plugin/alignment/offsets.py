"""Predicts the deformable aligners' offsets, which are bounded and added to the optical flow."""

import torch
from torch import Tensor, nn

NEGATIVE_SLOPE = 0.1


class OffsetNetwork(nn.Module):
    """Predicts offsets from (warped reference, current, flow).

    The last layer starts at zero, so that training starts from the flow itself.

    Args:
        body: maps (n, 2 c + 2, h, w) to the offsets' channels; ends with a convolution.
        max_offset: the largest offset that :meth:`bounded` returns, in pixels.
    """

    def __init__(self, body: nn.Sequential, *, max_offset: float) -> None:
        super().__init__()
        if not max_offset > 0:
            raise ValueError(f"max_offset must be positive, got {max_offset}")
        self.body = body
        self.max_offset = max_offset
        nn.init.zeros_(self.body[-1].weight)
        nn.init.zeros_(self.body[-1].bias)

    def forward(self, warped: Tensor, current: Tensor, flow: Tensor) -> Tensor:
        """Returns the raw prediction for (n, c, h, w), (n, c, h, w), (n, 2, h, w)."""
        dtype = torch.promote_types(warped.dtype, current.dtype)
        return self.body(torch.cat((warped, current, flow.to(dtype)), 1))

    def bounded(self, raw: Tensor) -> Tensor:
        """Turns raw predictions into offsets of at most ``max_offset`` pixels."""
        return self.max_offset * raw.tanh()


def convolutions(widths: tuple[int, ...], kernel_sizes: tuple[int, ...]) -> nn.Sequential:
    """Convolutions of these widths that keep the frame's size, with leaky ReLUs between them."""
    layers: list[nn.Module] = []
    for c_in, c_out, size in zip(widths[:-1], widths[1:], kernel_sizes, strict=True):
        layers += [nn.LeakyReLU(NEGATIVE_SLOPE)] if layers else []
        layers.append(nn.Conv2d(c_in, c_out, size, padding=size // 2))
    return nn.Sequential(*layers)


def groups_of(channels: int, groups: int | None, most: int) -> int:
    """The number of groups asked for, or the largest divisor of ``channels`` up to ``most``.

    Raises:
        ValueError: if ``groups`` does not divide the channels.
    """
    if groups is None:
        return max(g for g in range(1, most + 1) if channels % g == 0)
    if groups < 1 or channels % groups:
        raise ValueError(f"groups must divide {channels} channels, got {groups}")
    return groups

"""Flow-guided deformable convolution (FGDC, 'FGDC' of Table 1).

This is modulated deformable convolution (Zhu et al., CVPR 2019) with offsets that are added to the
optical flow, as in BasicVSR++ (Chan et al., CVPR 2022). The convolution is torchvision's.
"""

import torch
from torch import Tensor, nn

from iart_plugin.ops.aligner import Alignment
from iart_plugin.ops.precision import full_precision, wide_dtype
from iart_plugin.ops.warp import check_flow, warp, without_nan

from .offsets import OffsetNetwork, convolutions, groups_of

KERNEL_SIZE = 3
POINTS = KERNEL_SIZE**2
MAX_GROUPS = 6


class DeformableConvAlignment(Alignment):
    """Aligns by a 3 x 3 convolution that samples where the flow and a learnt offset point.

    Four 3 x 3 convolutions compute offsets and modulation from (warped reference, current, flow).
    An offset is the flow plus at most ``max_offset`` pixels in each direction. Sampling is
    bilinear, with zeros outside the frame.

    Args:
        channels: C, the width of both features.
        num_groups: groups of channels, each with its own offsets; by default the largest divisor
            of ``channels`` up to 6.
        hidden_channels: width of the offset network, ``channels`` by default.
        max_offset: largest offset from the flow in pixels.

    Raises:
        ValueError: if ``num_groups`` does not divide ``channels``.
    """

    OPTIONS = ("num_groups", "hidden_channels", "max_offset")
    takes_channels = True
    uses_current = True

    def __init__(
        self,
        channels: int,
        *,
        num_groups: int | None = None,
        hidden_channels: int | None = None,
        max_offset: float = 10.0,
    ) -> None:
        super().__init__()
        self.num_groups = groups_of(channels, num_groups, MAX_GROUPS)
        self.hidden_channels = hidden = hidden_channels or channels
        self.max_offset = max_offset
        # Two offsets and one modulation for every point of every group.
        widths = (2 * channels + 2, hidden, hidden, hidden, 3 * POINTS * self.num_groups)
        self.offsets = OffsetNetwork(convolutions(widths, (3, 3, 3, 3)), max_offset=max_offset)
        self.weight = nn.Parameter(torch.empty(channels, channels, KERNEL_SIZE, KERNEL_SIZE))
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def extra_repr(self) -> str:
        """The options that are shown when the module is printed."""
        return f"num_groups={self.num_groups}"

    def align(self, projected: Tensor, current: Tensor, flow: Tensor) -> Tensor:
        """Convolves at the offset positions; see :class:`Alignment` for the shapes."""
        from torchvision.ops import deform_conv2d  # imported late, as it may not be installed

        check_flow(projected, flow)
        raw = self.offsets(warp(projected, flow), current, flow)
        count = self.num_groups * POINTS
        residue, modulation = raw.split([2 * count, count], 1)
        dtype = wide_dtype(projected, flow)
        with full_precision(flow.device):
            # torchvision wants y then x, point after point.
            guide = flow.to(dtype).flip(1).repeat(1, count, 1, 1)
            offsets, unknown = without_nan(guide + self.offsets.bounded(residue.to(dtype)))
            out = deform_conv2d(
                projected.to(dtype),
                offsets,
                self.weight.to(dtype),
                self.bias.to(dtype),
                padding=KERNEL_SIZE // 2,
                mask=modulation.to(dtype).sigmoid(),
            )
        if unknown is not None:
            out = out.masked_fill(unknown, torch.nan)
        return out.to(projected.dtype)

"""Patch alignment (PA; Shi et al. 2022, the PSRT paper) moves whole patches by whole pixels."""

import torch.nn.functional as F
from torch import Tensor

from iart_plugin.ops.aligner import Alignment
from iart_plugin.ops.precision import wide_dtype
from iart_plugin.ops.warp import check_flow, warp


class PatchAlignment(Alignment):
    """Moves every patch by its mean flow, rounded to whole pixels.

    Args:
        patch_size: side of a patch. Patches cut by the right or bottom border average over the
            pixels that exist.

    Raises:
        ValueError: if ``patch_size`` is not positive.
    """

    OPTIONS = ("patch_size",)

    def __init__(self, *, patch_size: int = 8) -> None:
        super().__init__()
        if patch_size < 1:
            raise ValueError(f"patch_size must be at least 1, got {patch_size}")
        self.patch_size = patch_size

    def extra_repr(self) -> str:
        """The options that are shown when the module is printed."""
        return f"patch_size={self.patch_size}"

    def align(self, projected: Tensor, current: Tensor | None, flow: Tensor) -> Tensor:
        """Moves whole patches by their mean flow; see :class:`Alignment` for the shapes."""
        check_flow(projected, flow)
        height, width = flow.shape[-2:]
        size = self.patch_size
        right, bottom = -width % size, -height % size
        flow = flow.to(wide_dtype(flow))
        total = F.avg_pool2d(F.pad(flow, (0, right, 0, bottom)), size)
        share = F.avg_pool2d(F.pad(flow.new_ones(1, 1, height, width), (0, right, 0, bottom)), size)
        # Rounded here, because rounding in the sampling could split a patch at a tie.
        patch_flow = (total / share).round()
        patch_flow = patch_flow.repeat_interleave(size, -2).repeat_interleave(size, -1)
        return warp(projected, patch_flow[..., :height, :width], mode="nearest")

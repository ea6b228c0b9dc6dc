"""Warping by optical flow with an explicit resampling ('OF Warp' of Table 1; Sec. 3.2)."""

from torch import Tensor

from iart_plugin.ops.aligner import Alignment
from iart_plugin.ops.warp import MODES, PADDINGS, warp


class FlowWarp(Alignment):
    """Samples the reference at the flow's positions.

    Args:
        mode: 'nearest', 'bilinear' or 'bicubic'.
        padding: 'zeros' or 'border' outside the frame. BasicVSR's weights were trained with zeros.

    Raises:
        ValueError: if a name is unknown.
    """

    OPTIONS = ("mode", "padding")

    def __init__(self, *, mode: str = "bilinear", padding: str = "zeros") -> None:
        super().__init__()
        if mode not in MODES or padding not in PADDINGS:
            raise ValueError(
                f"mode must be one of {MODES} and padding one of {PADDINGS}, "
                f"got {mode!r} and {padding!r}"
            )
        self.mode = mode
        self.padding = padding

    def extra_repr(self) -> str:
        """The options that are shown when the module is printed."""
        return f"mode={self.mode!r}, padding={self.padding!r}"

    def align(self, projected: Tensor, current: Tensor | None, flow: Tensor) -> Tensor:
        """Samples along the flow; see :class:`Alignment` for the shapes."""
        return warp(projected, flow, mode=self.mode, padding=self.padding)

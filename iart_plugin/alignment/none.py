"""No alignment: the reference as it is ('w/o Align.' of Fig. 3)."""

from torch import Tensor

from iart_plugin.ops.aligner import Alignment
from iart_plugin.ops.warp import check_flow


class NoAlignment(Alignment):
    """Returns the reference unchanged; the flow is checked and ignored."""

    def align(self, projected: Tensor, current: Tensor | None, flow: Tensor) -> Tensor:
        """Returns the reference; see :class:`Alignment` for the shapes."""
        check_flow(projected, flow)
        return projected

"""What every aligner shares: one interface, and the slots that a network may fill once a frame."""

from typing import Any, ClassVar

from torch import Tensor, nn


class Alignment(nn.Module):
    """Base of the aligners: ``forward(reference, current, flow) -> aligned``.

    Shapes are (n, c, h, w), (n, c, h, w), (n, 2, h, w) -> (n, c, h, w); flow is in pixels, x then
    y, and maps the current frame to the reference. A network that uses a reference several times
    calls :meth:`project_reference` once and :meth:`align` on what it returned. Subclasses
    implement :meth:`align`; those with work that depends on the reference alone implement
    :meth:`project_reference` too.
    """

    OPTIONS: ClassVar[tuple[str, ...]] = ()
    """The names of the constructor's options; each is kept in an attribute of that name."""

    takes_channels: ClassVar[bool] = False
    """Whether the constructor's first argument is the width of the features."""

    uses_current = False
    """Whether ``align`` reads the current frame's features; networks skip what nobody reads."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, reference: Tensor, current: Tensor | None, flow: Tensor) -> Tensor:
        """Aligns the reference to the current frame."""
        return self.align(self.project_reference(reference), current, flow)

    def settings(self) -> dict[str, Any]:
        """What the constructor's options came to: all that decides what this aligner computes."""
        names = [name for name in self.OPTIONS if name != "check_finite"]  # changes no number
        return {name: getattr(self, name) for name in names}

    def project_reference(self, x: Tensor) -> Any:
        """Does the work that depends on the reference alone: here, nothing."""
        return x

    def align(self, projected: Any, current: Tensor | None, flow: Tensor) -> Tensor:
        """Aligns what :meth:`project_reference` returned to ``current``."""
        raise NotImplementedError

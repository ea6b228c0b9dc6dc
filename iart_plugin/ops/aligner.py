"""The interface that every aligner has, which lets a network reuse work on a reference frame."""

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn


class Alignment(nn.Module):
    """Base of the aligners: ``forward(reference, current, flow) -> aligned``.

    Shapes are (n, c, h, w), (n, c, h, w), (n, 2, h, w) -> (n, c, h, w); flow is in pixels, x then
    y, and maps the current frame to the reference. A network that uses a reference several times
    projects it once, by what :meth:`projector` returns, and calls :meth:`align` on the result each
    time. Subclasses implement :meth:`align`, and also :meth:`project_reference` if some of their
    work depends on the reference alone.
    """

    OPTIONS: ClassVar[tuple[str, ...]] = ()
    """The names of the constructor's options; each is kept in an attribute of that name."""

    takes_channels: ClassVar[bool] = False
    """Whether the constructor's first argument is the width of the features."""

    uses_current = False
    """Whether ``align`` reads the current frame's features; if not, networks need not make them."""

    def __init__(self) -> None:
        super().__init__()

    def forward(
        self,
        reference: Tensor,
        current: Tensor | None,
        flow: Tensor,
        project: Callable[[Tensor], Any] | None = None,
    ) -> Tensor:
        """Aligns the reference to the current frame; ``project`` comes from :meth:`projector`."""
        return self.align((project or self.project_reference)(reference), current, flow)

    def settings(self) -> dict[str, Any]:
        """The constructor's options, defaults included, that decide what this aligner computes."""
        names = [name for name in self.OPTIONS if name != "check_finite"]  # does not change results
        return {name: getattr(self, name) for name in names}

    def project_reference(self, x: Tensor) -> Any:
        """Does the work that depends on the reference alone; the base class returns ``x`` as is."""
        return x

    def projector(self) -> Callable[[Tensor], Any]:
        """Returns :meth:`project_reference` for use until the weights change.

        Subclasses may do here, once, what depends on the weights alone.
        """
        return self.project_reference

    def align(self, projected: Any, current: Tensor | None, flow: Tensor) -> Tensor:
        """Aligns a reference that :meth:`project_reference` returned to ``current``."""
        raise NotImplementedError

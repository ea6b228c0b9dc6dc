"""The aligners of Table 1 behind one interface, selectable by name."""

import inspect
from collections.abc import Callable

from torch import nn

from iart_plugin.ops import ImplicitAlignment

from .base import Alignment
from .deformable_attention import DeformableAttentionAlignment
from .deformable_conv import DeformableConvAlignment
from .flow_warp import FlowWarp
from .none import NoAlignment
from .patch import PatchAlignment

ALIGNMENTS: dict[str, Callable[..., nn.Module]] = {
    "none": NoAlignment,
    "flow_warp": FlowWarp,
    "patch": PatchAlignment,
    "deformable_conv": DeformableConvAlignment,
    "deformable_attention": DeformableAttentionAlignment,
    "implicit": ImplicitAlignment,
}
"""Every aligner by the name that options and configs use."""


def build_alignment(name: str, channels: int, **options) -> nn.Module:
    """Builds an aligner by name.

    Args:
        name: a key of :data:`ALIGNMENTS`.
        channels: the width of the features; aligners that do not depend on it ignore it.
        options: the aligner's own keyword arguments.

    Returns:
        A module with ``forward(reference, current, flow)``, see :class:`Alignment`.

    Raises:
        ValueError: if the name or an option is unknown, or a required option is missing.
    """
    if name not in ALIGNMENTS:
        raise ValueError(f"unknown alignment {name!r}: choose one of {', '.join(ALIGNMENTS)}")
    cls = ALIGNMENTS[name]
    parameters = inspect.signature(cls).parameters
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    known = [key for key, p in parameters.items() if key != "channels" and p.kind in named]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(
            f"alignment {name!r} has no option {', '.join(unknown)}; "
            f"it takes {', '.join(known) or 'none'}"
        )
    if "channels" in parameters:
        options["channels"] = channels
    try:
        return cls(**options)
    except TypeError as error:
        raise ValueError(f"alignment {name!r}: {error}") from error


__all__ = [
    "ALIGNMENTS",
    "Alignment",
    "DeformableAttentionAlignment",
    "DeformableConvAlignment",
    "FlowWarp",
    "ImplicitAlignment",
    "NoAlignment",
    "PatchAlignment",
    "build_alignment",
]

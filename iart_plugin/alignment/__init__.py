"""The aligners of Table 1 behind one interface, selectable by name."""

from iart_plugin.ops import ImplicitAlignment
from iart_plugin.ops.aligner import Alignment

from .deformable_attention import DeformableAttentionAlignment
from .deformable_conv import DeformableConvAlignment
from .flow_warp import FlowWarp
from .none import NoAlignment
from .patch import PatchAlignment

ALIGNMENTS: dict[str, type[Alignment]] = {
    "none": NoAlignment,
    "flow_warp": FlowWarp,
    "patch": PatchAlignment,
    "deformable_conv": DeformableConvAlignment,
    "deformable_attention": DeformableAttentionAlignment,
    "implicit": ImplicitAlignment,
}
"""Every aligner by the name that options and configs use."""


def build_alignment(name: str, channels: int, **options) -> Alignment:
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
    unknown = sorted(set(options) - set(cls.OPTIONS))
    if unknown:
        raise ValueError(
            f"alignment {name!r} has no option {', '.join(unknown)}; "
            f"it takes {', '.join(cls.OPTIONS) or 'none'}"
        )
    try:
        return cls(channels, **options) if cls.takes_channels else cls(**options)
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

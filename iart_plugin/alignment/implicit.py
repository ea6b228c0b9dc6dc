"""Implicit alignment ('IA' of Table 1), the operator of this package as an aligner."""

from typing import Any

from iart_plugin.ops import ImplicitAlignment as ImplicitAlignmentOp

from .base import Alignment


class ImplicitAlignment(ImplicitAlignmentOp, Alignment):
    """The operator behind the interface of the aligners; all else is its own."""

    OPTIONS = (
        "num_heads",
        "window_size",
        "encode_window",
        "encode_decimal",
        "position_channels",
        "padding_mode",
        "check_finite",
    )
    takes_channels = True
    uses_current = True

    def settings(self) -> dict[str, Any]:
        """As for every aligner, without ``check_finite``, which changes no number."""
        settings = super().settings()
        del settings["check_finite"]
        return settings

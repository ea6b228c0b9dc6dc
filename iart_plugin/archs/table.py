"""Fills the table of architectures, with one line for each file that describes networks."""

from . import alignment_study, ia_cnn, ia_rt, real_world
from .architecture import ARCHITECTURES, Architecture, has_prefix, register

__all__ = ["ARCHITECTURES"]

SPYNET = Architecture(  # a part of the other networks' checkpoints, and a file of its own
    name="SPyNet",
    title="SPyNet",
    matches=lambda sizes: has_prefix(sizes, "basic_module."),
    buildable=False,
)

register(
    *ia_rt.ROWS,
    *ia_cnn.ROWS,
    *real_world.ROWS,
    *alignment_study.ROWS,
    SPYNET,
)

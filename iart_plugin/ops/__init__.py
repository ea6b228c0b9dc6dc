"""The paper's operations without any framework: implicit alignment, its encoding, warping."""

from .implicit_alignment import ImplicitAlignment, ProjectedReference
from .positional_encoding import sinusoidal_encoding
from .warp import pixel_grid, warp

__all__ = [
    "ImplicitAlignment",
    "ProjectedReference",
    "pixel_grid",
    "sinusoidal_encoding",
    "warp",
]

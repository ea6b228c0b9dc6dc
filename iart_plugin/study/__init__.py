"""The paper's alignment study (Sec. 5): its rows, training them at CPU scale, and the report."""

from .rows import FLOWS, ROWS, Row, experiments, rows_of
from .scale import CPU_SCALE, PAPER_SCALE, Scale

__all__ = ["CPU_SCALE", "FLOWS", "PAPER_SCALE", "ROWS", "Row", "Scale", "experiments", "rows_of"]

"""The paper's alignment study (Sec. 5): its rows, a CPU-scale run of them, and the report."""

from .rows import FLOWS, PAPER_SCALE, ROWS, Row, experiments, rows_of

__all__ = ["FLOWS", "PAPER_SCALE", "ROWS", "Row", "experiments", "rows_of"]

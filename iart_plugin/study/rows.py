"""Every row of the study. The commands, the CPU-scale study and its report are built from these.

Table 1 compares aligners of features under three flows, Fig. 3 adds the alignment of images and
the two baselines, Table 3 switches the positional encodings off and Table 4 widens the window.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

FLOWS = ("gt", "raft", "spynet")
FLOW_LABELS = {"gt": "GT", "raft": "RAFT", "spynet": "SPyNet"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the study.

    Attributes:
        key: Name in file names and on the command line.
        label: Name in tables.
        tables: Where the paper shows it: 'Table 1', 'Fig. 3', 'Table 3', 'Table 4'.
        network: Keyword arguments of ``AlignmentStudyNet`` beside those that the scale decides.
        flows: Flows for which the paper reports it; a row that reads no flow needs only one.
        paper: The paper's PSNR on Sintel in dB by flow, where the paper prints a number.
        bilinear_values: Whether the value projection of implicit alignment first passes features
            through unchanged, as :func:`iart_plugin.archs.warm_start.set_bilinear` makes it,
            instead of starting at random.
        rate_of: The key of the row whose learning rate this one takes, or '' for a rate of its own.
            Variants of implicit alignment take its rate.
    """

    key: str
    label: str
    tables: tuple[str, ...]
    network: dict[str, Any]
    flows: tuple[str, ...] = FLOWS
    paper: dict[str, float] = field(default_factory=dict)
    bilinear_values: bool = False
    rate_of: str = ""

    @property
    def reads_flow(self) -> bool:
        """Whether its results depend on the flow."""
        return self.network["alignment"] not in (None, "none")


def _table_1(
    key: str, label: str, alignment: str, *paper: float, tables: Sequence[str] = (), **options
) -> Row:
    network = {"alignment": alignment}
    if options:
        network["alignment_options"] = options
    return Row(
        key=key,
        label=label,
        tables=("Table 1", *tables),
        network=network,
        paper=dict(zip(FLOWS, paper, strict=True)),
    )


def _image(mode: str) -> Row:
    return Row(
        key=f"image_{mode}",
        label=f"image, {mode}",
        tables=("Fig. 3",),
        network={
            "alignment": "flow_warp",
            "align": "images",
            "alignment_options": {"mode": mode},
        },
    )


def _encodings(key: str, label: str, window: bool, decimal: bool) -> Row:
    return Row(
        key=key,
        label=label,
        tables=("Table 3",),
        network={
            "alignment": "implicit",
            "alignment_options": {"encode_window": window, "encode_decimal": decimal},
        },
        flows=("gt",),
        rate_of="implicit",
    )


def _window(size: int, gt: float, spynet: float) -> Row:
    return Row(
        key=f"implicit_window_{size}",
        label=f"IA, window {size}x{size}",
        tables=("Table 4",),
        network={"alignment": "implicit", "alignment_options": {"window_size": size}},
        flows=("gt", "spynet"),
        paper={"gt": gt, "spynet": spynet},
        rate_of="implicit",
    )


ROWS: dict[str, Row] = {
    row.key: row
    for row in (
        Row(
            key="no_propagation",
            label="w/o Prop.",
            tables=("Fig. 3",),
            network={"alignment": None},
            flows=("gt",),
        ),
        Row(
            key="no_alignment",
            label="w/o Align.",
            tables=("Fig. 3",),
            network={"alignment": "none"},
            flows=("gt",),
        ),
        _table_1(
            "nearest", "OF warp, nearest", "flow_warp", 31.84, 31.87, 31.78,
            tables=("Fig. 3",), mode="nearest",
        ),
        _table_1(
            "bilinear", "OF warp, bilinear", "flow_warp", 31.92, 31.87, 31.85,
            tables=("Fig. 3",), mode="bilinear",
        ),
        _table_1(
            "bicubic", "OF warp, bicubic", "flow_warp", 31.93, 31.90, 31.89,
            tables=("Fig. 3",), mode="bicubic",
        ),
        _table_1("fgdc", "FGDC", "deformable_conv", 32.08, 31.99, 31.98),
        _table_1("fgda", "FGDA", "deformable_attention", 32.03, 31.91, 31.94),
        _table_1("patch", "PA", "patch", 31.81, 31.85, 31.82),
        _table_1(
            "implicit", "IA", "implicit", 32.14, 32.03, 32.05,
            tables=("Fig. 3", "Table 3", "Table 4"),
        ),
        # This row is not in the paper. Warping starts from the features themselves, but implicit
        # alignment starts from a random projection of them; here it starts from the features too.
        Row(
            key="implicit_bilinear_values",
            label="IA, values start as features",
            tables=(),
            network={"alignment": "implicit", "alignment_options": {"position_channels": 16}},
            flows=(),
            bilinear_values=True,
        ),
        _image("nearest"),
        _image("bilinear"),
        _image("bicubic"),
        _encodings("implicit_no_encoding", "IA, no encoding", False, False),
        _encodings("implicit_decimal_only", "IA, encoding of decimals only", False, True),
        _encodings("implicit_window_only", "IA, encoding of the window only", True, False),
        _window(3, 32.06, 31.95),
        _window(4, 32.05, 31.96),
    )
}  # fmt: skip
"""Table 4 gives the 2x2 window 32.06 and 31.97 dB where Table 1 gives the same module 32.14 and
32.05. The two tables come from different trainings, so compare numbers within one table only."""


def rows_of(tables: Sequence[str]) -> list[Row]:
    """The rows that appear in any of these tables, in the order of :data:`ROWS`."""
    return [row for row in ROWS.values() if set(row.tables) & set(tables)]


def experiments() -> Iterator[tuple[Row, str]]:
    """Every row with each of the flows for which the paper reports it."""
    for row in ROWS.values():
        for flow in row.flows:
            yield row, flow

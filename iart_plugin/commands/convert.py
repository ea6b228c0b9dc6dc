"""``iart-plugin convert``: rewrites a checkpoint for another program, without any rounding."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

from iart_plugin.archs.conversion import LAYOUTS, SINGLE_SET, read_weights, write_weights
from iart_plugin.commands.console import fail

EXAMPLES = """\
The input is recognised by its keys. A round trip gives the same bits.

  iart-plugin convert IART.pth iart.safetensors --to safetensors
  iart-plugin convert net_g_300000.pth ia-cnn.pth --to mmagic
"""


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of ``convert``."""
    parser = argparse.ArgumentParser(
        prog="iart-plugin convert",
        description="Convert a checkpoint among the released IART program, BasicSR, MMagic and "
        "safetensors.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input", help="a .pth or .safetensors file of any of the layouts")
    parser.add_argument("output", help="the file to write")
    parser.add_argument("--to", choices=LAYOUTS, required=True, help="the output's layout")
    parser.add_argument(
        "--only",
        choices=("trained", "averaged"),
        help="take this set of weights alone (default: both; the averaged one where one fits)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return the exit code."""
    args = build_parser().parse_args(argv)
    try:
        print(convert(args.input, args.output, to=args.to, only=args.only))
    except (OSError, RuntimeError, ValueError) as error:
        return fail(error)
    return 0


def convert(source: str, target: str, *, to: str, only: str | None = None) -> str:
    """Convert a checkpoint file.

    Args:
        source: The file to read.
        target: The file to write.
        to: One of the layouts of :mod:`iart_plugin.archs.conversion`.
        only: "trained" or "averaged" writes only these weights; None writes all.

    Returns:
        A line that says what was written.

    Raises:
        ValueError: The file is not recognised, does not hold the wanted weights or does not fit
            the layout.
    """
    weights = read_weights(source)
    if only:
        if getattr(weights, only) is None:
            raise ValueError(f"{source} holds no {only} weights")
        other = {"trained": "averaged", "averaged": "trained"}[only]
        weights = replace(weights, **{other: None})
    write_weights(weights, target, to)
    sets = [name for name in ("trained", "averaged") if getattr(weights, name) is not None]
    if to in SINGLE_SET:
        sets = sets[-1:]
    return f"{target}: {weights.recognised}, {' and '.join(sets)} weights, {to} layout"

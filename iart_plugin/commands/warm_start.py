"""``iart-plugin warm-start``: makes an IA-CNN from a BasicVSR, a RealIACNN from a RealBasicVSR."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from iart_plugin.archs import load_ia_cnn, save_checkpoint
from iart_plugin.commands.console import fail

DESCRIPTION = """\
Make an IA-CNN checkpoint out of a BasicVSR checkpoint, with trained weights or without. Out of a
RealBasicVSR checkpoint it makes a RealIACNN.

  iart-plugin warm-start BASICVSR.pth ia_cnn.pth
  iart-plugin warm-start BASICVSR.pth ia_cnn.pth --adapter ADAPTER.safetensors

An adapter holds what a training changed; tools/make_adapter.py writes one. Without an adapter, the
weights of the implicit alignment are computed so that it resamples as BasicVSR's bilinear warping
does. Such a network has the options that the option files name:
alignment_options: {position_channels: 16, padding_mode: zeros}.
"""


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of ``warm-start``."""
    parser = argparse.ArgumentParser(
        prog="iart-plugin warm-start",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("basicvsr", help="a BasicVSR checkpoint in BasicSR's or MMagic's layout")
    parser.add_argument(
        "output", help="the IA-CNN: .pth, which BasicSR reads (entry params), or .safetensors"
    )
    parser.add_argument("--adapter", default="warm-start", help="trained weights to add")
    parser.add_argument(
        "--window-size",
        type=int,
        default=2,
        metavar="N",
        help="side of the alignment's window without an adapter, 2, 3 or 4 (default 2)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return the exit code."""
    args = build_parser().parse_args(argv)
    try:
        network = load_ia_cnn(args.adapter, args.basicvsr, window_size=args.window_size)
        save_checkpoint(network, args.output)
    except (OSError, RuntimeError, ValueError) as error:
        return fail(error)
    name = type(network).__name__
    print(f"{args.output}: {name}, {sum(p.numel() for p in network.parameters()):,} parameters")
    return 0

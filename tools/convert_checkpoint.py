"""Converts a checkpoint among the released IART program, BasicSR, MMagic and safetensors.

The input is recognised from its keys. Nothing is rounded: a round trip gives the same bits.

    python tools/convert_checkpoint.py IART.pth iart.safetensors --to safetensors
    python tools/convert_checkpoint.py net_g_300000.pth ia-cnn.pth --to mmagic
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from iart_plugin.archs.conversion import LAYOUTS, SINGLE_SET, read_weights, write_weights


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", help="a .pth or .safetensors file of any of the layouts")
    parser.add_argument("output", help="the file to write")
    parser.add_argument("--to", choices=LAYOUTS, required=True, help="the output's layout")
    parser.add_argument(
        "--only",
        choices=("trained", "averaged"),
        help="take this set of weights alone (default: both; the averaged one where one fits)",
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    weights = read_weights(args.input)
    if args.only:
        if getattr(weights, args.only) is None:
            raise SystemExit(f"{args.input} holds no {args.only} weights")
        other = {"trained": "averaged", "averaged": "trained"}[args.only]
        weights = replace(weights, **{other: None})
    write_weights(weights, args.output, args.to)
    sets = [name for name in ("trained", "averaged") if getattr(weights, name) is not None]
    if args.to in SINGLE_SET:
        sets = sets[-1:]
    print(f"{args.output}: {weights.recognised}, {' and '.join(sets)} weights, {args.to} layout")


if __name__ == "__main__":
    main()

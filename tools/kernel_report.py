#!/usr/bin/env python3
"""Compiles every GPU kernel for every kind of card, on a machine that needs none.

    python tools/kernel_report.py [--only TEXT] [--cards 80 86 89 90]

Prints a table of each kernel's registers, spilled bytes and shared memory at the sizes of the
networks that are shipped, as ptxas, which comes inside the triton package, tells them. Exits with 1
if a kernel spills, or wants more shared memory than the card has.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from iart_plugin.kernels.report import CARDS, report


def main() -> int:
    """Prints the table; returns 1 if a kernel does not fit a card, else 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="kernels whose name has this text in it")
    parser.add_argument("--cards", type=int, nargs="+", choices=CARDS, default=list(CARDS))
    args = parser.parse_args()
    print(
        "| kernel | card | warps | registers | spilled | shared memory |\n|---|---|---|---|---|---|"
    )
    is_bad = False
    for line in report(args.only, args.cards):
        print(line, flush=True)
        is_bad |= line.problem is not None
    return int(is_bad)


if __name__ == "__main__":
    sys.exit(main())

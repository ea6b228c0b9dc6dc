"""Prepare the septuplets of Vimeo-90K for training and testing at scale 4.

    iart-plugin prepare-vimeo90k DOWNLOAD [--output datasets/vimeo90k] [--degradation BI]

DOWNLOAD is the unzipped vimeo_septuplet with sequences, sep_trainlist.txt and sep_testlist.txt. The
command writes below --output:

    GT                                          a link to sequences
    BIx4, BDx4 or BD-13tapx4                    the low-resolution frames
    meta_info_Vimeo90K_train_GT.txt, meta_info_Vimeo90K_test_GT.txt

BI is MATLAB-style bicubic. BD is the Gaussian blur of the released test sets: 12 x 12 with sigma
1.6, after which rows and columns 2, 6, 10, … are taken, counted from 1. BD-13tap is the Gaussian
blur of the papers: 13 taps, then rows and columns 1, 5, 9, …. A network that was trained for one of
them loses over 10 dB on the other. --lmdb also puts the training folders into databases. Existing
files are kept, so the command can be interrupted and repeated.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from iart_plugin.commands.console import command_parser, one_line_errors
from iart_plugin.data import preparation

PARTS = {"train": "sep_trainlist.txt", "test": "sep_testlist.txt"}


def prepare(args: argparse.Namespace) -> None:
    """Prepare Vimeo-90K as the arguments ask for."""
    if not (args.download / "sequences").is_dir():
        raise FileNotFoundError(f"{args.download} holds no folder 'sequences'")
    gt, lq = args.output / "GT", args.output / f"{args.degradation}x4"
    preparation.link_folder(args.download / "sequences", gt)
    for part, file in PARTS.items():
        if not (args.download / file).is_file():
            raise FileNotFoundError(f"{args.download / file} is missing")
        clips = (args.download / file).read_text().split()
        preparation.complete_tree(gt, lq, clips, args.degradation, workers=args.workers)
        preparation.write_meta(args.output / f"meta_info_Vimeo90K_{part}_GT.txt", clips, gt)
        if args.lmdb and part == "train":  # BasicSR's test sets read folders only
            for tree in (gt, lq):
                name = f"vimeo90k_train_{tree.name}.lmdb"
                preparation.make_lmdb(tree, args.output / name, clips)


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = command_parser("prepare-vimeo90k", __doc__)
    parser.add_argument("download", type=Path)
    parser.add_argument("--output", type=Path, default=Path("datasets/vimeo90k"))
    parser.add_argument("--degradation", choices=list(preparation.DEGRADATIONS), default="BI")
    parser.add_argument("--lmdb", action="store_true", help="also put the trees into databases")
    parser.add_argument("--workers", type=int, default=None, help="processes; all processors")
    prepare(parser.parse_args(argv))
    return 0

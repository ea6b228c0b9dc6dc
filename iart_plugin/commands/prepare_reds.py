"""Prepare REDS for training and testing at scale 4.

    iart-plugin prepare-reds DOWNLOAD [--output datasets/REDS] [--degradation BI] [--lmdb]

DOWNLOAD holds the unzipped train_sharp and val_sharp, as REDS' archives unpack, at any depth. If
train_sharp_bicubic and val_sharp_bicubic are there, they are used; otherwise the bicubic frames are
made. The command writes below --output, with links where possible:

    train_sharp_with_val/000..269               the 30 validation clips become 240..269
    train_sharp_bicubic_with_val/X4/000..269    (BD: train_sharp_BD_with_val/X4)
    meta_info_REDS_GT.txt, meta_info_REDS4_test_GT.txt          BasicSR
    meta_info_reds4_train.txt, meta_info_reds4_val.txt          MMagic, with links train_sharp and
    train_sharp, train_sharp_bicubic                            train_sharp_bicubic

Beside --output it writes REDS4/GT and REDS4/sharp_bicubic, which are clips 000, 011, 015 and 020.
Existing files are kept, so the command can be interrupted and repeated. If the download is --output
itself, as in MMagic's layout, its train_sharp is not changed, and MMagic's lists name only the
clips in it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from iart_plugin.commands.console import command_parser, one_line_errors
from iart_plugin.data import preparation
from iart_plugin.data.preparation import REDS4

VALIDATION_OFFSET = 240


def find(args: argparse.Namespace, name: str) -> Path | None:
    """Find the folder of clips called ``name``, or the folder ``X4`` in it, at any depth.

    Links that this command has made are skipped, because the download may be in the output.
    """
    output = args.output.resolve()
    for folder in sorted(args.download.rglob(name)):
        if folder.is_symlink() and folder.resolve().is_relative_to(output):
            continue
        for clips in (folder / "X4", folder):
            if any(p.is_dir() and p.name.isdigit() for p in clips.glob("*")):
                return clips
    return None


def numbered(folder: Path) -> list[str]:
    """The names of a folder's clips, which are numbers, in order."""
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name.isdigit())


def regroup(train: Path, validation: Path | None, target: Path) -> list[str]:
    """Link the clips of both parts into ``target`` under BasicSR's numbers; return the numbers."""
    names = []
    for part, offset in ((train, 0), (validation, VALIDATION_OFFSET)):
        for clip in numbered(part) if part else ():
            name = f"{int(clip) + offset:03d}"
            preparation.link_folder(part / clip, target / name)
            names.append(name)
    return names


def prepare(args: argparse.Namespace) -> None:
    """Prepare REDS as the arguments ask for."""
    train = find(args, "train_sharp")
    if train is None:
        raise FileNotFoundError(f"{args.download} holds no folder train_sharp with numbered clips")
    validation = find(args, "val_sharp")
    if validation is None:
        print("val_sharp is not there: clips 240..269 are left out.", file=sys.stderr)
    gt = args.output / "train_sharp_with_val"
    clips = regroup(train, validation, gt)

    label = "bicubic" if args.degradation == "BI" else args.degradation
    lq = args.output / f"train_sharp_{label}_with_val" / "X4"
    ready = find(args, "train_sharp_bicubic") if label == "bicubic" else None
    if ready is not None:
        made = regroup(ready, find(args, "val_sharp_bicubic"), lq)
        print(f"{len(made)} low-resolution clips were downloaded, {len(clips) - len(made)} to make")
    preparation.complete_tree(gt, lq, clips, args.degradation, workers=args.workers)
    preparation.write_meta(args.output / "meta_info_REDS_GT.txt", clips, gt)
    held_out = [clip for clip in REDS4 if clip in clips]
    rest = [clip for clip in clips if clip not in REDS4]
    preparation.write_meta(args.output / "meta_info_REDS4_test_GT.txt", held_out, gt)
    reds4 = args.output.parent / "REDS4"
    for clip in held_out:
        preparation.link_folder(gt / clip, reds4 / "GT" / clip)
        preparation.link_folder(lq / clip, reds4 / f"sharp_{label}" / clip)
    for link, shown in (("train_sharp", gt), (f"train_sharp_{label}", lq.parent)):
        if not (args.output / link).exists():  # the download may lie in --output itself
            preparation.link_folder(shown, args.output / link)
    trees = (args.output / "train_sharp", args.output / f"train_sharp_{label}" / "X4")
    lacking = [clip for clip in clips if not all((tree / clip).is_dir() for tree in trees)]
    if lacking:
        print(
            f"{' or '.join(map(str, trees))} is your own and lacks {len(lacking)} clips, "
            f"{lacking[0]} the first: MMagic's lists leave them out.",
            file=sys.stderr,
        )
    for name, part in (("val", held_out), ("train", rest)):
        listed = [clip for clip in part if clip not in lacking]
        preparation.write_meta(args.output / f"meta_info_reds4_{name}.txt", listed, gt)
    if args.lmdb:
        for tree, name in ((gt, gt.name), (lq, lq.parent.name)):
            preparation.make_lmdb(tree, args.output / f"{name}.lmdb", clips)


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = command_parser("prepare-reds", __doc__)
    parser.add_argument("download", type=Path)
    parser.add_argument("--output", type=Path, default=Path("datasets/REDS"))
    parser.add_argument("--degradation", choices=list(preparation.DEGRADATIONS), default="BI")
    parser.add_argument("--lmdb", action="store_true", help="also put the trees into databases")
    parser.add_argument("--workers", type=int, default=None, help="processes; all processors")
    prepare(parser.parse_args(argv))
    return 0

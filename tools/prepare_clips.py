"""Prepare video files for training at scale 4 with BasicSR's REDS data sets.

    python tools/prepare_clips.py FOLDER --held-out NAME NAME NAME NAME [--output datasets/clips]

FOLDER holds videos. Each is shrunk with MATLAB's antialiased bicubic until its shorter side is
about --short-side pixels, so that its compression no longer shows, and becomes the ground truth;
the low resolution is MATLAB-style bicubic x4 of that. Clips are 100 frames, as BasicSR's REDS data
sets need; shorter videos are played back and forth. Written below --output:

    train/GT, train/BIx4        videos that are trained on, numbered as REDS' clips but REDS4's
    val/GT, val/BIx4            the start of the held-out videos, under REDS4's numbers
    meta_info_GT.txt            for BasicSR
    clips.txt                   which number is which video

Clips that are there already are kept, so the command can be interrupted and given again.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import numpy as np
from tqdm import tqdm

from iart_plugin.data import preparation
from iart_plugin.data.degradation import imresize
from iart_plugin.data.preparation import REDS4, REDS_CLIP_LENGTH

SCALE = 4
SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v")


def shrink(frame: np.ndarray, short_side: int) -> np.ndarray:
    """A frame whose shorter side is ``short_side`` at most, cropped to a multiple of 4."""
    factor = short_side / min(frame.shape[:2])
    frame = imresize(frame, factor) if factor < 1 else frame
    height, width = (size - size % SCALE for size in frame.shape[:2])
    return frame[:height, :width]


def assign(videos: list[Path], held_out: list[str]) -> Iterator[tuple[str, Path, bool]]:
    """Numbers of clips: (number, video, whether it is held out), in the videos' order.

    Raises:
        ValueError: if a name is of no video, or there are more held-out ones than REDS4's numbers.
    """
    stems = [video.stem for video in videos]
    unknown = [name for name in held_out if name not in stems]
    if unknown:
        raise ValueError(f"--held-out {unknown[0]}: no such video; there are {', '.join(stems)}")
    if len(held_out) > len(REDS4):
        raise ValueError(f"at most {len(REDS4)} videos can be held out, got {len(held_out)}")
    reserved = iter(REDS4)
    free = (f"{i:03d}" for i in count() if f"{i:03d}" not in REDS4)
    for video in videos:
        out = video.stem in held_out
        yield next(reserved if out else free), video, out


def write_clip(
    video: Path, root: Path, name: str, length: int, loop: bool, short_side: int
) -> None:
    """Write one clip's pairs of frames; one that is whole is kept as it is.

    Args:
        video: The source.
        root: Holds ``GT`` and ``BIx4``.
        name: The clip's number.
        length: Frames at most.
        loop: Whether a shorter video is played back and forth until it has ``length`` frames.
        short_side: See :func:`shrink`.
    """
    frames = preparation.decode(video, length)
    total = length if loop else len(frames)
    folders = [root / kind / name for kind in ("GT", f"BIx{SCALE}")]
    if all(len(list(folder.glob("*.png"))) == total for folder in folders):
        return
    for index, frame in enumerate(frames):
        preparation.write_pair(root, name, index, shrink(frame, short_side))
    for index in range(len(frames), total):
        source = preparation.back_and_forth(index, len(frames))
        for folder in folders:
            shutil.copy2(folder / f"{source:08d}.png", folder / f"{index:08d}.png")


def prepare(args: argparse.Namespace) -> None:
    """Do what the module says."""
    videos = sorted(p for p in args.folder.glob("*") if p.suffix.lower() in SUFFIXES)
    if not videos:
        raise ValueError(f"{args.folder} holds no videos ({', '.join(SUFFIXES)})")
    clips = list(assign(videos, args.held_out))
    if all(out for _, _, out in clips):
        raise ValueError("every video is held out, none is left to train on")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [
            pool.submit(
                write_clip,
                video,
                args.output / ("val" if out else "train"),
                name,
                args.validation_frames if out else REDS_CLIP_LENGTH,
                not out,
                args.short_side,
            )
            for name, video, out in clips
        ]
        for job in tqdm(jobs, unit="video"):
            job.result()
    trained = [name for name, _, out in clips if not out]
    preparation.write_meta(args.output / "meta_info_GT.txt", trained, args.output / "train/GT")
    lines = [f"{name} {video.name}{' held out' if out else ''}\n" for name, video, out in clips]
    (args.output / "clips.txt").write_text("".join(lines))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--held-out", nargs="*", default=[], metavar="NAME", help="without suffix")
    parser.add_argument("--output", type=Path, default=Path("datasets/clips"))
    parser.add_argument(
        "--short-side",
        type=int,
        default=272,
        help="pixels (default 272); at most half of the videos' own, or their compression shows",
    )
    parser.add_argument("--validation-frames", type=int, default=20, help="(default 20)")
    try:
        prepare(parser.parse_args(argv))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

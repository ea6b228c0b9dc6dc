"""Prepare video files for training at scale 4 with BasicSR's REDS data sets.

    iart-plugin prepare-clips FOLDER --held-out NAME NAME NAME NAME \
        [--output datasets/clips] [--photographs FOLDER --rendered 40]

FOLDER holds videos. Each is shrunk with MATLAB's antialiased bicubic until its shorter side is
about --short-side pixels, so that its compression no longer shows. That is the ground truth, and
the low resolution is its MATLAB-style bicubic reduction by 4. Clips have 100 frames, as BasicSR's
REDS data sets need them. Shorter videos are played back and forth.

Photographs add clips that are sharp to the last pixel: several photographs move over one another,
each with its own smooth motion, and are reduced in the same way. The command writes below --output:

    train/GT, train/BIx4        training clips, with the numbers of REDS' clips except REDS4's
    val/GT, val/BIx4            the start of the held-out videos, with REDS4's numbers
    meta_info_GT.txt            the list of clips for BasicSR
    clips.txt                   which video or rendered clip has which number
    recipe.json                 these numbers, and everything else that decides the clips

Existing clips are kept, so the command can be interrupted and repeated, also with a larger
--rendered. It is refused if another argument or another video would change an existing clip,
because a held-out video could then remain among the training clips.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from iart_plugin.commands.console import command_parser, one_line_errors
from iart_plugin.data import preparation
from iart_plugin.data.degradation import imresize
from iart_plugin.data.preparation import REDS4, REDS_CLIP_LENGTH
from iart_plugin.data.recipe import record_recipe
from iart_plugin.data.synthetic import random_clip

SCALE = 4
SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v")
PHOTOGRAPH_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")
RENDERED_FRAMES = 32  # these are played back and forth
RENDERED_SPEED = 8.0  # largest motion of a layer in pixels per frame
RENDERED_SAMPLES = 2  # samples per pixel and axis; photographs have few finer details


def shrink(frame: np.ndarray, short_side: int) -> np.ndarray:
    """A frame whose shorter side is ``short_side`` at most, cropped to a multiple of 4."""
    factor = short_side / min(frame.shape[:2])
    frame = imresize(frame, factor) if factor < 1 else frame
    height, width = (size - size % SCALE for size in frame.shape[:2])
    return frame[:height, :width]


class Clip(NamedTuple):
    """A clip to be written: its number, what it shows, and the function that gives its frames.

    ``size`` is the size of the video's file in bytes, and None for a rendered clip. ``length`` is
    the number of frames; a held-out video may have fewer.
    """

    number: str
    label: str
    size: int | None
    held_out: bool
    length: int
    make: Callable[[], list[np.ndarray]]


def video_frames(video: Path, length: int, short_side: int) -> list[np.ndarray]:
    """The first frames of a video, shrunk."""
    return [shrink(frame, short_side) for frame in preparation.decode(video, length)]


def rendered_frames(photographs: list[Path], seed: int, short_side: int) -> list[np.ndarray]:
    """A clip of photographs that move over one another, BGR, 16:9."""
    height, width = (size - size % SCALE for size in (short_side, short_side * 16 // 9))
    clip = random_clip(
        seed,
        num_frames=RENDERED_FRAMES,
        height=height,
        width=width,
        speed=RENDERED_SPEED,
        samples=RENDERED_SAMPLES,
        photographs=photographs,
    )
    return [np.ascontiguousarray(frame[..., ::-1]) for frame in clip.frames]


def write_clip(
    make: Callable[[], list[np.ndarray]], root: Path, name: str, length: int | None = None
) -> None:
    """Write the pairs of frames of one clip. A complete clip is kept as it is.

    Args:
        make: A function that returns the frames of the ground truth.
        root: The folder that holds ``GT`` and ``BIx4``.
        name: The clip's number.
        length: The number of frames. A shorter clip is played back and forth to reach it. None
            writes the frames that ``make`` returns.
    """
    folders = [root / kind / name for kind in ("GT", f"BIx{SCALE}")]
    present = [len(list(folder.glob("*.png"))) for folder in folders]
    if present == [length, length]:
        return  # before anything is decoded or rendered
    frames = make()
    total = length or len(frames)
    if present == [total, total]:
        return
    for index, frame in enumerate(frames):
        preparation.write_pair(root, name, index, frame)
    for index in range(len(frames), total):
        source = preparation.back_and_forth(index, len(frames))
        for folder in folders:
            shutil.copy2(folder / f"{source:08d}.png", folder / f"{index:08d}.png")


def find(folder: Path, suffixes: tuple[str, ...], what: str) -> list[Path]:
    """The files of a folder that have one of the suffixes.

    Raises:
        ValueError: if there is none.
    """
    files = sorted(p for p in folder.glob("*") if p.suffix.lower() in suffixes)
    if not files:
        raise ValueError(f"{folder} holds no {what} ({', '.join(suffixes)})")
    return files


def plan(args: argparse.Namespace) -> list[Clip]:
    """List all clips, the videos first and in their order.

    Raises:
        ValueError: if there are no videos or photographs, a held-out name is no video's, or more
            videos are held out than REDS4 has numbers.
    """
    videos = find(args.folder, SUFFIXES, "videos")
    stems = [video.stem for video in videos]
    unknown = [name for name in args.held_out if name not in stems]
    if unknown:
        raise ValueError(f"--held-out {unknown[0]}: no such video; there are {', '.join(stems)}")
    if len(args.held_out) > len(REDS4):
        raise ValueError(f"at most {len(REDS4)} videos can be held out, got {len(args.held_out)}")
    reserved = iter(REDS4)
    free = (f"{i:03d}" for i in count() if f"{i:03d}" not in REDS4)
    clips = []
    for video in videos:
        out = video.stem in args.held_out
        length = args.validation_frames if out else REDS_CLIP_LENGTH
        make = partial(video_frames, video, length, args.short_side)
        number = next(reserved if out else free)
        clips.append(Clip(number, video.name, video.stat().st_size, out, length, make))
    if args.photographs is not None:
        photographs = find(args.photographs, PHOTOGRAPH_SUFFIXES, "photographs")
        for seed in range(args.rendered):
            make = partial(rendered_frames, photographs, seed, args.short_side)
            label = f"rendered {seed}"
            clips.append(Clip(next(free), label, None, False, REDS_CLIP_LENGTH, make))
    if all(clip.held_out for clip in clips):
        raise ValueError("every video is held out, none is left to train on")
    return clips


def record(args: argparse.Namespace, clips: list[Clip]) -> None:
    """Record what the clips will be, before the first one is written.

    Raises:
        ValueError: if the output holds other clips, or clips without such a record.
    """
    recipe = {"short side": args.short_side}
    if args.photographs is not None:
        found = find(args.photographs, PHOTOGRAPH_SUFFIXES, "photographs")
        recipe["photographs"] = {path.name: path.stat().st_size for path in found}
    for clip in clips:
        recipe[clip.number] = {
            "made of": clip.label,
            "bytes": clip.size,
            "held out": clip.held_out,
            "frames": clip.length,
        }
    record_recipe(args.output, recipe, files="*/GT/*", grows=True)


def prepare(args: argparse.Namespace) -> None:
    """Prepare the clips that the arguments ask for."""
    clips = plan(args)
    record(args, clips)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [
            pool.submit(
                write_clip,
                clip.make,
                args.output / ("val" if clip.held_out else "train"),
                clip.number,
                None if clip.held_out else clip.length,
            )
            for clip in clips
        ]
        for job in tqdm(jobs, unit="clip"):
            job.result()
    trained = [clip.number for clip in clips if not clip.held_out]
    preparation.write_meta(args.output / "meta_info_GT.txt", trained, args.output / "train/GT")
    lines = [f"{c.number} {c.label}{' held out' if c.held_out else ''}\n" for c in clips]
    (args.output / "clips.txt").write_text("".join(lines))


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = command_parser("prepare-clips", __doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--held-out", nargs="*", default=[], metavar="NAME", help="without suffix")
    parser.add_argument("--output", type=Path, default=Path("datasets/clips"))
    parser.add_argument(
        "--short-side",
        type=int,
        default=272,
        help="pixels (default 272); at most half of the videos' own, or their compression shows",
    )
    parser.add_argument("--photographs", type=Path, help="a folder of them, large and sharp")
    parser.add_argument("--rendered", type=int, default=40, help="clips of them (default 40)")
    parser.add_argument("--validation-frames", type=int, default=20, help="(default 20)")
    prepare(parser.parse_args(argv))
    return 0

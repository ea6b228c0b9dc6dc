"""Folders of clean clips: which clips a data set has, and whether their frames are in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from iart_plugin import extras
from iart_plugin.data.inspection import even_sample
from iart_plugin.data.preparation import REDS4
from iart_plugin.option_errors import OptionError
from iart_plugin.pictures import SUFFIXES, checked_size, natural_order

PARTITIONS = {"REDS4": REDS4, "official": tuple(f"{clip:03d}" for clip in range(240, 270))}
"""The clips of REDS that are kept for validation, by the name of the partition."""


def find_clips(opt: dict[str, Any]) -> dict[str, list[Path]]:
    """The clips of a ``DegradedClipsDataset`` and the frames that it uses of each.

    Args:
        opt: the options of one data set, ``phase`` included.

    Raises:
        OptionError: if the folder is missing, or there is no clip or one with too few frames.
    """
    name, root = f"data set '{opt['name']}'", Path(opt["dataroot_gt"])
    if not root.is_dir():
        raise OptionError(f"{name}: dataroot_gt {root} is not a folder (looked from {Path.cwd()}).")
    training, count = opt.get("phase") == "train", opt.get("num_frame", -1)
    if training and not (count > 0 and opt.get("gt_size")):
        raise OptionError(f"{name}: a training needs num_frame of 1 or more, and gt_size.")
    folders = [p for p in natural_order(root.iterdir()) if p.is_dir() and p.name[0] != "."]
    if partition := opt.get("val_partition"):
        kept = PARTITIONS[partition]
        folders = [folder for folder in folders if (folder.name in kept) != training]
    clips = {folder.name: _frames(folder) for folder in folders}
    if not clips:
        left = f" that val_partition {partition} leaves for this" if partition else ""
        raise OptionError(f"{name}: {root} has no folder of frames{left}.")
    for clip, frames in clips.items():
        if len(frames) < max(count, 1):
            raise OptionError(
                f"{name}: {root / clip} has {len(frames)} frames, and num_frame is {count}. Lower "
                "num_frame, or move the clip elsewhere."
            )
    return clips if training or count < 1 else {c: frames[:count] for c, frames in clips.items()}


def _frames(folder: Path) -> list[Path]:
    return natural_order(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)


def check_clips(opt: dict[str, Any], smallest_side: int, most: int) -> None:
    """Check the frames of a ``DegradedClipsDataset``, before it is built.

    Args:
        opt: the options of one data set, ``scale`` and ``phase`` included.
        smallest_side: the smallest height and width that the metrics need, in pixels.
        most: how many frames are read at most, an even sample.

    Raises:
        OptionError: naming the folder or file, and what is wrong with it.
    """
    name, scale = f"data set '{opt['name']}'", opt.get("scale", 4)
    try:
        extras.require("av")  # it compresses the clips
    except ModuleNotFoundError as error:
        raise OptionError(f"{name}: {error}") from error
    clips = find_clips(opt)
    first = {clip: _size(frames[0], name) for clip, frames in clips.items()}
    for clip, frame in even_sample([(c, p) for c, paths in clips.items() for p in paths], most):
        height, width = size = _size(frame, name)
        if size != first[clip]:
            raise OptionError(
                f"{name}: {frame} has {width}x{height}, another size than the clip's first frame. "
                "All frames of a clip must have one size."
            )
        side = min(height, width)
        if side < smallest_side:
            raise OptionError(
                f"{name}: val.metrics need frames of at least {smallest_side} pixels on each side "
                f"with their crop_border, and {frame} has {width}x{height}."
            )
        if opt.get("phase") != "train" and (height % scale or width % scale):
            raise OptionError(f"{name}: {frame} has {width}x{height}; {scale} must divide both.")
        crop = opt.get("gt_size") or scale
        if opt.get("phase") == "train" and (crop > side or crop % scale):
            raise OptionError(
                f"{name}: gt_size {crop} must be a multiple of {scale} and fit into {frame} "
                f"({width}x{height}, width x height)."
            )


def _size(frame: Path, name: str) -> tuple[int, int]:
    try:
        return checked_size(frame)
    except ValueError as error:
        raise OptionError(f"{name}: {error}") from error

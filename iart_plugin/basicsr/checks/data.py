"""Data sets, checked before anything is written: frames missing, unreadable or of a wrong size."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from iart_plugin.basicsr.checks.clips import PARTITIONS, check_clips
from iart_plugin.data.inspection import FramePair, check_sizes, missing_files
from iart_plugin.data.preparation import REDS_CLIP_LENGTH
from iart_plugin.option_errors import OptionError

MAX_PAIRS_READ = 2000
"""Data sets of up to this many frame pairs are read through, larger ones in an even sample."""

NO_REFERENCE = "calculate_niqe"
"""The metric of BasicSR that needs no ground truth."""

_WITHOUT_GROUND_TRUTH = (
    " Without ground truth, test with calculate_niqe as the only metric or with val.metrics left "
    "out (tools/basicsr_test.py then only writes the frames), or use: iart-plugin upscale FOLDER "
    "OUTPUT --weights FILE."
)


def check_datasets(opt: dict[str, Any]) -> None:
    """Check every data set of a run, on the first of its processes: torchrun ends the others.

    Args:
        opt: BasicSR's options, complete.

    Raises:
        OptionError: naming the folder or file, and what is wrong with it.
    """
    metrics = ((opt.get("val") or {}).get("metrics") or {}).values()
    for section, data in opt["datasets"].items():
        phase = section.partition("_")[0]
        needed = max((_pixels_needed(metric) for metric in metrics), default=0)
        without = all(metric["type"] == NO_REFERENCE for metric in metrics)
        if phase == "test" and without and not data.get("dataroot_gt"):
            # BasicSR reads a ground truth in every case, but nobody looks at it here. The metric
            # looks at the output, which is larger.
            data["dataroot_gt"] = data.get("dataroot_lq")
            needed = -(-needed // data.get("scale", 4))
        if opt["rank"] == 0:
            check_dataset(data, 0 if phase == "train" else needed)


def _pixels_needed(metric: dict[str, Any]) -> int:
    """The smallest side of a frame that a metric can be measured on."""
    inner = 11 if "ssim" in metric["type"] else 1  # SSIM's window
    inner = 2 * 96 if metric["type"] == NO_REFERENCE else inner  # several of NIQE's blocks
    return 2 * metric["crop_border"] + inner


def check_dataset(opt: dict[str, Any], smallest_side: int = 0) -> None:
    """Check the frames of one video data set, before it is built.

    Every folder is looked into. Files are read through (structure and checksums) for up to
    ``MAX_PAIRS_READ`` pairs, larger sets in an even sample. Sintel is checked by building its data
    set. Other types of data sets pass.

    Args:
        opt: the options of one data set, ``scale`` and ``phase`` included.
        smallest_side: the smallest height and width of a ground-truth frame that the metrics need,
            in pixels.

    Raises:
        OptionError: naming the folder or file, and what is wrong with it.
    """
    if opt["type"] == "SintelFlowDataset":
        from basicsr.utils.registry import DATASET_REGISTRY

        DATASET_REGISTRY.get(opt["type"])(opt)
    if opt["type"] == "DegradedClipsDataset":
        check_clips(opt, smallest_side, MAX_PAIRS_READ)
    if not known_dataset(opt):
        return
    name = f"data set '{opt['name']}'"
    if opt.get("io_backend", {}).get("type") == "lmdb":
        _check_roots(opt, name)
        if opt.get("meta_info_file"):
            _read_meta(opt, name)
        if opt["type"].startswith("REDS"):
            _check_reds_window(opt, name)
        _check_lmdb(opt, name)
        return
    pairs = list_frame_pairs(opt)
    for path in missing_files(path for pair in pairs for path in pair):
        raise OptionError(f"{name}: the frame {path} is missing.")
    step = -(-len(pairs) // MAX_PAIRS_READ)
    for pair in pairs[::step]:
        height, width = _check_pair(pair, opt, name)
        if min(height, width) < smallest_side:
            raise OptionError(
                f"{name}: val.metrics need frames of at least {smallest_side} pixels on each side "
                f"with their crop_border, and {pair.gt} has {width}x{height}."
            )


def known_dataset(opt: dict[str, Any]) -> bool:
    """Whether :func:`list_frame_pairs` can list the frames of this type of data set."""
    return opt["type"] in _PAIR_LISTS


def list_frame_pairs(opt: dict[str, Any]) -> list[FramePair]:
    """The frames that one of BasicSR's video data sets will read from folders.

    Args:
        opt: The options of one data set, of a type that :func:`check_dataset` knows.

    Raises:
        OptionError: if a folder or meta file is missing, or says something impossible.
    """
    name = f"data set '{opt['name']}'"
    _check_roots(opt, name)
    pairs = list(_PAIR_LISTS[opt["type"]](opt, name))
    if not pairs:
        raise OptionError(
            f"{name}: no frames found for dataroot_gt {opt['dataroot_gt']}. It must hold a folder "
            "of frames for each clip."
        )
    return pairs


def _check_roots(opt: dict[str, Any], name: str) -> None:
    for key in ("dataroot_gt", "dataroot_lq"):
        if not opt.get(key):
            advice = "" if key == "dataroot_lq" else _WITHOUT_GROUND_TRUTH
            raise OptionError(f"{name}: {key} is not set.{advice}")
        if not Path(opt[key]).is_dir():
            raise OptionError(
                f"{name}: {key} {opt[key]} is not a folder (looked from {Path.cwd()})."
            )


def _read_meta(opt: dict[str, Any], name: str) -> list[list[str]]:
    """The lines of a meta file as BasicSR reads them: clip, number of frames and shape.

    BasicSR splits a line at every single space, and decodes the file as UTF-8.
    """
    path = Path(opt["meta_info_file"])
    if not path.is_file():
        raise OptionError(f"{name}: meta_info_file {path} does not exist.")
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise OptionError(
            f"{name}: {path} begins with a byte order mark, which BasicSR takes for a part of the "
            "first clip's name. Save the file as UTF-8 without one."
        )
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError as error:
        raise OptionError(
            f"{name}: {path} is not in UTF-8 ({error.reason}). Save it as UTF-8."
        ) from error
    if not lines:
        raise OptionError(f"{name}: {path} lists no clip.")
    found = [line.split(" ") for line in lines]
    for number, (line, fields) in enumerate(zip(lines, found, strict=True), 1):
        if len(fields) != 3 or not all(fields) or not fields[1].isdecimal() or "\t" in line:
            raise OptionError(
                f"{name}: {path}, line {number}: expected 'clip frames (h,w,c)' with single "
                f"spaces, got {line!r}."
            )
    return found


def _reds_pairs(opt: dict[str, Any], name: str) -> Iterator[FramePair]:
    validation = PARTITIONS.get(opt["val_partition"])
    if validation is None:
        raise OptionError(
            f"{name}: val_partition is '{opt['val_partition']}'; 'REDS4' and 'official' exist."
        )
    _check_reds_window(opt, name)
    gt, lq = Path(opt["dataroot_gt"]), Path(opt["dataroot_lq"])
    used = 0
    for clip, count, _ in _read_meta(opt, name):
        if (clip in validation) != bool(opt.get("test_mode")):
            continue
        used += 1
        if int(count) != REDS_CLIP_LENGTH:
            raise OptionError(
                f"{name}: {opt['meta_info_file']} gives clip {clip} {count} frames; {opt['type']} "
                f"needs clips of {REDS_CLIP_LENGTH}."
            )
        for frame in range(int(count)):
            yield FramePair(gt / clip / f"{frame:08d}.png", lq / clip / f"{frame:08d}.png")
    if not used:
        raise OptionError(
            f"{name}: every clip of {opt['meta_info_file']} belongs to the validation partition "
            f"'{opt['val_partition']}' ({', '.join(validation[:4])}…), none is left."
        )


def _check_reds_window(opt: dict[str, Any], name: str) -> None:
    """A window of ``num_frame`` frames must fit into a clip at every interval."""
    # An option file that check-dataset reads may lack the key, which a training would refuse.
    count, interval = opt.get("num_frame") or 1, max(opt.get("interval_list") or [1])
    if count * interval > REDS_CLIP_LENGTH:
        step = f" at an interval of {interval}" if interval > 1 else ""
        raise OptionError(
            f"{name}: num_frame is {count}{step}, and a clip has {REDS_CLIP_LENGTH} frames."
        )


def _vimeo_pairs(opt: dict[str, Any], name: str) -> Iterator[FramePair]:
    gt, lq = Path(opt["dataroot_gt"]), Path(opt["dataroot_lq"])
    for clip, _, _ in _read_meta(opt, name):
        for frame in range(1, 8):
            yield FramePair(gt / clip / f"im{frame}.png", lq / clip / f"im{frame}.png")


def _vimeo_test_pairs(opt: dict[str, Any], name: str) -> Iterator[FramePair]:
    gt, lq = Path(opt["dataroot_gt"]), Path(opt["dataroot_lq"])
    first = (9 - opt["num_frame"]) // 2
    for clip, _, _ in _read_meta(opt, name):
        for frame in range(first, first + opt["num_frame"]):
            # Only the centre frame's ground truth is read.
            yield FramePair(gt / clip / "im4.png", lq / clip / f"im{frame}.png")


def _folder_pairs(opt: dict[str, Any], name: str) -> Iterator[FramePair]:
    """``VideoTestDataset`` and its kin: folders of frames, paired in sorted order."""
    if opt["name"].lower() not in ("vid4", "reds4", "redsofficial"):
        raise OptionError(
            f"{name}: BasicSR's {opt['type']} takes only the names Vid4, REDS4 and REDSofficial."
        )
    if opt["type"] == "VideoRecurrentTestDataset" and not opt.get("cache_data"):
        raise OptionError(f"{name}: {opt['type']} needs cache_data: true.")
    gt, lq = Path(opt["dataroot_gt"]), Path(opt["dataroot_lq"])
    if "meta_info_file" in opt:
        clips = [fields[0] for fields in _read_meta(opt, name)]
    else:
        clips = sorted(p.name for p in lq.iterdir() if not p.name.startswith("."))
        only_gt = sorted({p.name for p in gt.iterdir() if not p.name.startswith(".")} - set(clips))
        if only_gt:
            raise OptionError(
                f"{name}: {gt / only_gt[0]} has no folder of the same name in dataroot_lq {lq}. "
                "Make its low-resolution frames, or move it elsewhere."
            )
    for clip in clips:
        for folder in (lq / clip, gt / clip):
            if not folder.is_dir():
                raise OptionError(f"{name}: {folder} is not a folder of frames.")
        lqs, gts = _frames(lq / clip), _frames(gt / clip)
        if len(lqs) != len(gts):
            raise OptionError(
                f"{name}: {lq / clip} has {len(lqs)} frames, {gt / clip} has {len(gts)}"
                f"{_first_difference(lqs, gts)}."
            )
        if opt["type"] == "VideoTestDataset" and opt["num_frame"] > len(lqs):
            raise OptionError(
                f"{name}: num_frame is {opt['num_frame']}, and {lq / clip} has {len(lqs)} frames. "
                "Lower num_frame, or leave the clip out."
            )
        if _overlap_in_part(lqs, gts):  # paired in sorted order, every frame between would be off
            raise OptionError(
                f"{name}: the frames of {lq / clip} and {gt / clip} are not the same"
                f"{_first_difference(lqs, gts)}."
            )
        yield from map(FramePair, gts, lqs)


def _frames(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))


def _stems(paths: list[Path]) -> set[str]:
    """The frames' names without a suffix, and without REDS' and Vid4's x4."""
    return {path.stem.removesuffix("x4") for path in paths}


def _overlap_in_part(lqs: list[Path], gts: list[Path]) -> bool:
    """Whether some names occur on both sides and some on one side only.

    Two ways of naming frames have no name in common, and are paired in sorted order.
    """
    low, high = _stems(lqs), _stems(gts)
    return low != high and bool(low & high)


def _first_difference(lqs: list[Path], gts: list[Path]) -> str:
    differing = sorted(_stems(lqs) ^ _stems(gts))
    return f" (first without a counterpart: '{differing[0]}')" if differing else ""


_PAIR_LISTS: dict[str, Callable[[dict[str, Any], str], Iterator[FramePair]]] = {
    "REDSDataset": _reds_pairs,
    "REDSRecurrentDataset": _reds_pairs,
    "Vimeo90KDataset": _vimeo_pairs,
    "Vimeo90KRecurrentDataset": _vimeo_pairs,
    "VideoTestDataset": _folder_pairs,
    "VideoRecurrentTestDataset": _folder_pairs,
    "VideoTestVimeo90KDataset": _vimeo_test_pairs,
}


def _check_pair(pair: FramePair, opt: dict[str, Any], name: str) -> tuple[int, int]:
    """Both frames must be readable, of matching sizes, and large enough for a crop.

    Returns:
        The ground truth's height and width.
    """
    scale = 1 if opt["dataroot_gt"] == opt["dataroot_lq"] else opt.get("scale", 4)
    try:
        height, width = check_sizes(pair, scale)
    except ValueError as error:
        raise OptionError(f"{name}: {error}") from error
    crop = opt.get("gt_size")
    if crop and (crop > min(height, width) or crop % scale):
        raise OptionError(
            f"{name}: gt_size {crop} must be a multiple of {scale} and fit into {pair.gt} "
            f"({width}x{height}, width x height)."
        )
    return height, width


def _check_lmdb(opt: dict[str, Any], name: str) -> None:
    """Both databases must list the same frames at sizes that match; no value is read."""
    sizes = {}
    for key in ("dataroot_gt", "dataroot_lq"):
        root = Path(opt[key])
        meta = root / "meta_info.txt"
        if root.suffix != ".lmdb" or not meta.is_file() or not (root / "data.mdb").is_file():
            raise OptionError(
                f"{name}: {key} {root} is not an lmdb made by BasicSR (a folder named *.lmdb with "
                "data.mdb and meta_info.txt)."
            )
        sizes[key] = dict(_lmdb_entries(meta, name))
    scale = opt.get("scale", 4)
    for frame, (gt_h, gt_w) in sizes["dataroot_gt"].items():
        if frame not in sizes["dataroot_lq"]:
            raise OptionError(
                f"{name}: {opt['dataroot_lq']} lacks the frame {frame}. Make both databases from "
                "the same clips."
            )
        lq_h, lq_w = sizes["dataroot_lq"][frame]
        if (gt_h, gt_w) != (scale * lq_h, scale * lq_w):
            raise OptionError(
                f"{name}: frame {frame} is {gt_w}x{gt_h} in {opt['dataroot_gt']} and {lq_w}x{lq_h} "
                f"in {opt['dataroot_lq']}; at scale {scale} they do not match."
            )


def _lmdb_entries(meta: Path, name: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Key and (height, width) of each line ``000/00000000.png (720,1280,3) 1``."""
    for line in meta.read_text().splitlines():
        try:
            file, shape, _ = line.split(" ")
            height, width, _ = (int(v) for v in shape.strip("()").split(","))
        except ValueError as error:
            raise OptionError(
                f"{name}: {meta} has the line {line!r}; expected 'FRAME.png (h,w,c) LEVEL'."
            ) from error
        yield file.rsplit(".", 1)[0], (height, width)

"""Measure the quality of results without ground truth.

    iart-plugin evaluate-no-reference results/                # a folder of clips, or one clip
    iart-plugin evaluate-no-reference result.mp4 --frames all
    iart-plugin evaluate-no-reference results/ --metrics niqe brisque --flow-from inputs/

The command offers BasicSR's NIQE, every metric of pyiqa if pyiqa is installed, and the temporal
warping error, which measures flicker. Lower is better for NIQE and for the warping error. As in
VideoLQ's protocol, the metrics use each clip's first, middle and last frame. The warping error uses
all pairs of neighbouring frames. It can only compare methods if all use the same flow: for this,
give the low-resolution clips as --flow-from.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import zip_longest
from pathlib import Path
from statistics import fmean

import cv2
import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from iart_plugin import extras
from iart_plugin.commands.console import command_parser, one_line_errors
from iart_plugin.files import write_atomically
from iart_plugin.pictures import SUFFIXES
from iart_plugin.study.temporal import warping_error
from iart_plugin.video.reader import open_source, to_dtype

VIDEO_SUFFIXES = frozenset({".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".ts", ".y4m"})
WARPING = "warping error"
SMALLEST_NIQE = 2 * 96
"""The smallest width and height in pixels: NIQE needs several blocks of 96 x 96 pixels."""

Metric = Callable[[np.ndarray], float]


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    args = _parser().parse_args(argv)
    _check_options(args)
    metrics = {name: build_metric(name) for name in dict.fromkeys(args.metrics)}
    clips = find_clips(args.results)
    guides = match_guides(clips, args.flow_from) if args.flow_from else {}
    rows = []
    for name, path in tqdm(clips.items(), unit="clip"):
        values = measure(path, metrics, every=args.frames == "all")
        if args.temporal:
            values[WARPING] = temporal(path, guides.get(name))
        rows.append({"clip": name} | values)
    mean = {key: _mean(row[key] for row in rows) for key in rows[0] if key != "clip"}
    rows.append({"clip": "mean"} | mean)
    print(tabulate(rows, headers="keys", tablefmt="pipe", floatfmt=".4g", missingval="-"))
    if args.json:
        write_atomically(args.json, json.dumps(rows, indent=2) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("evaluate-no-reference", __doc__)
    add = parser.add_argument
    add("results", type=Path, help="a video, a folder of frames, or a folder of such")
    add("--metrics", nargs="*", default=["niqe"], help="niqe (default), or names of pyiqa")
    add("--frames", choices=["ends", "all"], default="ends", help="of each clip, for the metrics: "
        "first, middle and last (default), or all")  # fmt: skip
    add("--flow-from", type=Path, metavar="PATH", help="clips of the same names and lengths whose "
        "flow the warping error uses (default: the results' own)")  # fmt: skip
    add("--no-temporal", dest="temporal", action="store_false", help="no warping error")
    add("--json", type=Path, metavar="FILE", help="also write the figures there")
    return parser


def _check_options(args: argparse.Namespace) -> None:
    """Refuse, before anything is measured, options that would give no figures or lose them."""
    if not args.metrics and not args.temporal:
        raise ValueError("--no-temporal leaves nothing to measure: name some --metrics")
    if args.json and (args.json.is_dir() or not args.json.absolute().parent.is_dir()):
        raise ValueError(f"--json {args.json}: name a file in a folder that exists")


def find_clips(root: Path) -> dict[str, Path]:
    """The clips in a path, by name.

    Raises:
        FileNotFoundError: The path does not exist.
        ValueError: It holds no clips, two of one name, or pictures beside clips.
    """
    if not root.exists():
        raise FileNotFoundError(f"{root}: no such file or folder")
    if root.is_file():
        return {root.stem: root}
    entries = sorted(path for path in root.iterdir() if not path.name.startswith("."))
    clips: dict[str, Path] = {}
    for path in filter(_is_clip, entries):
        name = path.name if path.is_dir() else path.stem
        if name in clips:
            raise ValueError(
                f"{root}: {clips[name].name} and {path.name} would both be the clip '{name}': "
                "rename one, or measure them apart"
            )
        clips[name] = path
    if _has_images(root):
        if clips:
            raise ValueError(
                f"{root} holds pictures, as a clip does, and also {next(iter(clips.values())).name}"
                ", which is a clip: move one of the two elsewhere"
            )
        return {root.absolute().name: root}
    if not clips:
        raise ValueError(f"{root}: neither frames, nor folders of frames, nor videos are in it")
    return clips


def _is_clip(path: Path) -> bool:
    return _has_images(path) if path.is_dir() else path.suffix.lower() in VIDEO_SUFFIXES


def _has_images(folder: Path) -> bool:
    return any(path.suffix.lower() in SUFFIXES for path in folder.iterdir())


def match_guides(clips: dict[str, Path], root: Path) -> dict[str, Path]:
    """For each clip, the clip below ``root`` that gives the flow.

    Raises:
        ValueError: A clip is missing there.
    """
    guides = find_clips(root)
    if len(clips) == len(guides) == 1:
        return dict(zip(clips, guides.values(), strict=True))
    missing = [name for name in clips if name not in guides]
    if missing:
        raise ValueError(f"{root} has no clip '{missing[0]}'")
    return guides


def frames_of(path: Path) -> Iterator[np.ndarray]:
    """A clip's frames in order: (h, w, 3) RGB, uint8."""
    with closing(open_source(path)) as source:
        for frame in source:
            yield to_dtype(frame.rgb, np.dtype(np.uint8))


def measure(path: Path, metrics: dict[str, Metric], *, every: bool) -> dict[str, float]:
    """Each metric's mean over a clip's frames: all of them, or the first, middle and last."""
    if not metrics:
        return {}
    count = sum(1 for _ in frames_of(path))
    wanted = set(range(count)) if every else {0, count // 2, count - 1}
    values: dict[str, list[float]] = {name: [] for name in metrics}
    chosen = ((i, frame) for i, frame in enumerate(frames_of(path)) if i in wanted)
    for index, frame in chosen:
        for name, metric in metrics.items():
            try:
                values[name].append(metric(frame))
            except ValueError as error:
                raise ValueError(f"{path}, frame {index}: {error}") from error
    return {name: _mean(found) for name, found in values.items()}


def temporal(path: Path, guide: Path | None) -> float:
    """The mean warping error of a clip; NaN for a clip of one frame.

    Raises:
        ValueError: The clip that gives the flow has another number of frames.
    """
    errors: list[float] = []
    guided = frames_of(guide) if guide else frames_of(path)
    previous = None
    try:
        for pair in zip_longest(frames_of(path), guided):
            if pair[0] is None or pair[1] is None:
                raise ValueError("the two have different numbers of frames")
            if previous is not None:
                guides = (previous[1], pair[1]) if guide else None
                errors.append(warping_error(previous[0], pair[0], guides))
            previous = pair
    except ValueError as error:
        other = f" with the flow of {guide}" if guide else ""
        raise ValueError(f"{path}{other}: {error}") from error
    return _mean(errors)


def _mean(values: Sequence[float] | Iterator[float]) -> float:
    """The mean of the numbers."""
    finite = [value for value in values if not math.isnan(value)]
    return fmean(finite) if finite else math.nan


def build_metric(name: str) -> Metric:
    """Return a function that measures a frame (h, w, 3), RGB, uint8.

    Raises:
        ModuleNotFoundError: BasicSR is not installed.
        ValueError: There is no such metric, or pyiqa is not installed.
    """
    return _niqe() if name == "niqe" else _pyiqa(name)


def _niqe() -> Metric:
    extras.require("basicsr")
    import iart_plugin.basicsr  # noqa: F401  isort: skip  repairs BasicSR's import
    from basicsr.metrics import calculate_niqe

    def niqe(frame: np.ndarray) -> float:
        height, width = frame.shape[:2]
        if min(height, width) < SMALLEST_NIQE:
            raise ValueError(
                f"NIQE needs frames of {SMALLEST_NIQE}x{SMALLEST_NIQE} pixels, got {width}x{height}"
            )
        picture = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                value = float(np.squeeze(calculate_niqe(picture, crop_border=0)))
        except np.linalg.LinAlgError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(
                "NIQE has no value for a frame with too little detail, such as one of a single "
                "colour: leave the clip or the metric out"
            )
        return value

    return niqe


def _pyiqa(name: str) -> Metric:
    if importlib.util.find_spec("pyiqa") is None:
        raise ValueError(
            f"the metric '{name}' is not niqe, and all others need pyiqa, which is not installed: "
            "pip install pyiqa"
        )
    import pyiqa
    import torch

    if name not in pyiqa.list_models(metric_mode="NR"):
        raise ValueError(f"pyiqa has no metric '{name}' that needs no reference")
    try:
        metric = pyiqa.create_metric(name)
    except OSError as error:
        raise ValueError(
            f"pyiqa cannot load the metric '{name}', whose weights it downloads at the first use: "
            f"{error}"
        ) from error

    def measure(frame: np.ndarray) -> float:
        picture = torch.from_numpy(frame).permute(2, 0, 1).unsqueeze(0) / 255
        with torch.no_grad():
            return float(metric(picture))

    return measure

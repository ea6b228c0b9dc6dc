"""Say in seconds what is wrong with the data that a BasicSR option file or an MMagic config names.

    iart-plugin check-dataset CONFIG [--frames 12]

Every folder is searched for missing and misnamed frames. A sample of the frames is read: they must
be whole, their sizes must fit, and the low-resolution frame must be what a known degradation makes
of the ground truth, which finds a shift, a wrong kernel or a wrong frame. The exit code is 1 if
anything is wrong.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from iart_plugin.commands.console import EXIT_ERROR, command_parser, one_line_errors
from iart_plugin.data.inspection import (
    SAME_KERNEL_DB,
    FramePair,
    check_sizes,
    compare,
    even_sample,
    missing_files,
)

MAX_NAMED = 5  # at most this many missing files are named one by one


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code, which is 1 if anything is wrong."""
    parser = command_parser("check-dataset", __doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--frames", type=int, default=12, help="pairs compared in each data set")
    args = parser.parse_args(argv)
    read = mmagic_sets if args.config.suffix == ".py" else basicsr_sets
    faults = 0
    for name, content in read(args.config):
        if isinstance(content, str):
            found = [content]
        else:
            print(f"{name}: {len(content)} frame pairs")
            found = list(inspect(content, args.frames))
        for fault in found:
            print(f"{name}: {fault}")
        faults += len(found)
        if not found:
            print(f"{name}: in order")
    return EXIT_ERROR if faults else 0


def inspect(pairs: list[FramePair], frames: int) -> Iterator[str]:
    """Yield a sentence for each thing that is wrong with these pairs."""
    missing = list(missing_files(path for pair in pairs for path in pair))
    for path in missing[:MAX_NAMED]:
        yield f"{path} is missing{_near(path)}"
    if len(missing) > MAX_NAMED:
        yield f"and {len(missing) - MAX_NAMED} more are missing"
    gone = set(missing)
    whole = [pair for pair in pairs if not gone & set(pair)]
    # Vimeo-90K's test has one ground truth for seven frames; it is compared with the frame of its
    # own name only.
    whole = [pair for pair in whole if pair.gt.name == pair.lq.name] or whole
    kernels: dict[str, Path] = {}
    for pair in even_sample(whole, frames):
        try:
            check_sizes(pair, scale=4)
            found = compare(pair)
        except ValueError as error:
            yield str(error)
            continue
        if found.explained:
            kernels.setdefault(found.degradation, pair.lq)
        else:
            yield _explain(pair, found)
    if len(kernels) > 1:
        yield "two degradations are mixed: " + ", ".join(f"{k} ({p})" for k, p in kernels.items())
    elif kernels:
        print(f"  degradation: {next(iter(kernels))}")


def _near(path: Path) -> str:
    """Say what the folder holds instead, if the file is misnamed."""
    if not path.parent.is_dir():
        return " (its folder too)"
    others = sorted(p.name for p in path.parent.iterdir())
    return f" (its folder holds {len(others)} files, {others[0]} the first)" if others else ""


def _explain(pair: FramePair, found) -> str:
    if found.psnr >= SAME_KERNEL_DB:
        dy, dx = found.shift
        return f"{pair.lq} is shifted against {pair.gt} by ({dy}, {dx}) rows, columns of it"
    return (
        f"{pair.lq} is not what BI, BD or BD-13tap makes of {pair.gt}: the nearest is "
        f"{found.degradation} with {found.psnr:.1f} dB. A wrong frame, kernel or crop."
    )


def basicsr_sets(config: Path) -> Iterator[tuple[str, list[FramePair] | str]]:
    """The data sets of an option file, each with its pairs or with why they cannot be listed."""
    from iart_plugin.basicsr.checks import check_dataset, known_dataset, list_frame_pairs
    from iart_plugin.basicsr.option_files import read_option_file

    opt = read_option_file(config)
    for phase, dataset in opt["datasets"].items():
        dataset = {**dataset, "phase": phase, "scale": opt.get("scale", 4)}
        for key in ("dataroot_gt", "dataroot_lq"):  # BasicSR expands `~` in these keys only
            if dataset.get(key):
                dataset[key] = os.path.expanduser(dataset[key])
        name = f"{phase} ({dataset['name']})"
        degraded = dataset["type"] == "DegradedClipsDataset"
        if not (degraded or known_dataset(dataset)):
            print(f"{name}: {dataset['type']} is not one that is checked")
            continue
        try:
            if degraded:
                check_dataset(dataset)
                print(f"{name}: in order; the low-resolution frames are made when it is read")
            elif dataset.get("io_backend", {}).get("type") == "lmdb":
                check_dataset(dataset)
                print(f"{name}: the databases list the same frames; none was compared")
            else:
                yield name, list_frame_pairs(dataset)
        except ValueError as error:
            yield name, str(error)


def mmagic_sets(config: Path) -> Iterator[tuple[str, list[FramePair] | str]]:
    """The ``BasicFramesDataset``s of a config's training, validation and test loaders."""
    from mmengine.config import Config

    cfg = Config.fromfile(config)
    for phase in ("train", "val", "test"):
        loaders = cfg.get(f"{phase}_dataloader") or []
        for loader in loaders if isinstance(loaders, (list, tuple)) else [loaders]:
            dataset = loader["dataset"]
            dataset = dataset.get("dataset", dataset)  # inside a RepeatDataset
            name = f"{phase} ({dataset.get('data_root')})"
            if dataset["type"] != "BasicFramesDataset":
                print(f"{name}: {dataset['type']} is not one that is checked")
                continue
            try:
                yield name, list(mmagic_pairs(dataset))
            except (OSError, ValueError) as error:
                yield name, str(error)


def mmagic_pairs(dataset: dict[str, Any]) -> Iterator[FramePair]:
    """The frames of one ``BasicFramesDataset``: those of its annotation file or of all folders."""
    root = Path(dataset["data_root"])
    gt, lq = (root / dataset["data_prefix"][key] for key in ("gt", "img"))
    for folder in (gt, lq):
        if not folder.is_dir():
            raise ValueError(f"{folder} is not a folder (looked from {Path.cwd()})")
    depth = dataset.get("depth", 1)
    if dataset.get("ann_file"):
        lines = (root / dataset["ann_file"]).read_text().splitlines()
        named = [line.split(" ")[0] for line in lines if line.strip()]
        clips = list(dict.fromkeys("/".join(name.split("/")[:depth]) for name in named))
    else:
        clips = sorted(p.name for p in lq.iterdir() if p.is_dir())
    for clip in clips:
        for frame in _mmagic_frames(dataset, gt / clip, lq / clip):
            yield FramePair(gt / clip / frame, lq / clip / frame)


def _mmagic_frames(dataset: dict[str, Any], gt: Path, lq: Path) -> list[str]:
    """The names of a clip's files: listed in the config, numbered by its pipeline, or found."""
    names = (dataset.get("load_frames_list") or {}).get("img")
    if names is not None and "all" not in names:
        return list(names)
    there = {p.name for folder in (gt, lq) if folder.is_dir() for p in folder.iterdir()}
    found = sorted(name for name in there if not name.startswith("."))
    if not found:
        raise ValueError(f"{lq} has no frames")
    steps = {step["type"]: step for step in dataset.get("pipeline", [])}
    numbered = steps.get("GenerateSegmentIndices")
    if names is not None or numbered is None:
        return found
    length = dataset.get("fixed_seq_len") or len(found)
    needed = dataset.get("num_input_frames") or 1
    if length < needed:
        raise ValueError(f"{lq} has {length} frames; {needed} are read at a time")
    name, first = numbered.get("filename_tmpl", "{:08d}.png"), numbered.get("start_idx", 0)
    return [name.format(number) for number in range(first, first + length)]

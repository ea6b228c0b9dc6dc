"""Checks the loaders and data sets of a config before MMEngine builds them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from iart_plugin.option_errors import OptionError

MAX_NAMED = 3
"""The largest number of missing files that a message names."""


def check_loader(loader: dict[str, Any], where: str, scale: int) -> None:
    """Check one loader and its data set.

    Args:
        loader: the config's section.
        where: its name, such as ``train_dataloader``.
        scale: the factor between the frames and their ground truth.

    Raises:
        OptionError: with the name of the option, or of the missing files.
    """
    _check_whole(loader, "batch_size", where, least=1)
    _check_whole(loader, "num_workers", where, least=0)
    if loader.get("persistent_workers") and not loader.get("num_workers"):
        raise OptionError(f"{where}.persistent_workers needs num_workers of 1 or more.")
    dataset = loader.get("dataset") or {}
    kind = str(dataset.get("type")).rpartition(".")[2]
    if kind == "BasicFramesDataset":
        _check_pipeline(dataset, f"{where}.dataset", scale)
        _check_clips(dataset, f"{where}.dataset")
    elif kind == "SintelFlowDataset":
        _say_missing([Path(dataset.get("root", ""), "training")], f"{where}.dataset")
        crop = dataset.get("augment")
        if isinstance(crop, dict) and crop.get("crop_size") is not None:
            _check_whole(crop, "crop_size", f"{where}.dataset.augment", least=1)


def _check_whole(section: dict[str, Any], key: str, where: str, least: int) -> None:
    value = section.get(key, least)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise OptionError(
            f"{where}.{key} is {value!r}; it must be a whole number of {least} or more."
        )


def _check_pipeline(dataset: dict[str, Any], where: str, scale: int) -> None:
    for index, step in enumerate(dataset.get("pipeline") or ()):
        name = f"{where}.pipeline.{index}"
        if step.get("type") == "PairedRandomCrop":
            _check_whole(step, "gt_patch_size", name, least=scale)
            if step["gt_patch_size"] % scale:
                raise OptionError(
                    f"{name}.gt_patch_size is {step['gt_patch_size']}; it must be a multiple of "
                    f"the scale, {scale}."
                )
        if step.get("type") == "GenerateSegmentIndices":
            intervals = step.get("interval_list", [1])
            if not intervals or any(not isinstance(i, int) or i < 1 for i in intervals):
                raise OptionError(
                    f"{name}.interval_list is {intervals}; it needs whole numbers of 1 or more."
                )


def _check_clips(dataset: dict[str, Any], where: str) -> None:
    """Check that the folders of frames exist and hold enough frames."""
    root = Path(dataset.get("data_root") or "")
    folders = [root / prefix for prefix in dataset["data_prefix"].values()]
    listed = [root / dataset["ann_file"]] if dataset.get("ann_file") else []
    _say_missing([*dict.fromkeys(folders), *listed], where)
    clips = list(_clips(listed[0])) if listed else list(_folders(folders[0], where))
    if not clips:
        what = "It must list one clip a line." if listed else "It must hold a folder for each clip."
        raise OptionError(f"{where}: there is no clip in {(listed or folders)[0]}. {what}")
    _say_missing([folder / clip for folder in folders for clip in clips], where)
    if dataset.get("num_input_frames") is None:
        return
    _check_whole(dataset, "num_input_frames", where, least=1)
    steps = [s for s in dataset.get("pipeline") or () if s.get("type") == "GenerateSegmentIndices"]
    interval = max((max(step.get("interval_list", [1])) for step in steps), default=1)
    needed = dataset["num_input_frames"] * interval
    for clip in clips if steps else ():
        length = dataset.get("fixed_seq_len") or len(list((folders[0] / clip).iterdir()))
        if needed > length:
            raise OptionError(
                f"{where}.num_input_frames is {dataset['num_input_frames']} at an interval of "
                f"{interval}, and {folders[0] / clip} has {length} frames. Lower num_input_frames, "
                "or leave the clip out."
            )


def _clips(listed: Path) -> Iterator[str]:
    """The clips that a meta file lists, as MMagic reads it: the first word of each line."""
    try:
        lines = listed.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise OptionError(
            f"{listed} is not in UTF-8 ({error.reason}). Save it as UTF-8."
        ) from error
    return (line.split(" ")[0] for line in lines if line.strip())


def _folders(parent: Path, where: str) -> Iterator[str]:
    """The clips of a data set without a meta file: MMagic takes all that lies in its folder."""
    for path in sorted(parent.iterdir()):
        if not path.is_dir():
            raise OptionError(
                f"{where}: {path} lies among the folders of frames. Move it elsewhere."
            )
        yield path.name


def _say_missing(paths: list[Path], where: str) -> None:
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        more = f" and {len(missing) - MAX_NAMED} more" if len(missing) > MAX_NAMED else ""
        verb = "does" if len(missing) == 1 else "do"
        raise OptionError(
            f"{where}: {', '.join(missing[:MAX_NAMED])}{more} {verb} not exist (looked from "
            f"{Path.cwd()}). Download and prepare the data set, or set the config's data_root."
        )

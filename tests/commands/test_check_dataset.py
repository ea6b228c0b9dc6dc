"""Checking the data sets that option files and configs name."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from iart_plugin.data import bicubic_downsample
from tests.commands.command_driver import run


def options(root: Path, lq: str = "train_sharp_bicubic_with_val/X4") -> dict:
    return {
        "scale": 4,
        "datasets": {
            "train": {
                "name": "REDS",
                "type": "REDSRecurrentDataset",
                "dataroot_gt": str(root / "datasets/REDS/train_sharp_with_val"),
                "dataroot_lq": str(root / "datasets/REDS" / lq),
                "meta_info_file": str(root / "datasets/REDS/meta_info_REDS_GT.txt"),
                "val_partition": "REDS4",
                "test_mode": False,
                "io_backend": {"type": "disk"},
            },
            "val": {
                "name": "REDS4",
                "type": "VideoRecurrentTestDataset",
                "dataroot_gt": str(root / "datasets/REDS4/GT"),
                "dataroot_lq": str(root / "datasets/REDS4/sharp_bicubic"),
                "cache_data": True,
                "io_backend": {"type": "disk"},
                "num_frame": -1,
            },
        },
    }


@pytest.fixture
def config(reds, tmp_path) -> Path:
    path = tmp_path / "train.yml"
    plugin = "plugin: !!python/name:iart_plugin.basicsr.PLUGIN\n"
    path.write_text(plugin + yaml.safe_dump(options(reds)))
    return path


def test_check_passes_what_was_prepared(config) -> None:
    output = run("check-dataset", config)
    assert "train (REDS): 200 frame pairs" in output
    assert output.count("in order") == 2
    assert output.count("degradation: BI") == 2


def test_check_finds_the_home_folder(reds, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(reds))
    opt = options(reds)
    for dataset in opt["datasets"].values():
        for key in ("dataroot_gt", "dataroot_lq"):
            dataset[key] = dataset[key].replace(str(reds), "~")
    (tmp_path / "train.yml").write_text(yaml.safe_dump(opt))
    assert run("check-dataset", tmp_path / "train.yml", "--frames", 2).count("in order") == 2


def test_check_reads_clips_that_are_degraded_later(reds, tmp_path) -> None:
    root = reds / "datasets/REDS4/GT"
    data = {"name": "clips", "type": "DegradedClipsDataset", "dataroot_gt": str(root)}
    for size, found in ((16, "train (clips): in order"), (4000, "gt_size 4000 must")):
        data |= {"num_frame": 2, "gt_size": size}
        (tmp_path / "train.yml").write_text(yaml.safe_dump({"datasets": {"train": data}}))
        assert found in run("check-dataset", tmp_path / "train.yml", fails=size == 4000)


def test_check_finds_what_is_wrong(reds, tmp_path) -> None:
    """A missing, a truncated, a shifted and a wrongly made frame, each named."""
    gt = reds / "datasets/REDS/train_sharp_with_val"
    lq = tmp_path / "lq"
    shutil.copytree(reds / "datasets/REDS/train_sharp_bicubic_with_val/X4", lq)
    opt = options(reds)
    opt["datasets"]["train"]["dataroot_lq"] = str(lq)
    del opt["datasets"]["val"]
    (tmp_path / "train.yml").write_text(yaml.safe_dump(opt))
    (lq / "001/00000050.png").rename(lq / "001/50.png")
    damaged = lq / "242/00000098.png"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    frame = cv2.imread(str(gt / "001/00000000.png"))
    shifted = bicubic_downsample(np.roll(frame, 2, 1))
    cv2.imwrite(str(lq / "001/00000000.png"), shifted)
    frame = cv2.imread(str(gt / "242/00000099.png"))
    cv2.imwrite(str(lq / "242/00000099.png"), frame[::4, ::4])
    output = run("check-dataset", tmp_path / "train.yml", "--frames", 200, fails=True)
    assert "00000050.png is missing (its folder holds 100 files" in output
    assert "00000098.png is not a readable image" in output
    assert "00000000.png is shifted against" in output
    assert "by (0, -2) rows, columns" in output
    assert "00000099.png is not what BI, BD or BD-13tap makes" in output


def test_check_reads_mmagic_configs(reds, tmp_path) -> None:
    """Its pipeline names the frames by numbers: files under other numbers are not found."""
    pytest.importorskip("mmengine")
    text = (
        "train_dataloader = dict(dataset=dict(type='BasicFramesDataset', data_root="
        f"{str(reds / 'datasets/REDS')!r}, data_prefix=dict(img='train_sharp_bicubic/X4', "
        "gt='train_sharp'), ann_file='meta_info_reds4_train.txt', depth=1, "
        "num_input_frames=15, pipeline=[dict(type='GenerateSegmentIndices', start_idx={start}, "
        "interval_list=[1])], fixed_seq_len={length}))\n"
    )

    def check(start: int, length: int | None, fails: bool = True) -> str:
        (tmp_path / "config.py").write_text(text.format(start=start, length=length))
        return run("check-dataset", tmp_path / "config.py", "--frames", 4, fails=fails)

    output = check(0, None, fails=False)
    assert "200 frame pairs" in output
    assert "in order" in output
    assert "00000100.png is missing" in check(1, None)
    assert "00000100.png is missing" in check(0, 101)
    assert "has 14 frames; 15 are read at a time" in check(0, 14)


def test_check_compares_a_septuplets_centre_with_its_own_truth(tmp_path) -> None:
    noise = np.random.RandomState(0).randint(0, 255, (16, 16, 3), np.uint8)
    image = cv2.resize(noise, (64, 64), interpolation=cv2.INTER_CUBIC)
    for index in range(1, 8):
        gt = np.roll(image, 8 * index, 1)
        for root, frame in (("GT", gt), ("BIx4", bicubic_downsample(gt))):
            (tmp_path / root / "00001/0001").mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / root / f"00001/0001/im{index}.png"), frame)
    (tmp_path / "meta.txt").write_text("00001/0001 7 (64,64,3)\n")
    dataset = {
        "name": "Vimeo90K-T",
        "type": "VideoTestVimeo90KDataset",
        "dataroot_gt": str(tmp_path / "GT"),
        "dataroot_lq": str(tmp_path / "BIx4"),
        "meta_info_file": str(tmp_path / "meta.txt"),
        "num_frame": 7,
    }
    config = tmp_path / "test.yml"
    config.write_text(yaml.safe_dump({"datasets": {"test": dataset}}))
    assert "in order" in run("check-dataset", config)
    shutil.copy(tmp_path / "BIx4/00001/0001/im3.png", tmp_path / "BIx4/00001/0001/im4.png")
    assert "im4.png is" in run("check-dataset", config, fails=True)

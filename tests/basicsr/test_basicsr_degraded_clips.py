"""``DegradedClipsDataset``: what its items hold, how they repeat, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import iart_plugin.basicsr  # noqa: F401  registers
from iart_plugin.basicsr.checks import OptionError, check_dataset
from iart_plugin.basicsr.degraded_clips import DegradedClipsDataset
from iart_plugin.basicsr.training_data import SamplePlace, SeededDataset


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Clips 000 (of REDS4) and 001 of four frames of 48 x 64, with numbers that have gaps."""
    root = tmp_path_factory.mktemp("clips")
    random = np.random.default_rng(0)
    for clip in ("000", "001"):
        (root / clip).mkdir()
        for index in (1, 2, 9, 10):
            frame = random.integers(0, 256, (6, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
            frame[:4] = index  # tells the frames apart
            cv2.imwrite(str(root / clip / f"f{index}.png"), frame)
    return root


def data_set(root: Path, phase: str, **changes) -> dict:
    opt = {"name": "d", "type": "DegradedClipsDataset", "dataroot_gt": str(root)}
    opt |= {"phase": phase, "scale": 4}
    if phase == "train":
        opt |= {"num_frame": 3, "gt_size": 32, "num_worker_per_gpu": 0, "batch_size_per_gpu": 1}
    return opt | changes


def same(one: dict, two: dict) -> bool:
    return all(torch.equal(one[key], two[key]) for key in ("lq", "gt"))


def test_a_training_item_depends_on_its_place_alone(clips) -> None:
    seeded = SeededDataset(DegradedClipsDataset(data_set(clips, "train")), seed=1)
    item = seeded[SamplePlace(1, (0, 5))]
    assert item["lq"].shape == (3, 3, 8, 8)
    assert item["gt"].shape == item["gt_usm"].shape == (3, 3, 32, 32)
    assert item["key"].startswith("001/") and item["folder"] == "001"
    assert item["lq"].min() >= 0 and item["lq"].max() <= 1
    torch.rand(3), np.random.rand(3)  # noqa: NPY002
    assert same(item, seeded[SamplePlace(1, (0, 5))])
    assert not same(item, seeded[SamplePlace(1, (1, 5))])


def test_the_mirrored_sequence_goes_back(clips) -> None:
    data = DegradedClipsDataset(data_set(clips, "train", mirror_sequence=True))
    gt = data[0]["gt"]
    assert len(gt) == 6
    assert torch.equal(gt, gt.flip(0))


def test_frames_are_in_natural_order_and_clean(clips) -> None:
    item = DegradedClipsDataset(data_set(clips, "val"))[0]
    numbers = (item["gt"][:, 0, 0, 0] * 255).round().tolist()
    assert numbers == [1, 2, 9, 10]
    truth = cv2.imread(str(clips / "000" / "f9.png"))[..., ::-1]
    assert np.array_equal((item["gt"][2] * 255).round().permute(1, 2, 0), truth)


def test_sharpening_changes_the_input_too(clips) -> None:
    items = []
    for sharpen in (True, False):
        opt = data_set(clips, "train", sharpen=sharpen)
        items.append(SeededDataset(DegradedClipsDataset(opt), seed=1)[SamplePlace(0, (0, 0))])
    assert torch.equal(items[0]["gt"], items[1]["gt"])
    assert not torch.equal(items[0]["gt"], items[0]["gt_usm"])
    assert not torch.equal(items[0]["lq"], items[1]["lq"])
    assert "gt_usm" not in items[1]


def test_validation_is_the_same_each_time_and_changes_with_its_seed(clips) -> None:
    data = DegradedClipsDataset(data_set(clips, "val", num_frame=2))
    assert data.data_info == {"folder": ["000", "000", "001", "001"]}
    assert data[0]["lq"].shape == (2, 3, 12, 16)
    torch.rand(3), np.random.rand(3)  # noqa: NPY002
    assert same(data[0], data[0])
    assert not same(data[0], DegradedClipsDataset(data_set(clips, "val", num_frame=2, seed=1))[0])


def test_the_partition_divides_training_and_validation(clips) -> None:
    for phase, kept in (("train", ["001"]), ("val", ["000"])):
        data = DegradedClipsDataset(data_set(clips, phase, val_partition="REDS4"))
        assert list(data.clips) == kept


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataroot_gt": "nowhere"}, "nowhere is not a folder"),
        ({"num_frame": 5}, "000 has 4 frames, and num_frame is 5"),
        ({"num_frame": -1}, "needs num_frame of 1 or more, and gt_size"),
        ({"gt_size": 52}, r"gt_size 52 .*fit into .*f1\.png \(64x48"),
        ({"gt_size": 30}, "gt_size 30 must be a multiple of 4"),
        ({"val_partition": "official", "phase": "val"}, "no folder of frames that val_partition"),
        ({"degradation": {"frist": {}}}, "'frist' in .*degradation.*mean 'first'"),
        ({"degradation": {"first": {"jpg_range": [1, 2]}}}, "'jpg_range'.*mean 'jpeg_range'"),
        ({"degradation": {"second": {"jpeg_range": [30, 101]}}}, "highest quality is 100"),
        ({"degradation": {"second": {"noise_range": [9, 1]}}}, "noise_range.*lowest, highest"),
        ({"degradation": {"first": {"resize_prob": [0, 0, 0]}}}, "resize_prob.*above 0"),
        ({"degradation": {"first": {"blur_prob": 1.5}}}, "blur_prob is 1.5"),
        ({"io_backend": {"type": "lmdb"}}, "io_backend.type is 'lmdb'; it can be disk"),
        ({"dataroot_lq": "x"}, "'dataroot_lq'.*mean 'dataroot_gt'"),
    ],
)
def test_bad_options_are_refused_in_one_line(clips, changes, message) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        opt = data_set(clips, **{"phase": "train", **changes})
        check_dataset(opt)
        DegradedClipsDataset(opt)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["cut", "size"])
def test_a_bad_frame_is_named(clips, tmp_path, damage) -> None:
    shutil.copytree(clips, tmp_path / "clips")
    path = tmp_path / "clips" / "001" / "f10.png"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:60])
    else:
        cv2.imwrite(str(path), np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(OptionError, match=r"f10\.png"):
        check_dataset(data_set(tmp_path / "clips", "train"))


def test_without_pyav_the_extra_is_named(clips, monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(
        OptionError, match=r"av is not installed: pip install 'iart_plugin\[video\]'"
    ):
        check_dataset(data_set(clips, "train"))

"""Data sets that are refused before training starts, and how it is said."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

import iart_plugin.basicsr  # noqa: F401  registers
from iart_plugin.basicsr.checks import OptionError, check_dataset, check_datasets
from tests.basicsr.basicsr_driver import parsed, run, test_options, write_options


@pytest.fixture
def train_set(data: Path, tmp_path: Path, options) -> dict:
    """The training set's options, on a copy of the data that a test may damage."""
    shutil.copytree(data, tmp_path / "data")
    opt = parsed(options())["datasets"]["train"]
    for key in ("dataroot_gt", "dataroot_lq", "meta_info_file"):
        opt[key] = opt[key].replace(str(data), str(tmp_path / "data"))
    return opt


def test_whole_set_passes(train_set) -> None:
    check_dataset(train_set)


def test_missing_frame(train_set) -> None:
    frame = Path(train_set["dataroot_lq"], "001", "00000042.png")
    frame.unlink()
    with pytest.raises(OptionError, match=f"{frame} is missing"):
        check_dataset(train_set)


def test_missing_clip(train_set) -> None:
    clip = Path(train_set["dataroot_gt"], "002")
    shutil.rmtree(clip)
    with pytest.raises(OptionError, match=f"{clip}/00000000.png is missing"):
        check_dataset(train_set)


@pytest.mark.parametrize("damage", ["truncate", "flip", "text", "empty"])
def test_unreadable_png(train_set, damage) -> None:
    frame = Path(train_set["dataroot_gt"], "002", "00000099.png")
    content = bytearray(frame.read_bytes())
    if damage == "truncate":
        content = content[: len(content) // 2]
    elif damage == "flip":
        content[len(content) // 2] ^= 0xFF
    else:
        content = b"no image" if damage == "text" else b""
    frame.write_bytes(bytes(content))
    with pytest.raises(OptionError, match=f"{frame} is not a readable image"):
        check_dataset(train_set)


def test_mismatched_sizes(train_set) -> None:
    frame = Path(train_set["dataroot_lq"], "001", "00000007.png")
    cv2.imwrite(str(frame), np.zeros((16, 15, 3), np.uint8))
    with pytest.raises(OptionError, match=r"00000007\.png is 15x16.*do not match"):
        check_dataset(train_set)


def test_crop_larger_than_the_frames(train_set) -> None:
    train_set["gt_size"] = 256
    with pytest.raises(OptionError, match="gt_size 256"):
        check_dataset(train_set)


def test_short_reds_clip(train_set) -> None:
    Path(train_set["meta_info_file"]).write_text("001 30 (64,64,3)\n")
    with pytest.raises(OptionError, match="clip 001 30 frames"):
        check_dataset(train_set)


def test_every_clip_in_the_validation_partition(train_set) -> None:
    Path(train_set["meta_info_file"]).write_text("000 100 (64,64,3)\n")
    with pytest.raises(OptionError, match="none is left"):
        check_dataset(train_set)


def test_test_set_with_unequal_counts(data, tmp_path, options) -> None:
    shutil.copytree(data / "val", tmp_path / "val")
    opt = parsed(options())["datasets"]["val"]
    opt["dataroot_gt"] = str(tmp_path / "val" / "GT")
    opt["dataroot_lq"] = str(tmp_path / "val" / "BIx4")
    check_dataset(opt)
    Path(opt["dataroot_lq"], "000", "00000003.png").unlink()
    with pytest.raises(OptionError, match=r"4 frames.*5.*'00000003'"):
        check_dataset(opt)
    with pytest.raises(OptionError, match="Vid4, REDS4 and REDSofficial"):
        check_dataset({**opt, "name": "mine"})


def test_vimeo_set(data, tmp_path) -> None:
    frame = cv2.imread(str(data / "train" / "GT" / "001" / "00000000.png"))
    for root, image in (("GT", frame), ("BIx4", frame[::4, ::4])):
        for index in range(1, 8):
            path = tmp_path / root / "00001" / "0001" / f"im{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), image)
    (tmp_path / "meta.txt").write_text("00001/0001 7 (64,64,3)\n")
    opt = {
        "name": "Vimeo90K",
        "type": "Vimeo90KRecurrentDataset",
        "dataroot_gt": str(tmp_path / "GT"),
        "dataroot_lq": str(tmp_path / "BIx4"),
        "meta_info_file": str(tmp_path / "meta.txt"),
        "num_frame": -1,
        "gt_size": 64,
        "scale": 4,
    }
    check_dataset(opt)
    (tmp_path / "GT" / "00001" / "0001" / "im4.png").unlink()
    for kind in ("Vimeo90KRecurrentDataset", "VideoTestVimeo90KDataset"):
        with pytest.raises(OptionError, match=r"im4\.png is missing"):
            check_dataset({**opt, "type": kind, "num_frame": 7})


def test_blank_line_in_a_meta_file(train_set) -> None:
    """Which BasicSR takes for a clip's name, when that is drawn."""
    meta = Path(train_set["meta_info_file"])
    meta.write_text(meta.read_text() + "\n")
    with pytest.raises(OptionError, match=r"line 3: expected .*, got ''"):
        check_dataset(train_set)


def test_frames_whose_names_agree_in_part_are_refused(data, tmp_path) -> None:
    """Equal counts, but each side lacks another frame: sorted pairs would be misaligned."""
    shutil.copytree(data / "val", tmp_path / "val")
    (tmp_path / "val" / "BIx4" / "000" / "00000001.png").unlink()
    (tmp_path / "val" / "GT" / "000" / "00000003.png").unlink()
    opt = {
        "name": "REDS4",
        "type": "VideoRecurrentTestDataset",
        "phase": "test",
        "cache_data": True,
        "num_frame": -1,
        "dataroot_gt": str(tmp_path / "val" / "GT"),
        "dataroot_lq": str(tmp_path / "val" / "BIx4"),
        "io_backend": {"type": "disk"},
        "scale": 4,
    }
    with pytest.raises(OptionError, match="not the same .*'00000001'"):
        check_dataset(opt)


def rewrite(path: Path, change) -> None:
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace(b" ", b"  ", 1), "line 1: expected 'clip frames .h,w,c.'"),
        (lambda text: text.replace(b" ", b"\t"), r"line 1: expected .*, got '001\\t100"),
        (lambda text: text.replace(b"\n", b" \n"), "line 1: expected"),
        (lambda text: b"\xef\xbb\xbf" + text, "byte order mark.*Save the file as UTF-8"),
        (lambda text: text.decode().encode("utf-16"), "byte order mark"),
        (lambda text: text.decode().encode("utf-16-le"), "line 1: expected"),
        (lambda text: b"\xff" + text, "is not in UTF-8"),
        (lambda text: b"", "lists no clip"),
    ],
    ids=["two spaces", "tabs", "trailing space", "BOM", "UTF-16", "no BOM", "Latin", "empty"],
)
def test_meta_file_that_basicsr_reads_otherwise(train_set, change, message) -> None:
    rewrite(Path(train_set["meta_info_file"]), change)
    with pytest.raises(OptionError, match=message) as caught:
        check_dataset(train_set)
    assert "\n" not in str(caught.value)


def test_meta_file_of_windows_is_read(train_set) -> None:
    rewrite(Path(train_set["meta_info_file"]), lambda text: text.replace(b"\n", b"\r\n"))
    check_dataset(train_set)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_frame": 101}, "num_frame is 101, and a clip has 100 frames"),
        ({"num_frame": 51, "interval_list": [1, 2]}, "num_frame is 51 at an interval of 2"),
        ({"dataroot_lq": "nowhere"}, "dataroot_lq nowhere is not a folder"),
        ({"dataroot_lq": None}, r"dataroot_lq is not set\.$"),
        (
            {"dataroot_gt": None},
            "is not set.*val.metrics left out.*iart-plugin upscale",
        ),
    ],
)
def test_clips_that_do_not_have_what_is_asked_for(train_set, changes, message) -> None:
    check_dataset(train_set | {"num_frame": 50, "interval_list": [1, 2]})
    with pytest.raises(OptionError, match=message):
        check_dataset(train_set | changes)


def test_window_of_a_test_beyond_its_clip(options) -> None:
    opt = parsed(options())["datasets"]["val"]
    opt.update(type="VideoTestDataset", num_frame=5, padding="reflection")
    check_dataset(opt)
    with pytest.raises(OptionError, match="num_frame is 7, and .*000 has 5 frames"):
        check_dataset(opt | {"num_frame": 7})


@pytest.mark.parametrize(("metric", "border"), [("psnr", 32), ("ssim", 27)])
def test_border_that_leaves_nothing_to_measure(options, metric, border) -> None:
    opt = parsed(options())
    del opt["datasets"]["train"]
    check_datasets(opt)
    opt["val"]["metrics"][metric]["crop_border"] = border
    with pytest.raises(OptionError, match="frames of at least 65 pixels"):
        check_datasets(opt)


def test_bad_meta_file_leaves_an_earlier_run_where_it_is(options, tmp_path) -> None:
    (tmp_path / "meta.txt").write_text("001  100 (64,64,3)\n")
    (tmp_path / "experiments" / "run").mkdir(parents=True)
    opt = options(datasets__train__meta_info_file=str(tmp_path / "meta.txt"))
    output = run("basicsr_train", write_options(opt, tmp_path / "train.yml"), fails=True)
    assert output.count("\n") <= 2 and "line 1: expected" in output
    assert [path.name for path in (tmp_path / "experiments").iterdir()] == ["run"]


def test_frames_are_made_without_ground_truth(options, tmp_path) -> None:
    opt = test_options(options(), "")
    opt["path"]["pretrain_network_g"] = None
    opt["datasets"]["test"]["dataroot_gt"] = None
    file = write_options(opt, tmp_path / "test.yml")
    assert "dataroot_gt is not set. Without ground truth, test" in run(
        "basicsr_test", file, fails=True
    )
    opt["val"]["metrics"] = None
    run("basicsr_test", write_options(opt, tmp_path / "test.yml"))
    images = sorted((tmp_path / "results/run/visualization/REDS4/000").iterdir())
    assert len(images) == 5
    assert cv2.imread(str(images[0])).shape == (64, 64, 3)

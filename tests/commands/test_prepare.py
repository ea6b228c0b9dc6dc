"""Preparing REDS and Vimeo-90K, on small trees in their layouts."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest

from iart_plugin.data import bicubic_downsample, gaussian_downsample, preparation
from tests.commands.command_driver import run, write_picture


def test_reds_is_regrouped_and_reduced(reds) -> None:
    out = reds / "datasets" / "REDS"
    for tree in ("train_sharp_with_val", "train_sharp_bicubic_with_val/X4"):
        assert sorted(p.name for p in (out / tree).iterdir()) == ["000", "001", "242"]
    gt = cv2.imread(str(out / "train_sharp_with_val/242/00000007.png"))
    assert np.array_equal(gt, cv2.imread(str(reds / "download/val_sharp/002/00000007.png")))
    lq = cv2.imread(str(out / "train_sharp_bicubic_with_val/X4/242/00000007.png"))
    assert np.array_equal(lq, bicubic_downsample(gt))
    assert "242 100" in (out / "meta_info_reds4_train.txt").read_text()
    meta = (out / "meta_info_REDS_GT.txt").read_text().splitlines()
    assert meta == [f"{clip} 100 (48,64,3)" for clip in ("000", "001", "242")]
    assert (out / "meta_info_REDS4_test_GT.txt").read_text() == "000 100 (48,64,3)\n"
    assert (reds / "datasets/REDS4/sharp_bicubic/000/00000099.png").is_file()
    assert (out / "train_sharp_bicubic/X4/001/00000000.png").is_file()  # MMagic's name


def test_reds_is_continued_not_repeated(reds) -> None:
    out = reds / "datasets" / "REDS" / "train_sharp_bicubic_with_val" / "X4" / "001"
    kept, lost = out / "00000001.png", out / "00000002.png"
    before, content = kept.stat().st_mtime_ns, lost.read_bytes()
    lost.unlink()
    run("prepare-reds", reds / "download", "--output", reds / "datasets/REDS", "--workers", 2)
    assert kept.stat().st_mtime_ns == before
    assert lost.read_bytes() == content


def test_reds_takes_downloaded_bicubic_frames(reds, tmp_path) -> None:
    download = tmp_path / "download"
    source = reds / "datasets/REDS/train_sharp_bicubic_with_val/X4/001"
    shutil.copytree(reds / "download/train/train_sharp/001", download / "train/train_sharp/001")
    shutil.copytree(source, download / "train/train_sharp_bicubic/X4/001")
    output = run("prepare-reds", download, "--output", tmp_path / "REDS", "--workers", 1)
    assert "1 low-resolution clips were downloaded, 0 to make" in output
    assert (tmp_path / "REDS/train_sharp_bicubic_with_val/X4/001").is_symlink()


def test_reds_through_symbolic_links(reds, tmp_path) -> None:
    """Both the download and the output lie on another disk, at another depth."""
    (tmp_path / "disk/deep/REDS").mkdir(parents=True)
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets/REDS").symlink_to(tmp_path / "disk/deep/REDS")
    (tmp_path / "download").mkdir()
    (tmp_path / "download/train_sharp").symlink_to(reds / "download/train/train_sharp")
    output = tmp_path / "datasets/REDS"
    for _ in range(2):
        run("prepare-reds", tmp_path / "download", "--output", output, "--workers", 1)
    assert (output / "train_sharp_with_val/001/00000000.png").is_file()
    assert (output / "train_sharp/001/00000000.png").is_file()
    assert (tmp_path / "datasets/REDS4/GT/000/00000000.png").is_file()


def test_reds_downloaded_to_the_output_itself(reds, tmp_path) -> None:
    """MMagic's lists name no clip that its train_sharp lacks."""
    shutil.copytree(reds / "download/train/train_sharp", tmp_path / "REDS/train_sharp")
    shutil.copytree(reds / "download/val_sharp", tmp_path / "REDS/val_sharp")
    run("prepare-reds", tmp_path / "REDS", "--output", tmp_path / "REDS", "--workers", 1)
    lists = {n: tmp_path / f"REDS/meta_info_{n}.txt" for n in ("reds4_train", "REDS_GT")}
    clips = {n: [line[:3] for line in p.read_text().splitlines()] for n, p in lists.items()}
    assert clips == {"reds4_train": ["001"], "REDS_GT": ["000", "001", "242"]}
    assert [p.name for p in (tmp_path / "REDS/train_sharp").iterdir() if p.is_symlink()] == []


def test_copies_in_place_of_links_are_whole(tmp_path, monkeypatch) -> None:
    for frame in range(3):
        write_picture(tmp_path / f"source/{frame}.png", frame)

    def refused(*_arguments, **_options):
        raise OSError

    def interrupted(source, target):
        if source.endswith("2.png"):
            raise KeyboardInterrupt
        return copy(source, target)

    copy = shutil.copy2
    monkeypatch.setattr(preparation.os, "symlink", refused)
    monkeypatch.setattr(preparation.os, "link", refused)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(preparation.shutil, "copy2", interrupted)
        preparation.link_folder(tmp_path / "source", tmp_path / "output/clip")
    assert not (tmp_path / "output/clip").exists()
    preparation.link_folder(tmp_path / "source", tmp_path / "output/clip")
    assert len(list((tmp_path / "output/clip").iterdir())) == 3
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["clip"]


def test_vimeo_bi_bd_and_lmdb(tmp_path) -> None:
    download = tmp_path / "vimeo_septuplet"
    for seed, clip in enumerate(("00001/0001", "00001/0002", "00002/0001")):
        for frame in range(1, 8):
            write_picture(download / "sequences" / clip / f"im{frame}.png", 10 * seed + frame)
    (download / "sep_trainlist.txt").write_text("00001/0001\n00002/0001\n")
    (download / "sep_testlist.txt").write_text("00001/0002\n")
    out = tmp_path / "out"
    run("prepare-vimeo90k", download, "--output", out, "--workers", 1, "--lmdb")
    for kind in ("BD", "BD-13tap"):
        run("prepare-vimeo90k", download, "--output", out, "--workers", 1, "--degradation", kind)
    gt = cv2.imread(str(out / "GT/00001/0002/im3.png"))
    for folder, expected in (
        ("BIx4", bicubic_downsample(gt)),
        ("BDx4", gaussian_downsample(gt)),
        ("BD-13tapx4", gaussian_downsample(gt, version="13-tap")),
    ):
        assert np.array_equal(cv2.imread(str(out / folder / "00001/0002/im3.png")), expected)
    meta = (out / "meta_info_Vimeo90K_train_GT.txt").read_text().splitlines()
    assert meta == ["00001/0001 7 (48,64,3)", "00002/0001 7 (48,64,3)"]

    pytest.importorskip("iart_plugin.basicsr")  # which lets BasicSR be imported
    from basicsr.data import build_dataset

    dataset = build_dataset(
        {
            "name": "Vimeo90K",
            "type": "Vimeo90KRecurrentDataset",
            "dataroot_gt": str(out / "vimeo90k_train_GT.lmdb"),
            "dataroot_lq": str(out / "vimeo90k_train_BIx4.lmdb"),
            "meta_info_file": str(out / "meta_info_Vimeo90K_train_GT.txt"),
            "io_backend": {"type": "lmdb"},
            "num_frame": -1,
            "gt_size": 48,
            "random_reverse": False,
            "flip_sequence": True,
            "use_hflip": False,
            "use_rot": False,
            "scale": 4,
        }
    )
    sample = dataset[1]
    assert sample["lq"].shape == (14, 3, 12, 12)
    assert sample["gt"].shape == (14, 3, 48, 48)


def test_too_small_a_disk_is_said_first(tmp_path, monkeypatch) -> None:
    write_picture(tmp_path / "gt" / "000" / "00000000.png", 0)
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr(preparation.shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(OSError, match=r"need about .* GB under .*, 0\.00 GB are free"):
        preparation.complete_tree(tmp_path / "gt", tmp_path / "lq", ["000"], "BI", workers=1)
    assert not (tmp_path / "lq").exists()


def test_wrong_downloads_are_named(tmp_path) -> None:
    tmp_path.joinpath("empty").mkdir()
    output = run("prepare-reds", tmp_path / "empty", "--output", tmp_path / "o", fails=True)
    assert "error:" in output
    assert "holds no folder train_sharp" in output
    output = run("prepare-vimeo90k", tmp_path / "empty", "--output", tmp_path / "o", fails=True)
    assert "holds no folder 'sequences'" in output

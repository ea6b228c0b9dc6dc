"""The preparing and checking tools on small trees in REDS' and Vimeo-90K's layouts."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import shutil
import weakref
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from iart_plugin.data import bicubic_downsample, gaussian_downsample, preparation

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def write(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.RandomState(seed).rand(48, 64, 3)
    image = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 1.5), None, 0, 255, cv2.NORM_MINMAX)
    cv2.imwrite(str(path), image.astype(np.uint8))


def tool(name: str, *arguments: object, fails: bool = False) -> str:
    """Run a tool's ``main`` here, and return what it printed or what it failed with."""
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    printed, code = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        try:
            code = module.main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = ended.code
    assert bool(code) == fails, (code, printed.getvalue())
    return f"{printed.getvalue()}{code}"


@pytest.fixture(scope="module")
def reds(tmp_path_factory) -> Path:
    """Two training clips of 100 frames, one of them REDS4's, and one validation clip; prepared."""
    root = tmp_path_factory.mktemp("reds")
    for seed, clip in enumerate(
        ("train/train_sharp/000", "train/train_sharp/001", "val_sharp/002")
    ):
        for frame in range(100):
            write(root / "download" / clip / f"{frame:08d}.png", 100 * seed + frame)
    tool("prepare_reds", root / "download", "--output", root / "datasets/REDS", "--workers", 1)
    return root


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
    tool("prepare_reds", reds / "download", "--output", reds / "datasets/REDS", "--workers", 2)
    assert kept.stat().st_mtime_ns == before
    assert lost.read_bytes() == content


def test_reds_takes_downloaded_bicubic_frames(reds, tmp_path) -> None:
    download = tmp_path / "download"
    source = reds / "datasets/REDS/train_sharp_bicubic_with_val/X4/001"
    shutil.copytree(reds / "download/train/train_sharp/001", download / "train/train_sharp/001")
    shutil.copytree(source, download / "train/train_sharp_bicubic/X4/001")
    output = tool("prepare_reds", download, "--output", tmp_path / "REDS", "--workers", 1)
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
        tool("prepare_reds", tmp_path / "download", "--output", output, "--workers", 1)
    assert (output / "train_sharp_with_val/001/00000000.png").is_file()
    assert (output / "train_sharp/001/00000000.png").is_file()
    assert (tmp_path / "datasets/REDS4/GT/000/00000000.png").is_file()


def test_reds_downloaded_to_the_output_itself(reds, tmp_path) -> None:
    """MMagic's lists name no clip that its train_sharp lacks."""
    shutil.copytree(reds / "download/train/train_sharp", tmp_path / "REDS/train_sharp")
    shutil.copytree(reds / "download/val_sharp", tmp_path / "REDS/val_sharp")
    tool("prepare_reds", tmp_path / "REDS", "--output", tmp_path / "REDS", "--workers", 1)
    lists = {n: tmp_path / f"REDS/meta_info_{n}.txt" for n in ("reds4_train", "REDS_GT")}
    clips = {n: [line[:3] for line in p.read_text().splitlines()] for n, p in lists.items()}
    assert clips == {"reds4_train": ["001"], "REDS_GT": ["000", "001", "242"]}
    assert [p.name for p in (tmp_path / "REDS/train_sharp").iterdir() if p.is_symlink()] == []


def test_copies_in_place_of_links_are_whole(tmp_path, monkeypatch) -> None:
    for frame in range(3):
        write(tmp_path / f"source/{frame}.png", frame)

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
            write(download / "sequences" / clip / f"im{frame}.png", 10 * seed + frame)
    (download / "sep_trainlist.txt").write_text("00001/0001\n00002/0001\n")
    (download / "sep_testlist.txt").write_text("00001/0002\n")
    out = tmp_path / "out"
    tool("prepare_vimeo90k", download, "--output", out, "--workers", 1, "--lmdb")
    for kind in ("BD", "BD-13tap"):
        tool("prepare_vimeo90k", download, "--output", out, "--workers", 1, "--degradation", kind)
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
    write(tmp_path / "gt" / "000" / "00000000.png", 0)
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr(preparation.shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(OSError, match=r"need about .* GB under .*, 0\.00 GB are free"):
        preparation.complete_tree(tmp_path / "gt", tmp_path / "lq", ["000"], "BI", workers=1)
    assert not (tmp_path / "lq").exists()


def test_wrong_downloads_are_named(tmp_path) -> None:
    tmp_path.joinpath("empty").mkdir()
    output = tool("prepare_reds", tmp_path / "empty", "--output", tmp_path / "o", fails=True)
    assert "error:" in output
    assert "holds no folder train_sharp" in output
    output = tool("prepare_vimeo90k", tmp_path / "empty", "--output", tmp_path / "o", fails=True)
    assert "holds no folder 'sequences'" in output


@pytest.fixture
def config(reds, tmp_path) -> Path:
    path = tmp_path / "train.yml"
    plugin = "plugin: !!python/name:iart_plugin.basicsr.PLUGIN\n"
    path.write_text(plugin + yaml.safe_dump(options(reds)))
    return path


def test_check_passes_what_was_prepared(config) -> None:
    output = tool("check_dataset", config)
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
    assert tool("check_dataset", tmp_path / "train.yml", "--frames", 2).count("in order") == 2


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
    output = tool("check_dataset", tmp_path / "train.yml", "--frames", 200, fails=True)
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
        return tool("check_dataset", tmp_path / "config.py", "--frames", 4, fails=fails)

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
    assert "in order" in tool("check_dataset", config)
    shutil.copy(tmp_path / "BIx4/00001/0001/im3.png", tmp_path / "BIx4/00001/0001/im4.png")
    assert "im4.png is" in tool("check_dataset", config, fails=True)


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """Three videos of seven frames, 96x64."""
    root = tmp_path_factory.mktemp("videos")
    for seed, name in enumerate(("a", "b", "c")):
        fourcc = cv2.VideoWriter_fourcc(*"MJPG")
        writer = cv2.VideoWriter(str(root / f"{name}.avi"), fourcc, 25, (96, 64))
        noise = np.random.RandomState(seed).randint(0, 255, (16, 24, 3), np.uint8)
        image = cv2.resize(noise, (96, 64), interpolation=cv2.INTER_CUBIC)
        for shift in range(7):
            writer.write(np.roll(image, 2 * shift, 1))
        writer.release()
    return root


def test_videos_become_clips_in_reds_layout(videos, tmp_path) -> None:
    tool("prepare_clips", videos, "--held-out", "b", "--output", tmp_path, "--short-side", 48)
    assert (tmp_path / "clips.txt").read_text() == "001 a.avi\n000 b.avi held out\n002 c.avi\n"
    assert (tmp_path / "meta_info_GT.txt").read_text() == "001 100 (48,72,3)\n002 100 (48,72,3)\n"
    assert len(list((tmp_path / "val/GT/000").iterdir())) == 7
    read = [cv2.imread(str(tmp_path / f"train/GT/002/{i:08d}.png")) for i in (0, 6, 7, 12)]
    np.testing.assert_array_equal(read[0], read[3])  # played back and forth
    assert np.abs(read[1].astype(int) - read[2]).max() > 0
    low = cv2.imread(str(tmp_path / "train/BIx4/002/00000000.png"))
    np.testing.assert_array_equal(low, bicubic_downsample(read[0], 4))


def test_videos_are_shrunk_frame_by_frame(videos, monkeypatch) -> None:
    """Of 4K videos, 100 frames are 2.5 GB: none is kept at its full size."""
    spec = importlib.util.spec_from_file_location("prepare_clips", TOOLS / "prepare_clips.py")
    clips = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(clips)
    alive, most, decode = [], [], preparation.decode

    def watched(video, count):
        for frame in decode(video, count):
            alive.append(weakref.ref(frame))
            most.append(sum(one() is not None for one in alive))
            yield frame

    monkeypatch.setattr(preparation, "decode", watched)
    frames = clips.video_frames(videos / "a.avi", 7, 16)
    assert [frame.shape for frame in frames] == 7 * [(16, 24, 3)]
    assert max(most) <= 2  # the one that comes, and the one before it


def test_clips_of_photographs_follow_the_videos(videos, tmp_path) -> None:
    for seed in range(2):
        write(tmp_path / f"photographs/{seed}.jpg", seed)
    arguments = ("--photographs", tmp_path / "photographs", "--rendered", 2, "--short-side", 32)
    tool("prepare_clips", videos, "--held-out", "b", "--output", tmp_path, *arguments)
    rendered = (tmp_path / "clips.txt").read_text().splitlines()[3:]
    assert rendered == ["003 rendered 0", "004 rendered 1"]
    clips = [sorted((tmp_path / f"train/GT/{n}").iterdir()) for n in ("003", "004")]
    assert [len(clip) for clip in clips] == [100, 100]
    first, second, returned = (cv2.imread(str(clips[0][i])) for i in (0, 1, 62))
    assert first.shape == (32, 56, 3)
    assert np.abs(first.astype(int) - second).max() > 0
    np.testing.assert_array_equal(first, returned)
    low = cv2.imread(str(tmp_path / "train/BIx4/003/00000000.png"))
    np.testing.assert_array_equal(low, bicubic_downsample(first, 4))
    kept = [
        clips[0][0],
        tmp_path / "train/GT/001/00000000.png",
        *(tmp_path / "val/GT/000").iterdir(),
    ]
    written = [path.stat().st_mtime_ns for path in kept]
    tool("prepare_clips", videos, "--held-out", "b", "--output", tmp_path, *arguments)
    assert [path.stat().st_mtime_ns for path in kept] == written
    (tmp_path / "photographs/2.png").write_bytes(b"no picture")
    clean = tmp_path / "again"
    said = tool("prepare_clips", videos, "--output", clean, *arguments, fails=True)
    assert "2.png is not a readable picture" in said
    said = tool("prepare_clips", videos, "--photographs", videos, "--output", clean, fails=True)
    assert "holds no photographs" in said


def test_clips_of_another_plan_are_refused(videos, tmp_path) -> None:
    """Whatever would make a number stand for something else; nothing is written then."""
    output = tmp_path / "clips"
    made = ("--output", output, "--short-side", 16, "--validation-frames", 3)
    tool("prepare_clips", videos, "--held-out", "b", *made)
    kept = {path: path.stat().st_mtime_ns for path in output.rglob("*.*")}
    more = tmp_path / "more"
    shutil.copytree(videos, more)
    shutil.copy(videos / "a.avi", more / "aa.avi")
    for arguments, named in (
        ((videos, "--held-out", "c", *made), "001 = .*a.avi|000 = .*b.avi"),
        ((videos, "--held-out", "b", "c", *made), "002 = .*c.avi"),
        ((more, "--held-out", "b", *made), "002 = .*c.avi"),
        ((videos, "--held-out", "b", *made, "--short-side", 20), "short side = 16, not 20"),
        ((videos, "--held-out", "b", *made, "--validation-frames", 2), "000 = .*'frames': 3"),
    ):
        said = tool("prepare_clips", *arguments, fails=True)
        assert re.search(rf"{output} holds files made with ({named})", said), said
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*.*")} == kept
    shutil.copy(videos / "a.avi", more / "d.avi")  # numbered after the others: the set grows
    (more / "aa.avi").unlink()
    tool("prepare_clips", more, "--held-out", "b", *made)
    assert "003 d.avi" in (output / "clips.txt").read_text()
    assert all(path.stat().st_mtime_ns == kept[path] for path in kept if path.suffix == ".png")
    (output / "recipe.json").unlink()
    said = tool("prepare_clips", more, "--held-out", "b", *made, fails=True)
    assert "recipe.json, which would say" in said


def test_clips_refuse_what_they_cannot_hold_out(videos, tmp_path) -> None:
    said = tool("prepare_clips", videos, "--held-out", "d", "--output", tmp_path, fails=True)
    assert "--held-out d: no such video; there are a, b, c" in said
    said = tool("prepare_clips", tmp_path, "--output", tmp_path / "out", fails=True)
    assert "holds no videos" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("length", "shown"), [(1, "0000"), (2, "0101"), (4, "0123210123")])
def test_back_and_forth(length, shown) -> None:
    got = [preparation.back_and_forth(index, length) for index in range(len(shown))]
    assert got == [int(digit) for digit in shown]


def test_ensemble_frames_are_averages_of_the_symmetries(tmp_path) -> None:
    from iart_plugin.archs import IACNN, save_checkpoint

    network = IACNN(8, 1, alignment="flow_warp", extractor=False)
    save_checkpoint(network, tmp_path / "net.pth")
    for index, seed in enumerate((0, 1, 0)):  # the third frame repeats the first
        write(tmp_path / f"BIx4/001/{index:08d}.png", seed)
    arguments = ("basicvsr", tmp_path / "net.pth", tmp_path / "BIx4", tmp_path / "ensemble")
    said = tool("self_ensemble", *arguments, "--gt", tmp_path / "ensemble")
    assert "mean inf dB" in said  # measured against itself
    paths = [tmp_path / f"ensemble/001/{index:08d}.png" for index in range(3)]
    assert cv2.imread(str(paths[0])).shape == (192, 256, 3)
    assert paths[0].read_bytes() == paths[2].read_bytes() != paths[1].read_bytes()
    said = tool("self_ensemble", *arguments[:2], tmp_path / "nothing", tmp_path, fails=True)
    assert "holds no folders" in said

"""Training clips made of videos and photographs."""

from __future__ import annotations

import re
import shutil
import weakref
from pathlib import Path

import cv2
import numpy as np
import pytest

from iart_plugin.commands import prepare_clips
from iart_plugin.data import bicubic_downsample, preparation
from tests.commands.command_driver import run, write_picture


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
    run("prepare-clips", videos, "--held-out", "b", "--output", tmp_path, "--short-side", 48)
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
    alive, most, decode = [], [], preparation.decode

    def watched(video, count):
        for frame in decode(video, count):
            alive.append(weakref.ref(frame))
            most.append(sum(one() is not None for one in alive))
            yield frame

    monkeypatch.setattr(preparation, "decode", watched)
    frames = prepare_clips.video_frames(videos / "a.avi", 7, 16)
    assert [frame.shape for frame in frames] == 7 * [(16, 24, 3)]
    assert max(most) <= 2  # the one that comes, and the one before it


def test_clips_of_photographs_follow_the_videos(videos, tmp_path) -> None:
    for seed in range(2):
        write_picture(tmp_path / f"photographs/{seed}.jpg", seed)
    arguments = ("--photographs", tmp_path / "photographs", "--rendered", 2, "--short-side", 32)
    run("prepare-clips", videos, "--held-out", "b", "--output", tmp_path, *arguments)
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
    run("prepare-clips", videos, "--held-out", "b", "--output", tmp_path, *arguments)
    assert [path.stat().st_mtime_ns for path in kept] == written
    (tmp_path / "photographs/2.png").write_bytes(b"no picture")
    clean = tmp_path / "again"
    said = run("prepare-clips", videos, "--output", clean, *arguments, fails=True)
    assert "2.png is not a readable image" in said
    said = run("prepare-clips", videos, "--photographs", videos, "--output", clean, fails=True)
    assert "holds no photographs" in said


def test_clips_of_another_plan_are_refused(videos, tmp_path) -> None:
    """Whatever would make a number stand for something else; nothing is written then."""
    output = tmp_path / "clips"
    made = ("--output", output, "--short-side", 16, "--validation-frames", 3)
    run("prepare-clips", videos, "--held-out", "b", *made)
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
        said = run("prepare-clips", *arguments, fails=True)
        assert re.search(rf"{output} holds files made with ({named})", said), said
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*.*")} == kept
    shutil.copy(videos / "a.avi", more / "d.avi")  # numbered after the others: the set grows
    (more / "aa.avi").unlink()
    run("prepare-clips", more, "--held-out", "b", *made)
    assert "003 d.avi" in (output / "clips.txt").read_text()
    assert all(path.stat().st_mtime_ns == kept[path] for path in kept if path.suffix == ".png")
    (output / "recipe.json").unlink()
    said = run("prepare-clips", more, "--held-out", "b", *made, fails=True)
    assert "recipe.json, which would say" in said


def test_clips_refuse_what_they_cannot_hold_out(videos, tmp_path) -> None:
    said = run("prepare-clips", videos, "--held-out", "d", "--output", tmp_path, fails=True)
    assert "--held-out d: no such video; there are a, b, c" in said
    said = run("prepare-clips", tmp_path, "--output", tmp_path / "out", fails=True)
    assert "holds no videos" in said
    assert not (tmp_path / "out").exists()

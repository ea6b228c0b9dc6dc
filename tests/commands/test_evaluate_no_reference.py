"""``evaluate-no-reference``: on folders and videos, against BasicSR's own figures."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from iart_plugin.commands.evaluate_no_reference import main

pytest.importorskip("iart_plugin.basicsr")  # repairs BasicSR's import


def write_clip(folder: Path, count: int, seed: int, size: tuple[int, int] = (200, 210)) -> Path:
    """Frames of a scene that moves by two pixels each."""
    noise = np.random.default_rng(seed).random((size[0], size[1] + 2 * count, 3))
    scene = cv2.GaussianBlur(noise, (0, 0), 1.5)
    scene = cv2.normalize(scene, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    folder.mkdir(parents=True)
    for i in range(count):
        cv2.imwrite(str(folder / f"{i}.png"), scene[:, 2 * i : 2 * i + size[1]])
    return folder


def figures(path: Path, *options: str) -> dict[str, dict[str, float]]:
    report = path.with_name(f"{path.name}.json")
    assert main([str(path), "--json", str(report), *options]) == 0
    return {row.pop("clip"): row for row in json.loads(report.read_text())}


def test_clips_of_a_folder(tmp_path):
    from basicsr.metrics import calculate_niqe

    for name, count in (("a", 5), ("b", 3)):
        write_clip(tmp_path / "results" / name, count, seed=count)
    (tmp_path / "results" / ".hidden").mkdir()
    found = figures(tmp_path / "results")
    assert list(found) == ["a", "b", "mean"]
    paths = [tmp_path / "results" / "a" / f"{i}.png" for i in (0, 2, 4)]
    expected = np.mean([calculate_niqe(cv2.imread(str(p)), crop_border=0) for p in paths])
    assert found["a"]["niqe"] == pytest.approx(expected)
    assert found["mean"]["niqe"] == pytest.approx((found["a"]["niqe"] + found["b"]["niqe"]) / 2)
    assert 0 < found["a"]["warping error"] < 1e-3
    every = figures(tmp_path / "results", "--frames", "all")
    assert every["b"] == found["b"] and every["a"]["niqe"] != found["a"]["niqe"]


def test_flicker_is_told_by_the_inputs_flow(tmp_path):
    inputs = write_clip(tmp_path / "in" / "clip", 4, seed=0)
    results = tmp_path / "out" / "clip"
    results.mkdir(parents=True)
    for path in inputs.iterdir():
        frame = cv2.imread(str(path)).astype(int) + 20 * (int(path.stem) % 2)
        cv2.imwrite(str(results / path.name), np.clip(frame, 0, 255).astype(np.uint8))
    options = ("--metrics", "--flow-from", str(tmp_path / "in"))
    flicker = figures(tmp_path / "out", *options)["clip"]
    assert flicker == {"warping error": pytest.approx((20 / 255) ** 2, rel=0.15)}
    assert figures(tmp_path / "in", *options)["clip"]["warping error"] < 1e-4


def test_a_video_and_a_single_frame(tmp_path):
    pytest.importorskip("av")
    from tests import videos

    frames = [cv2.imread(str(p)) for p in write_clip(tmp_path / "f", 3, seed=0).iterdir()]
    video = videos.write_clip(tmp_path / "clip.mkv", videos.Clip(frames))
    found = figures(video, "--no-temporal")
    assert list(found) == ["clip", "mean"] and 1 < found["clip"]["niqe"] < 20
    alone = write_clip(tmp_path / "one", 1, seed=1)
    assert math.isnan(figures(alone)["one"]["warping error"])


def test_folders_whose_names_have_dots_are_clips_of_their_own(tmp_path):
    for name in ("take.1", "take.2"):
        write_clip(tmp_path / "results" / name, 2, seed=0, size=(40, 50))
    assert list(figures(tmp_path / "results", "--metrics")) == ["take.1", "take.2", "mean"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["{}/nowhere"], "no such file or folder"),
        (["{}/empty"], "neither frames, nor folders of frames"),
        (["{}/small"], "frame 0: NIQE needs frames of 192x192 pixels, got 50x40"),
        (["{}/clips", "--metrics", "--flow-from", "{}/clips/a"], "has no clip 'b'"),
        (["{}/clips/a", "--metrics", "--flow-from", "{}/clips/b"], "different numbers of frames"),
        (["{}/plain"], "plain, frame 0: NIQE has no value for a frame with too little detail"),
        (["{}/clips", "--metrics", "--no-temporal"], "--no-temporal leaves nothing to measure"),
        (["{}/clips/a", "--metrics", "--json", "{}"], "name a file in a folder that exists"),
        (["{}/clips/a", "--metrics", "--json", "{}/no/x.json"], "name a file in a folder"),
        (["{}/twice", "--metrics"], "c and c.mkv would both be the clip 'c'"),
        (["{}/mixed", "--metrics"], "and also a, which is a clip"),
    ],
)
def test_bad_input_is_one_line(options, message, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    write_clip(tmp_path / "small", 2, seed=0, size=(40, 50))
    for name, count in (("a", 2), ("b", 3)):
        write_clip(tmp_path / "clips" / name, count, seed=0, size=(40, 50))
    plain = write_clip(tmp_path / "plain", 1, seed=0)
    cv2.imwrite(str(plain / "0.png"), np.full((200, 200, 3), 128, np.uint8))
    write_clip(tmp_path / "twice" / "c", 2, seed=0)
    (tmp_path / "twice" / "c.mkv").touch()
    write_clip(tmp_path / "mixed" / "a", 2, seed=0)
    shutil.copy(plain / "0.png", tmp_path / "mixed")
    assert main([option.format(tmp_path) for option in options]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ") and message in last


@pytest.mark.skipif(importlib.util.find_spec("pyiqa") is not None, reason="pyiqa is installed")
def test_a_metric_of_pyiqa_says_what_it_needs(tmp_path, capsys):
    assert main([str(write_clip(tmp_path / "a", 1, seed=0)), "--metrics", "musiq"]) == 1
    assert "pip install pyiqa" in capsys.readouterr().err

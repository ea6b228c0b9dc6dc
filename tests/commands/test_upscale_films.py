"""Several inputs, and outputs of another size than four times the source."""

from __future__ import annotations

import argparse
import os
from fractions import Fraction

import cv2
import numpy as np
import pytest

from iart_plugin.commands.upscale import UpscaleOptions, cli, upscale_video
from iart_plugin.commands.upscale.films import plan_films, split_output
from iart_plugin.commands.upscale.report import _two_digits
from tests.videos import Clip, moving_picture, read_back, write_clip

PICTURES = [moving_picture(i) for i in range(3)]
OPTIONS = UpscaleOptions("", "", model="bicubic", device="cpu", quiet=True)


@pytest.fixture
def films(tmp_path):
    """Two films, a bad one, a folder of frames, and what is none of it."""
    folder = tmp_path / "films"
    (folder / "frames").mkdir(parents=True)
    (folder / "empty").mkdir()
    for name in ("a_10.mp4", "a_9.mov"):
        write_clip(folder / name, Clip(PICTURES))
    (folder / "bad.mp4").write_bytes(b"no film")
    (folder / "notes.txt").write_text("x")
    (folder / "._a_9.mov").write_bytes(b"x")
    for i, picture in enumerate(PICTURES):
        cv2.imwrite(str(folder / "frames" / f"{i}.png"), picture)
    return folder


def call(*arguments):
    return cli.main([*map(str, arguments), "--model", "bicubic", "--device", "cpu", "-q"])


def test_the_last_name_is_the_output(films, tmp_path):
    assert call(films / "a_10.mp4", tmp_path / "out.mp4") == 0
    assert len(read_back(tmp_path / "out.mp4").frames) == 3
    assert call("-y", films / "a_10.mp4", "--crf", "30", tmp_path / "out.mp4") == 0
    assert split_output(["a", "b", "c"], None) == (["a", "b"], "c")
    assert split_output(["a", "b"], "c") == (["a", "b"], "c")


def test_no_output(films, capsys):
    assert call(films / "a_10.mp4") == 1
    assert "name an output" in capsys.readouterr().err


def test_a_bad_film_does_not_stop_the_others(films, tmp_path, capsys):
    output = tmp_path / "out"
    assert call(films, "-o", output) == 1
    said = capsys.readouterr().err
    assert "bad.mp4: not a video" in said
    assert f"1 of 4 films failed: {films / 'bad.mp4'}" in said
    assert sorted(os.listdir(output)) == ["a_10.mp4", "a_9.mov", "frames"]
    assert len(list((output / "frames").glob("*.png"))) == 3
    before = {path: path.stat().st_mtime_ns for path in output.iterdir()}
    write_clip(films / "bad.mp4", Clip(PICTURES))
    assert call(films, "-o", output, "--resume") == 0
    assert len(read_back(output / "bad.mp4").frames) == 3
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


@pytest.mark.parametrize(
    ("inputs", "output", "expected"),
    [
        (["{films}"], "out", ["a_9.mov", "a_10.mp4", "bad.mp4", "frames"]),
        (["{films}/a*.m*"], "out", ["a_9.mov", "a_10.mp4"]),
        (["{films}/a_9.mov", "{films}/frames"], "out/", ["a_9.mov", "frames"]),
        (["{films}/a_10.mp4"], "out.mkv", None),
        (["{films}/frames"], "out.mkv", None),
        (["{films}/frames/*.png"], "out", None),
        (["-"], "out.mkv", None),
    ],
)
def test_what_inputs_stand_for(films, inputs, output, expected):
    inputs = [given.format(films=films) for given in inputs]
    runs = plan_films(inputs, output, OPTIONS)
    if expected is None:
        assert [(run.input, run.output) for run in runs] == [(inputs[0], output)]
    else:
        assert [os.path.basename(run.input) for run in runs] == expected
        assert [run.output for run in runs] == [os.path.join("out", name) for name in expected]


@pytest.mark.parametrize(
    ("inputs", "output", "message"),
    [
        (["{films}"], "out.mp4", "4 films need a folder to go to"),
        (["{films}"], "-", "a pipe takes one film at a time"),
        (["{films}/a_9.mov", "-"], "out", "a pipe takes one film at a time"),
        (["{films}/frames", "{films}/frames"], "out", "would both become"),
        (["{films}/empty"], "out", "no films, images or folders of images in it"),
    ],
)
def test_inputs_that_cannot_be(films, inputs, output, message):
    with pytest.raises(ValueError, match=message):
        plan_films([given.format(films=films) for given in inputs], output, OPTIONS)


def test_containers_that_are_not_written_become_matroska(tmp_path):
    for name in ("a.avi", "b.ts"):
        (tmp_path / name).touch()
    runs = plan_films([str(tmp_path)], "out", OPTIONS)
    assert [run.output for run in runs] == [os.path.join("out", n) for n in ("a.mkv", "b.mkv")]


@pytest.mark.parametrize(
    ("given", "size"),
    [({"scale": 2.0}, (48, 64)), ({"height": 54}, (54, 72)), ({"scale": 1.55}, (38, 50))],
)
def test_another_size(tmp_path, given, size):
    source = write_clip(tmp_path / "in.mp4", Clip(PICTURES))
    common = {"model": "bicubic", "device": "cpu", "quiet": True}
    upscale_video(UpscaleOptions(str(source), str(tmp_path / "out.mp4"), **common, **given))
    whole = tmp_path / "whole.mp4"
    upscale_video(UpscaleOptions(str(source), str(whole), **common))
    film = read_back(tmp_path / "out.mp4")
    assert film.video["size"] == size[::-1]
    expected = cv2.resize(read_back(whole).frames[1], size[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(film.frames[1].astype(int) - expected).mean() < 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"scale": 5.0}, "--scale 5: the network can make 1 to 4"),
        ({"scale": 0.5}, "--scale 0.5"),
        ({"height": 97}, "--height 97: from 24 pixels the network can make up to 96"),
        ({"height": 0}, "--height 0"),
        ({"scale": 2.0, "height": 48}, "give one of them"),
        ({"scale": 2.0, "compare": "side"}, "leave out --scale"),
        ({"crf": float("nan")}, "--crf nan"),
    ],
)
def test_sizes_that_cannot_be(tmp_path, given, message):
    source = write_clip(tmp_path / "in.mp4", Clip(PICTURES))
    options = UpscaleOptions(
        str(source), str(tmp_path / "out.mp4"), model="bicubic", device="cpu", **given
    )
    with pytest.raises(ValueError, match=message):
        upscale_video(options)


def part(tmp_path, suffix="mp4", **given):
    """A part of 24 frames, one second with sound."""
    frames = [moving_picture(i) for i in range(24)]
    source = write_clip(tmp_path / f"in.{suffix}", Clip(frames, audio_seconds=1.0))
    output = tmp_path / "out.mp4"
    upscale_video(
        UpscaleOptions(
            str(source),
            str(output),
            model="bicubic",
            device="cpu",
            quiet=True,
            **{"chunk": 4, **given},
        )
    )
    return read_back(source), read_back(output)


@pytest.mark.parametrize("suffix", ["mp4", "ts"])
@pytest.mark.parametrize(
    ("given", "first", "last"),
    [
        ({"frames": 5}, 0, 5),
        ({"end": Fraction(1, 2)}, 0, 12),
        ({"start": Fraction(1, 2)}, 12, 24),
        ({"start": Fraction(1, 4), "end": Fraction(1, 2), "frames": 99}, 6, 12),
        ({"start": Fraction(1, 4), "frames": 3}, 6, 9),
    ],
)
def test_a_part_of_a_film(tmp_path, given, first, last, suffix):
    """With the sound of that part, beginning at 0."""
    before, after = part(tmp_path, suffix, **given)
    assert len(after.frames) == last - first
    assert after.times[0] < Fraction(1, 24)
    for i in (0, -1):
        shown = cv2.resize(after.frames[i], (32, 24), interpolation=cv2.INTER_AREA).astype(int)
        differences = [np.abs(shown - frame).mean() for frame in before.frames]
        assert np.argmin(differences) == range(first, last)[i]
    seconds = Fraction(last - first, 24)
    sound = after.packet_times["audio"]
    assert abs(sound[0]) < Fraction(1, 20)
    assert seconds - Fraction(1, 10) < sound[-1] < seconds + after.times[0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"start": Fraction(9)}, "--start 9: no frame is selected; the film's last one is at 0.9"),
        ({"start": Fraction(1), "end": Fraction(1)}, "--end 1 must be after --start 1"),
        ({"end": Fraction(0)}, "--end 0 must be after --start 0"),
        ({"frames": 0}, "--frames 0: take at least 1"),
        ({"chunk": 0}, "--chunk 0: make at least 1 frame"),
        ({"warm_up": -1}, "--warm-up -1: give 0 or more"),
        ({"overlap": -1}, "--overlap -1: give 0 or more"),
        ({"tile": (0, 64)}, "--tile 0x64: give sides of at least 1 pixel"),
        ({"frames": 2, "compare": "side"}, "leave out --start"),
    ],
)
def test_parts_that_cannot_be(tmp_path, given, message):
    with pytest.raises(ValueError, match=message) as raised:
        part(tmp_path, **given)
    assert "--resume" not in str(raised.value)
    assert not list(tmp_path.glob("*.unfinished"))


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1:30", 90), ("0:01:30.5", Fraction(181, 2))]
)
def test_times_of_the_command_line(text, seconds):
    assert cli._seconds(text) == seconds


@pytest.mark.parametrize("text", ["x", "-1", "1:2:3:4", "1/0", "", "1e400", "nan"])
def test_times_that_are_none(text):
    with pytest.raises(argparse.ArgumentTypeError, match="write seconds, or H:MM:SS"):
        cli._seconds(text)


@pytest.mark.parametrize("text", ["x", "1/0", "nan", ""])
def test_rates_of_the_command_line(text):
    assert cli._rate("24000/1001") == Fraction(24000, 1001)
    with pytest.raises(argparse.ArgumentTypeError, match="write a number, as 25 or 24000/1001"):
        cli._rate(text)


def test_times_are_written_as_people_do():
    assert [_two_digits(x) for x in (432.1, 4.32, 0.01234, 12345.0)] == ["430", "4.3", "0.012",
                                                                         "12000"]  # fmt: skip

"""Films from pipes, and raw frames to pipes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from fractions import Fraction
from types import SimpleNamespace

import pytest

from tests.videos import (
    Clip,
    feeding,
    pictures,
    read_back,
    upscale,
    write_clip,
)


def test_pipe_in(tmp_path, monkeypatch):
    """From a pipe that cannot be rewound, with the sound that can only be read once."""
    clip = Clip(pictures(24), audio_seconds=1.0)
    source = write_clip(tmp_path / "in.mkv", clip)
    with feeding(source.read_bytes()) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        result = upscale("-", tmp_path / "out.mkv")
    assert result.frames == 24
    before, after = read_back(source), read_back(tmp_path / "out.mkv")
    assert after.packets["audio"] == before.packets["audio"]
    assert after.packet_times["audio"] == before.packet_times["audio"]
    assert after.times == before.times


@pytest.mark.parametrize("suffix", ["webm", "mp4"])
def test_pipe_with_a_stream_that_cannot_be_stored(tmp_path, monkeypatch, suffix):
    """It is encoded anew, as a file's would be."""
    source = write_clip(tmp_path / "in.mkv", Clip(pictures(24), audio_seconds=1.0))
    with feeding(source.read_bytes()) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        upscale("-", tmp_path / f"out.{suffix}")
    after = read_back(tmp_path / f"out.{suffix}")
    assert len(after.frames) == 24
    assert len(after.packets["audio"]) > 40


def test_named_pipe_in(tmp_path):
    """It can be opened once only, and its sound is read once only."""
    source = write_clip(tmp_path / "in.mkv", Clip(pictures(24), audio_seconds=1.0))
    os.mkfifo(tmp_path / "fifo")
    thread = threading.Thread(
        target=lambda: (tmp_path / "fifo").write_bytes(source.read_bytes()), daemon=True
    )
    thread.start()
    assert upscale(tmp_path / "fifo", tmp_path / "out.mkv").frames == 24
    thread.join()
    assert read_back(tmp_path / "out.mkv").packets["audio"] == read_back(source).packets["audio"]


def test_standard_input_by_its_path(tmp_path):
    source = write_clip(tmp_path / "in.mkv", Clip(pictures(6), audio_seconds=0.2))
    program = "import sys; from iart_plugin.commands.upscale import cli; sys.exit(cli.main())"
    command = [sys.executable, "-c", program, "/dev/stdin", "-o", str(tmp_path / "out.mkv")]
    command += ["--model", "bicubic", "--device", "cpu", "-q"]
    subprocess.run(command, input=source.read_bytes(), check=True, timeout=120)
    after = read_back(tmp_path / "out.mkv")
    assert len(after.frames) == 6
    assert after.packets["audio"] == read_back(source).packets["audio"]


class PipeEnd:
    """Can be written to and nothing else."""

    def __init__(self, file):
        self.write, self.flush = file.write, file.flush


@pytest.mark.parametrize("form", ["y4m", "nut"])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
def test_pipe_out(tmp_path, form, pix_fmt, monkeypatch):
    times = [0, 1, 2, 5, 6, 7] if form == "nut" else None
    clip = Clip(pictures(6), rate=Fraction(25), pix_fmt=pix_fmt, times=times)
    source = write_clip(tmp_path / "in.mp4", clip)
    piped = tmp_path / f"out.{form}"
    with piped.open("wb") as file:
        monkeypatch.setattr("sys.stdout", SimpleNamespace(buffer=PipeEnd(file)))
        upscale(source, "-", pipe_format=form)
    after = read_back(piped)
    assert after.video["size"] == (128, 96)
    assert after.video["pix_fmt"] == pix_fmt
    assert times or after.video["rate"] == 25
    assert after.times == [Fraction(t, 25) for t in times or range(6)]


def pipe_of(tmp_path, monkeypatch, source, form, **options):
    piped = tmp_path / f"out.{form}"
    with piped.open("wb") as file:
        monkeypatch.setattr("sys.stdout", SimpleNamespace(buffer=PipeEnd(file)))
        upscale(source, "-", pipe_format=form, **options)
    return piped


@pytest.mark.parametrize("aspect", [Fraction(1), Fraction(32, 27), Fraction(16, 15)])
@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("mp4", {}), ("mov", {}), ("mkv", {}), ("mkv", {"codec": "libvpx-vp9"}),
        ("mkv", {"codec": "libsvtav1"}), ("mkv", {"lossless": True}), ("webm", {}),
        ("y4m", {}), ("nut", {}),
    ],
)  # fmt: skip
def test_shape_of_pixels(tmp_path, monkeypatch, suffix, options, aspect):
    """It is kept in every container and pipe, exactly, for readers of any kind."""
    clip = Clip(pictures(2, height=64, width=64), sample_aspect_ratio=aspect, audio_seconds=0.1)
    source = write_clip(tmp_path / "in.mp4", clip)
    if suffix in ("y4m", "nut"):
        output = pipe_of(tmp_path, monkeypatch, source, suffix)
    else:
        output = tmp_path / f"out.{suffix}"
        upscale(source, output, **options)
    after = read_back(output)
    assert len(after.frames) == 2
    assert (after.video["aspect"] or 1) == aspect
    if shutil.which("ffprobe"):
        command = "ffprobe -v error -select_streams v:0 -show_entries stream=sample_aspect_ratio"
        shown = subprocess.run(
            [*command.split(), "-of", "csv=p=0", str(output)], capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        assert not shown.stderr
        wanted = {f"{aspect.numerator}:{aspect.denominator}", *(["N/A"] if aspect == 1 else [])}
        assert shown.stdout.strip() in wanted
    if suffix == "mkv" and shutil.which("mkvmerge"):
        found = subprocess.run(
            ["mkvmerge", "-J", str(output)], capture_output=True, text=True, check=True
        )
        report = json.loads(found.stdout)
        assert not report["errors"] + report["warnings"]
        width, height = report["tracks"][0]["properties"]["display_dimensions"].split("x")
        assert Fraction(int(width), int(height)) == aspect


def test_y4m_says_where_chroma_is(tmp_path, monkeypatch):
    source = write_clip(tmp_path / "in.mp4", Clip(pictures(2)))
    for form, name in (("yuv420p", "420mpeg2"), ("yuv422p", "422"), ("yuv420p10le", "420p10")):
        piped = pipe_of(tmp_path, monkeypatch, source, "y4m", pix_fmt=form)
        header = piped.read_bytes().split(b"\n", 1)[0].decode().split()
        assert header[:3] == ["YUV4MPEG2", "W128", "H96"]
        assert f"C{name}" in header
        assert read_back(piped).video["pix_fmt"] == form
    with pytest.raises(ValueError, match="y4m takes yuv420p"):
        pipe_of(tmp_path, monkeypatch, source, "y4m", pix_fmt="gbrp")

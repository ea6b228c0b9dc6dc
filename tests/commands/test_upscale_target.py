"""What may not be an output, and files that are not the run's own."""

from __future__ import annotations

import os
import sys

import cv2
import filelock
import numpy as np
import pytest

from iart_plugin.commands.upscale import UpscaleOptions, upscale_video
from iart_plugin.commands.upscale.target import own_pattern
from iart_plugin.inference.models import Bicubic
from tests.videos import Clip, moving_picture, read_back, write_clip


@pytest.fixture(autouse=True)
def _short_segments(monkeypatch):
    monkeypatch.setattr("iart_plugin.commands.upscale.job.SHORTEST_SEGMENT", 4)


@pytest.fixture
def source(tmp_path):
    return write_clip(tmp_path / "in.mp4", Clip([moving_picture(i) for i in range(10)]))


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(5):
        cv2.imwrite(str(folder / f"shot_{i}.png"), moving_picture(i))
    return folder


def run(source, output, **given):
    common = {"model": "bicubic", "device": "cpu", "quiet": True, "chunk": 4, "warm_up": 1}
    return upscale_video(UpscaleOptions(str(source), str(output), **{**common, **given}))


def stop_at(monkeypatch, call, error):
    """The network fails at one of its calls, and is mended by what is returned."""
    whole, calls = Bicubic.forward, iter(range(10**6))

    def forward(self, lqs):
        if next(calls) == call:
            raise error
        return whole(self, lqs)

    monkeypatch.setattr(Bicubic, "forward", forward)
    return lambda: monkeypatch.setattr(Bicubic, "forward", whole)


def everything(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("name", ["in.mp4", "hard.mp4", "soft.mp4", "./sub/../in.mp4"])
def test_the_source_is_not_replaced(source, tmp_path, name):
    (tmp_path / "sub").mkdir()
    os.link(source, tmp_path / "hard.mp4")
    os.symlink(source, tmp_path / "soft.mp4")
    before = everything(tmp_path)
    for output in (f"{tmp_path}/{name}", str(tmp_path / name)):
        with pytest.raises(ValueError, match="this is the source itself"):
            run(source, output, overwrite=True)
    with pytest.raises(ValueError, match="this is the source itself"):
        run(tmp_path / name, source, overwrite=True)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("given", ["{images}", "{images}/*.png", "{link}"])
def test_the_sources_folder_is_no_output(images, tmp_path, given):
    link = tmp_path / "link"
    link.symlink_to(images)
    before = everything(images)
    for output in (images, link, f"{images}/"):
        with pytest.raises(ValueError, match="this is the source itself"):
            run(given.format(images=images, link=link), output, overwrite=True)
    assert everything(images) == before


def test_what_is_piped_in_is_not_replaced(source, tmp_path, monkeypatch):
    with source.open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        with pytest.raises(ValueError, match="this is the source itself, -"):
            run("-", source, overwrite=True)
    assert len(read_back(source).frames) == 10


def test_the_comparison_does_not_replace_the_source(source, tmp_path):
    source = source.rename(tmp_path / "out.compare.mp4")
    with pytest.raises(ValueError, match="this is the source itself"):
        run(source, tmp_path / "out.mp4", compare="side", overwrite=True)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("file", "is there and is no folder"),
        ("folder.mp4/", None),
        ("/dev/null", "is there and is no folder"),
        ("fifo.mp4", "is there and is no file"),
        ("x" * 251 + ".mp4", "the name is too long by 11 bytes"),
        ("x" * 251, "the name is too long by 7 bytes"),
        ("no/out.mp4", "no such folder to write out.mp4 to"),
    ],
)
def test_what_cannot_be_an_output_is_said_first(source, tmp_path, monkeypatch, output, message):
    (tmp_path / "file").write_text("mine")
    os.mkfifo(tmp_path / "fifo.mp4")
    before = sorted(os.listdir(tmp_path))
    monkeypatch.chdir(tmp_path)
    if message is None:
        run(source, output)
        assert len(list((tmp_path / output).glob("*.png"))) == 10
        return
    with pytest.raises((ValueError, OSError), match=message):
        run(source, output, overwrite=True)
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are UTF-8 there")
@pytest.mark.parametrize("output", [b"out\xff.mp4", b"folder\xff"])
def test_names_that_are_no_utf8(source, tmp_path, output):
    name = os.fsencode(source.with_name("in")) + b"\xfe.mp4"
    os.rename(os.fsencode(source), name)
    path = os.fsdecode(os.fsencode(tmp_path) + b"/" + output)
    result = run(os.fsdecode(name), path)
    assert result.frames == 10
    assert os.path.exists(path)


def test_the_folder_that_one_is_in(source, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    run(source, ".")
    assert len(list((tmp_path / "here").glob("*.png"))) == 10
    assert sorted(os.listdir(tmp_path)) == ["here", "in.mp4"]


@pytest.mark.parametrize("fps", ["0", "-5", "100000", "1/100000"])
def test_rates_that_are_none(images, tmp_path, fps):
    from fractions import Fraction

    with pytest.raises(ValueError, match=f"--fps {fps}: give frames a second"):
        run(images, tmp_path / "out.mp4", fps=Fraction(fps))


def test_an_earlier_longer_results_frames_give_way(source, images, tmp_path):
    """Only what such a run would have made: other files of the folder stay."""
    output = tmp_path / "out"
    run(source, output)
    (output / "1.png").write_bytes(b"mine")
    (output / "00000099.txt").write_bytes(b"mine")
    short = write_clip(tmp_path / "short.mp4", Clip([moving_picture(i) for i in range(3)]))
    run(short, output, overwrite=True)
    frames = [f"{i:08d}.png" for i in range(3)]
    assert sorted(os.listdir(output)) == [*frames, "00000099.txt", "1.png", "timestamps.txt"]
    results = tmp_path / "results"
    run(images, results)
    (results / "cover.png").write_bytes(b"mine")
    for i in range(2, 5):
        (images / f"shot_{i}.png").unlink()
    run(images, results, overwrite=True)
    assert sorted(os.listdir(results)) == ["cover.png", "shot_0.png", "shot_1.png",
                                           "timestamps.txt"]  # fmt: skip


def test_patterns_of_names():
    assert own_pattern({"00000000.png"}).fullmatch("00001234.png")
    assert not own_pattern({"00000000.png"}).fullmatch("1.png")
    assert own_pattern({"a_9(1).png"}).fullmatch("a_10(2).png")
    assert not own_pattern({"a_9.png"}).fullmatch("b_9.png")
    assert not own_pattern(set()).fullmatch("")


def test_a_partial_file_of_somebody_else_stays(source, tmp_path, monkeypatch):
    output, other = tmp_path / "out.mp4", tmp_path / "out.partial.mp4"
    other.write_bytes(b"mine")
    mend = stop_at(monkeypatch, 2, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt, match=r"out\.mp4\.unfinished/partial\.mp4"):
        run(source, output)
    assert other.read_bytes() == b"mine"
    assert len(read_back(tmp_path / "out.mp4.unfinished" / "partial.mp4").frames) == 8
    mend()
    run(source, output, resume=True)
    assert other.read_bytes() == b"mine"
    assert sorted(os.listdir(tmp_path)) == ["in.mp4", "out.mp4", "out.partial.mp4"]


def test_a_partial_file_that_was_changed_since_stays(source, tmp_path, monkeypatch):
    mend = stop_at(monkeypatch, 2, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out.mp4")
    mend()
    (tmp_path / "out.partial.mp4").write_bytes(b"edited")
    run(source, tmp_path / "out.mp4", resume=True)
    assert (tmp_path / "out.partial.mp4").read_bytes() == b"edited"


@pytest.mark.parametrize("resume", [False, True])
def test_two_runs_on_one_output(source, tmp_path, monkeypatch, resume):
    """The second one is refused by name, and the first one is not disturbed."""
    output = tmp_path / "out.mp4"
    whole = Bicubic.forward
    refused = []

    def forward(self, lqs):
        if not refused:
            refused.append(None)
            with pytest.raises(BlockingIOError, match=r"another run is writing .*out\.mp4 now"):
                run(source, output, overwrite=not resume, resume=resume)
        return whole(self, lqs)

    monkeypatch.setattr(Bicubic, "forward", forward)
    run(source, output)
    assert refused
    assert len(read_back(output).frames) == 10
    assert sorted(os.listdir(tmp_path)) == ["in.mp4", "out.mp4"]


def test_a_lock_that_nobody_holds_is_taken_over(source, tmp_path):
    folder = tmp_path / "out.mp4.unfinished"
    folder.mkdir()
    filelock.FileLock(folder / "lock").acquire().lock.release()
    (folder / "lock").touch()
    run(source, tmp_path / "out.mp4")
    assert sorted(os.listdir(tmp_path)) == ["in.mp4", "out.mp4"]


@pytest.mark.parametrize("damage", ["shorter", "longer", "changed", "empty"])
@pytest.mark.parametrize("name", ["out.mp4", "out"])
def test_a_damaged_segment_is_made_again(source, tmp_path, monkeypatch, caplog, damage, name):
    expected = tmp_path / f"expected_{name}"
    run(source, expected)
    mend = stop_at(monkeypatch, 2, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / name)
    mend()
    work = tmp_path / f"{name}.unfinished"
    segment = work / ("segment_000000" if name == "out.mp4" else "images/00000001.png")
    data = segment.read_bytes()
    middle = len(data) // 2
    segment.write_bytes({
        "shorter": data[:-7],
        "longer": data if name == "out.mp4" else data + b"x",  # what follows the end is not read
        "changed": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
        "empty": b"",
    }[damage])  # fmt: skip
    run(source, tmp_path / name, resume=True)
    if name == "out.mp4":
        assert (tmp_path / name).read_bytes() == expected.read_bytes()
    elif damage != "changed":  # an image's size is recorded
        assert everything(tmp_path / name) == everything(expected)
    if damage != "longer" and not (damage == "changed" and name == "out"):
        assert "does not match its record and is made again" in caplog.text


def test_a_failure_at_the_start_leaves_nothing_in_the_way(source, tmp_path, monkeypatch):
    from iart_plugin.commands.upscale import work_folder

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(work_folder, "write_atomically", full)
        with pytest.raises(OSError, match="No space left"):
            run(source, tmp_path / "out.mp4")
    assert sorted(os.listdir(tmp_path)) == ["in.mp4"]
    run(source, tmp_path / "out.mp4")


def test_what_was_made_before_a_failure_is_playable(source, tmp_path, monkeypatch):
    mend = stop_at(monkeypatch, 2, ValueError("the film changes its size"))
    with pytest.raises(ValueError, match=r"changes its size; the part so far is .*out\.partial"):
        run(source, tmp_path / "out.mp4")
    assert len(read_back(tmp_path / "out.partial.mp4").frames) == 8
    mend()
    run(source, tmp_path / "out.mp4", resume=True)
    assert len(read_back(tmp_path / "out.mp4").frames) == 10


def test_resumed_with_a_source_of_another_size(source, tmp_path, monkeypatch):
    mend = stop_at(monkeypatch, 2, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out.mp4")
    mend()
    write_clip(source, Clip([moving_picture(i, 48, 64) for i in range(10)]))
    with pytest.raises(ValueError, match=r"encoding\.height was 96, is 192"):
        run(source, tmp_path / "out.mp4", resume=True)


def test_weights_that_make_nothing_finite(source, tmp_path, monkeypatch):
    whole = Bicubic.forward
    monkeypatch.setattr(Bicubic, "forward", lambda self, x: whole(self, x) * np.nan)
    with pytest.raises(ValueError, match="bicubic interpolation: frame 0: the network makes"):
        run(source, tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()

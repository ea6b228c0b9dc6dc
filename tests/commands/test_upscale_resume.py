"""Runs that were interrupted, killed or ran out of disk, and what --resume makes of them."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap
from fractions import Fraction
from pathlib import Path

import cv2
import pytest

from iart_plugin.commands.upscale import UpscaleOptions, cli, upscale_video
from iart_plugin.commands.upscale.run import Interrupted
from iart_plugin.inference.models import Bicubic
from tests.videos import Clip, feeding, moving_picture, read_back, write_clip

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _short_segments(monkeypatch):
    monkeypatch.setattr("iart_plugin.commands.upscale.job.SHORTEST_SEGMENT", 4)


@pytest.fixture
def source(tmp_path):
    frames = [moving_picture(i, scene=i // 9) for i in range(18)]
    return write_clip(tmp_path / "in.mp4", Clip(frames, audio_seconds=0.75))


def options(source, output, **given):
    common = {"model": "bicubic", "device": "cpu", "quiet": True, "chunk": 4, "warm_up": 1}
    return UpscaleOptions(str(source), str(output), **{**common, **given})


@pytest.fixture
def uninterrupted(source, tmp_path):
    path = tmp_path / "uninterrupted.mp4"
    upscale_video(options(source, path))
    return path


def failing_after(monkeypatch, calls, error):
    """Bicubic that works ``calls`` times and then raises ``error``."""
    whole = Bicubic.forward
    count = iter(range(10**6))

    def forward(self, lqs):
        if next(count) == calls:
            raise error
        return whole(self, lqs)

    monkeypatch.setattr(Bicubic, "forward", forward)
    return lambda: monkeypatch.setattr(Bicubic, "forward", whole)


@pytest.mark.parametrize("calls", [0, 1, 3, 4])
def test_resumed_file_is_the_same(source, uninterrupted, tmp_path, monkeypatch, calls):
    output = tmp_path / "out.mp4"
    mend = failing_after(monkeypatch, calls, KeyboardInterrupt)
    with pytest.raises(Interrupted, match="--resume"):
        upscale_video(options(source, output))
    mend()
    assert not output.exists()
    upscale_video(options(source, output, resume=True))
    assert output.read_bytes() == uninterrupted.read_bytes()
    assert not (tmp_path / "out.mp4.unfinished").exists()


def test_only_missing_work_is_done(source, tmp_path, monkeypatch):
    output = tmp_path / "out.mp4"
    mend = failing_after(monkeypatch, 3, KeyboardInterrupt)
    with pytest.raises(Interrupted):
        upscale_video(options(source, output, scene_detection=False))
    mend()
    calls = []
    whole = Bicubic.forward
    monkeypatch.setattr(Bicubic, "forward", lambda self, x: calls.append(1) or whole(self, x))
    upscale_video(options(source, output, scene_detection=False, resume=True))
    assert len(calls) == 2  # of the five chunks of 18 frames


def test_interruption_leaves_a_playable_part(source, tmp_path, monkeypatch):
    output = tmp_path / "out.mp4"
    monkeypatch.setattr("iart_plugin.commands.upscale.job.SHORTEST_SEGMENT", 8)
    failing_after(monkeypatch, 3, KeyboardInterrupt)
    with pytest.raises(Interrupted, match=r"out\.partial\.mp4"):
        upscale_video(options(source, output, scene_detection=False))
    part, whole = read_back(tmp_path / "out.partial.mp4"), read_back(source)
    assert len(part.frames) == 12  # a whole segment, and half of the next one
    assert part.times == whole.times[:12]
    sound = part.packets["audio"]
    assert sound == whole.packets["audio"][: len(sound)]
    assert part.packet_times["audio"][-1] < Fraction(12, 24)


def test_interrupted_images(source, tmp_path, monkeypatch):
    mend = failing_after(monkeypatch, 2, KeyboardInterrupt)
    with pytest.raises(Interrupted):
        upscale_video(options(source, tmp_path / "out"))
    mend()
    upscale_video(options(source, tmp_path / "out", resume=True))
    assert len(list((tmp_path / "out").glob("*.png"))) == 18
    assert cv2.imread(str(tmp_path / "out" / "00000017.png")).shape == (96, 128, 3)


def test_interrupted_pipe(source, tmp_path, monkeypatch):
    """What there is, and no word of --resume."""
    failing_after(monkeypatch, 2, KeyboardInterrupt)
    with feeding(source.read_bytes()) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        with pytest.raises(Interrupted, match=r"out\.partial\.mkv; a pipe cannot be continued"):
            upscale_video(options("-", tmp_path / "out.mkv"))
    assert len(read_back(tmp_path / "out.partial.mkv").frames) == 8
    assert not (tmp_path / "out.mkv.unfinished").exists()


def test_resumed_without_sound(source, tmp_path, monkeypatch):
    """Other streams join at the end, so a run can be saved from one that cannot be written."""
    mend = failing_after(monkeypatch, 2, KeyboardInterrupt)
    with pytest.raises(Interrupted):
        upscale_video(options(source, tmp_path / "out.mp4"))
    mend()
    assert (tmp_path / "out.partial.mp4").exists()
    upscale_video(options(source, tmp_path / "out.mp4", resume=True, audio=False))
    assert "audio" not in read_back(tmp_path / "out.mp4").packets
    assert not (tmp_path / "out.partial.mp4").exists()


@pytest.mark.parametrize("name", ["out", "out.mp4"])
def test_interrupted_while_finishing(source, tmp_path, monkeypatch, name):
    """When the output, or a part of it, is in its place already."""
    output = tmp_path / name
    with monkeypatch.context() as patched:
        patched.setattr("iart_plugin.commands.upscale.work_folder.WorkFolder.remove", interrupt)
        with pytest.raises(Interrupted, match="--resume"):
            upscale_video(options(source, output))
    assert output.exists()
    upscale_video(options(source, output, resume=True))
    assert not (tmp_path / f"{name}.unfinished").exists()
    assert not output.is_dir() or len(list(output.glob("*.png"))) == 18


def interrupt(*_):
    raise KeyboardInterrupt


def test_another_run_is_not_continued(source, tmp_path, monkeypatch):
    output = tmp_path / "out.mp4"
    mend = failing_after(monkeypatch, 2, KeyboardInterrupt)
    with pytest.raises(Interrupted):
        upscale_video(options(source, output))
    mend()
    with pytest.raises(FileExistsError, match="--resume, or start over with -y"):
        upscale_video(options(source, output))
    with pytest.raises(ValueError, match=r"encoding\.options\.crf was 16, is 20"):
        upscale_video(options(source, output, resume=True, crf=20))
    os.utime(source, (1, 1))
    with pytest.raises(ValueError, match=r"input\.changed"):
        upscale_video(options(source, output, resume=True))
    upscale_video(options(source, output, overwrite=True))
    assert len(read_back(output).frames) == 18


def test_chunk_chosen_at_first_is_kept(source, tmp_path, monkeypatch):
    """With more memory free, the continued run would choose longer chunks."""
    output = tmp_path / "out.mp4"
    monkeypatch.setattr("iart_plugin.inference.memory.CHUNKS", (4,))
    mend = failing_after(monkeypatch, 2, KeyboardInterrupt)
    with pytest.raises(Interrupted):
        upscale_video(options(source, output, chunk=None))
    mend()
    monkeypatch.setattr("iart_plugin.inference.memory.CHUNKS", (48,))
    upscale_video(options(source, output, chunk=None, resume=True))
    assert len(read_back(output).frames) == 18


def test_existing_output_is_not_replaced(source, tmp_path):
    output = tmp_path / "out.mp4"
    output.write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="-y"):
        upscale_video(options(source, output))
    assert output.read_bytes() == b"precious"
    upscale_video(options(source, output, overwrite=True))
    assert len(read_back(output).frames) == 18


def test_strange_folder_in_the_way_is_not_deleted(source, tmp_path):
    folder = tmp_path / "out.mp4.unfinished"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="in the way"):
        upscale_video(options(source, tmp_path / "out.mp4", overwrite=True))
    assert (folder / "thesis.txt").exists()


KILLED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored below a shell's "&"
from iart_plugin.commands.upscale import cli, job
from iart_plugin.inference.models import Bicubic
job.SHORTEST_SEGMENT = 4
whole, calls = Bicubic.forward, []
def forward(self, lqs):
    calls.append(1)
    if len(calls) == 4:
        os.kill(os.getpid(), {signal})
    return whole(self, lqs)
Bicubic.forward = forward
sys.exit(cli.main(sys.argv[1:]))
"""


def command_line(source, output, *more):
    common = ["--model", "bicubic", "--device", "cpu", "--chunk", "4", "--warm-up", "1"]
    return [str(source), "-o", str(output), *common, *more]


def run_and_die(source, output, kind):
    script = textwrap.dedent(KILLED.format(signal=int(kind)))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", script, *command_line(source, output)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_killed_process(source, uninterrupted, tmp_path, kind):
    output = tmp_path / "out.mp4"
    died = run_and_die(source, output, kind)
    assert died.returncode == (-9 if kind == signal.SIGKILL else 130)
    assert not output.exists()
    if kind != signal.SIGKILL:
        assert "Traceback" not in died.stderr
        assert "--resume" in died.stderr
        assert read_back(tmp_path / "out.partial.mp4").frames
    assert cli.main(command_line(source, output, "--resume", "-q")) == 0
    assert output.read_bytes() == uninterrupted.read_bytes()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)],
        capture_output=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip("a small file system can only be mounted by root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk(source, uninterrupted, tmp_path, small_disk, capsys):
    output = small_disk / "out.mp4"
    stopper = small_disk / "other.bin"
    size = uninterrupted.stat().st_size
    stopper.write_bytes(bytes(256 * 1024 - 20480 - size // 2))
    more = ["-q", "--ignore-disk-space"]
    assert cli.main(command_line(source, output, *more)) == cli.EXIT_ERROR
    message = capsys.readouterr().err.strip()
    assert "No space left" in message or "disk full" in message
    assert "--resume" in message
    assert len(message.splitlines()) == 1
    assert not output.exists()
    stopper.unlink()
    assert cli.main(command_line(source, output, *more, "--resume")) == 0
    assert output.read_bytes() == uninterrupted.read_bytes()


def test_file_size_limit(source, uninterrupted, tmp_path, capsys):
    """The same without root: a quota on file size, which the assembled file meets."""
    output = tmp_path / "out.mp4"
    limit = uninterrupted.stat().st_size * 2 // 3
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        assert cli.main(command_line(source, output, "-q")) == cli.EXIT_ERROR
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    message = capsys.readouterr().err.strip()
    assert "File too large" in message
    assert "--resume" in message
    assert not output.exists()
    assert cli.main(command_line(source, output, "-q", "--resume")) == 0
    assert output.read_bytes() == uninterrupted.read_bytes()


def test_disk_space_is_checked_first(source, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000, "total": 10**9})
    )
    with pytest.raises(OSError, match="MiB are needed"):
        upscale_video(options(source, tmp_path / "out.mp4"))
    assert not (tmp_path / "out.mp4.unfinished").exists()

"""Two processes on one video."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from iart_plugin.commands.upscale import UpscaleOptions, upscale_video
from iart_plugin.commands.upscale.distributed import Group
from tests.videos import Clip, moving_picture, write_clip

ROOT = Path(__file__).parents[2]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def launch(*arguments):
    """Upscale with two processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    launcher += ["--master_port", str(free_port()), "-m", "iart_plugin", "upscale"]
    options = ["--model", "bicubic", "--device", "cpu", "--chunk", "16", "-v"]
    return subprocess.run(
        [*launcher, *map(str, arguments), *options],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip


def test_two_processes_write_the_same_file(tmp_path):
    frames = [moving_picture(i, scene=i // 50) for i in range(100)]
    source = write_clip(tmp_path / "in.mp4", Clip(frames, audio_seconds=4.0))
    alone, shared = tmp_path / "alone.mp4", tmp_path / "shared.mp4"
    upscale_video(
        UpscaleOptions(str(source), str(alone), model="bicubic", device="cpu", chunk=16, quiet=True)
    )
    done = launch(source, "-o", shared)
    assert done.returncode == 0, done.stderr
    assert "2 processes" in done.stderr
    assert shared.read_bytes() == alone.read_bytes()


def test_two_processes_take_one_film_after_another(tmp_path):
    films = [
        write_clip(tmp_path / f"{name}.mp4", Clip([moving_picture(i) for i in range(5)]))
        for name in "abd"
    ]
    broken = tmp_path / "c.mp4"
    broken.write_text("no film")
    folder = tmp_path / "results"
    done = launch(*films[:2], broken, films[2], "-o", folder)
    assert done.returncode == 1
    assert sorted(path.name for path in folder.iterdir()) == ["a.mp4", "b.mp4"]
    message = f"1 of 4 films failed: {broken}, and the films after it are left out"
    assert message in done.stderr


def test_every_segment_has_one_owner():
    groups = [Group(rank, 3) for rank in range(3)]
    for segment in range(10):
        assert sum(g.owns(segment) for g in groups) == 1

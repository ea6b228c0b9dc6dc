from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands.command_driver import run, write_picture
from tests.threads import one_thread  # noqa: F401


@pytest.fixture(scope="session")
def reds(tmp_path_factory) -> Path:
    """Two training clips of 100 frames, one of them REDS4's, and one validation clip; prepared."""
    root = tmp_path_factory.mktemp("reds")
    for seed, clip in enumerate(
        ("train/train_sharp/000", "train/train_sharp/001", "val_sharp/002")
    ):
        for frame in range(100):
            write_picture(root / "download" / clip / f"{frame:08d}.png", 100 * seed + frame)
    run("prepare-reds", root / "download", "--output", root / "datasets/REDS", "--workers", 1)
    return root

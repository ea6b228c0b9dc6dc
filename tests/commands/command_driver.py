"""The package's commands, run in this process as a user would call them, and pictures for them."""

from __future__ import annotations

import contextlib
import importlib
import io
from pathlib import Path

import cv2
import numpy as np


def run(name: str, *arguments: object, fails: bool = False) -> str:
    """Run a command of the package; return its standard output, then its standard error.

    Args:
        name: The command as ``python -m iart_plugin`` knows it.
        arguments: Its arguments.
        fails: Whether its exit code must tell of a failure.
    """
    module = importlib.import_module(f"iart_plugin.commands.{name.replace('-', '_')}")
    printed, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
        code = module.main([str(argument) for argument in arguments])
    written = printed.getvalue() + said.getvalue()
    assert bool(code) == fails, (code, written)
    return written


def write_picture(path: Path, seed: int) -> None:
    """Write a picture of 48x64 pixels with detail everywhere, which the seed decides."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.RandomState(seed).rand(48, 64, 3)
    image = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 1.5), None, 0, 255, cv2.NORM_MINMAX)
    cv2.imwrite(str(path), image.astype(np.uint8))

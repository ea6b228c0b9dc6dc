"""Programs that tests start."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


def run_program(
    command: Sequence[str | Path], cwd: Path, env: Mapping[str, str], *, timeout: float
) -> subprocess.CompletedProcess:
    """Runs a program to its end; its ``stdout`` holds all that it printed, errors too."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )

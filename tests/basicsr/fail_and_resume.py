"""Train while one write, fsync or rename of a checkpoint fails, then resume. Run by a test.

Every operation that the saving of checkpoints makes fails once in turn, in a training of its own:
as an error of the disk, or because the process dies there. After each, ``--auto_resume`` must end
with the weights of a run that was left alone. The parent imports BasicSR once and forks a child for
every training.

    python fail_and_resume.py OPTION_FILE error kill    # each operation in both ways
    python fail_and_resume.py OPTION_FILE alternating   # each in one of the two
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from iart_plugin.basicsr import pipeline

OPERATIONS = ((torch, "save"), (os, "fsync"), (os, "replace"))


class Fault:
    """Counts the operations on checkpoints and lets one of them fail.

    Args:
        at: which one, from 1; 0 for none.
        kill: whether the process dies there, or the operation raises an error.
    """

    def __init__(self, at: int, kill: bool) -> None:
        self.at, self.kill, self.count = at, kill, 0
        for module, name in OPERATIONS:
            setattr(module, name, self.watched(getattr(module, name)))

    def watched(self, operation: Callable) -> Callable:
        """The operation, which fails if it is the chosen one."""

        def run(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            if self.count != self.at:
                return operation(*arguments, **options)
            if operation.__name__ == "save":
                arguments[1].write(b"half a file")
                arguments[1].flush()
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.ENOSPC, "No space left on device")

        return run


def train(option_file: str, at: int = 0, kill: bool = False) -> int:
    """Train in a child, resuming what there is.

    Returns:
        Its exit code; the number of operations that it counted is in the file ``count``.
    """
    pid = os.fork()
    if pid == 0:
        fault = Fault(at, kill)
        sys.argv = ["basicsr_train.py", "-opt", option_file, "--auto_resume"]
        sys.stdout = sys.stderr = Path("log").open("a")  # noqa: SIM115  as long as the process
        try:
            pipeline.run("train")
        except OSError:
            os._exit(3)
        Path("count").write_text(str(fault.count))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def weights() -> dict[str, torch.Tensor]:
    """What the run has trained."""
    return torch.load("experiments/run/models/net_g_latest.pth", weights_only=True)["params"]


def main(option_file: str, *modes: str) -> None:
    """Try every fault in every mode, and exit with a message at the first that is not survived."""
    if train(option_file):
        sys.exit(f"the run that is left alone failed:\n{Path('log').read_text()[-3000:]}")
    expected, operations = weights(), int(Path("count").read_text())
    for mode in modes:
        for at in range(1, operations + 1):
            shutil.rmtree("experiments")
            kill = mode == "kill" or (mode == "alternating" and at % 2 == 0)
            code = train(option_file, at, kill)
            if code not in (3, -signal.SIGKILL):
                sys.exit(f"{mode} at operation {at}: the run ended with {code}")
            if train(option_file):
                log = Path("log").read_text()[-3000:]
                sys.exit(f"{mode} at operation {at}: the run cannot be resumed:\n{log}")
            found = weights()
            if not all(torch.equal(expected[key], found[key]) for key in expected):
                sys.exit(f"{mode} at operation {at}: the resumed run has other weights")
            left = [p.name for p in Path("experiments/run").rglob("*.part")]
            if left:
                sys.exit(f"{mode} at operation {at}: {left} is left")
    print(f"{operations * len(modes)} faults, each survived")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])

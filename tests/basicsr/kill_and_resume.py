"""Train, being killed at random moments and resumed, until done. Run by a test in a subprocess.

The parent imports BasicSR once and forks a child for every attempt, which is what makes ten kills
affordable; a child runs the same pipeline as ``tools/basicsr_train.py``.

    python kill_and_resume.py OPTION_FILE KILLS SEED
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from iart_plugin.basicsr import pipeline


def start(option_file: str) -> int:
    """Fork a child that trains, resuming what there is."""
    pid = os.fork()
    if pid == 0:
        sys.argv = ["basicsr_train.py", "-opt", option_file, "--auto_resume"]
        pipeline.run("train")
        os._exit(0)
    return pid


def newest() -> int:
    """The iteration of the newest saved state, 0 without one."""
    states = Path("experiments/run/training_states").glob("*.state")
    return max((int(p.stem) for p in states), default=0)


def main(option_file: str, kills: int, seed: int) -> None:
    """Kill ``kills`` children, each a random time after a random number of its iterations.

    Waiting for progress, not for time alone, keeps the kills inside the run on a machine of any
    speed. Zero iterations kill a child while it starts or resumes.
    """
    rng = random.Random(seed)
    pace = 0.05  # seconds an iteration, measured as soon as two have been seen
    for kill in range(kills):
        goal = newest() + (1 if kill == 0 else rng.randrange(4))
        pid = start(option_file)
        seen, changed = newest(), None
        while newest() < goal:
            if os.waitpid(pid, os.WNOHANG) != (0, 0):
                sys.exit("a child ended by itself")
            if newest() > seen:
                now = time.monotonic()
                pace = now - changed if changed else pace
                seen, changed = newest(), now
            time.sleep(0.005)
        time.sleep(rng.uniform(0.0, 1.5 * pace))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        print(f"killed, newest state {newest()}", flush=True)
    _, status = os.waitpid(start(option_file), 0)
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

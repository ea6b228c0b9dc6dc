"""Damaged films and odd outputs end in a film that plays, or in one line; nothing is lost."""

from __future__ import annotations

import os
import re
import resource
import signal
from pathlib import Path

import cv2
import pytest

from iart_plugin.commands.upscale import cli, run
from tests.faults import Faults, run_forked
from tests.fuzz.malformed_films import Case, damaged_films, odd_outputs
from tests.videos import read_back

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
GIBIBYTES = 8  # a run's address space, most of which PyTorch takes
assert run  # imported before the processes fork, or each of them would import it anew


@pytest.mark.timeout(3600)
def test_damaged_films(tmp_path, fuzz_seed):
    tried = [try_out(case, tmp_path) for case in damaged_films(tmp_path, seed=fuzz_seed, count=20)]
    report("damaged films", tried)


@pytest.mark.timeout(3600)
def test_odd_outputs(tmp_path, fuzz_seed):
    tried = [try_out(case, tmp_path) for case in odd_outputs(tmp_path, seed=fuzz_seed, count=20)]
    report("odd outputs", tried)


def report(what: str, tried: list[str]) -> None:
    """Print how many held, and fail where one did not."""
    bad = [line for line in tried if line not in ("made", "refused")]
    print(f"\n{what}: {len(tried) - len(bad)} of {len(tried)} held, {tried.count('made')} made")
    assert not bad, "\n\n".join(bad)


def try_out(case: Case, folder: Path) -> str:
    """Run a case: "made", "refused", or what went wrong."""
    log = folder / "log.txt"
    arguments = [*case.arguments, "--model", "bicubic", "--device", "cpu", "-q"]
    mine = {path: path.read_bytes() for path in Path(case.arguments[0]).parent.rglob("*")
            if path.is_file()}  # fmt: skip
    code = run_forked(lambda: limited(arguments, case.seconds), Faults(), log)
    said = log.read_text(errors="replace").rsplit("\ncalls:", 1)[0].strip()
    problem = wrong_exit(code, said) or lost(mine, case) or unplayable(case, code)
    if problem:
        return f"{case.what}: {problem}; exit {code}: {said[-1500:]}"
    return "made" if code == 0 else "refused"


def limited(arguments: list[str], seconds: int) -> None:
    """The command in a process that may not take more than this."""
    resource.setrlimit(resource.RLIMIT_AS, (GIBIBYTES * 2**30, GIBIBYTES * 2**30))
    signal.alarm(seconds)
    os.chdir(Path(arguments[0]).parent)
    try:
        code = cli.main(arguments)
    except SystemExit as error:  # of the parser
        code = error.code
    os._exit(code)


def wrong_exit(code: int, said: str) -> str:
    """What is wrong with how the command ended."""
    if code < 0:
        return f"it died of signal {-code}"
    if "Traceback" in said:
        return "a trace"
    if code == 1:
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        if not errors:
            return "no error was said"
        if re.match(r"error: [A-Z]\w*(Error|Exception): ", errors[-1]):
            return "an error that nobody expected"
    return "" if code in (0, 1, 2) else "an odd exit code"


def lost(mine: dict[Path, bytes], case: Case) -> str:
    """Files that were there and are not what they were."""
    may_go = {case.output} if "-y" in case.arguments and case.output else set()
    for path, data in mine.items():
        if path not in may_go and (not path.is_file() or path.read_bytes() != data):
            return f"{path.name} was lost"
    return ""


def unplayable(case: Case, code: int) -> str:
    """An output that is not what its name says."""
    made = [case.output] if case.output and code == 0 and "--dry-run" not in case.arguments else []
    made += Path(case.arguments[0]).parent.glob("*.partial.*")
    for path in made:
        try:
            if path.is_dir():
                whole = all(cv2.imread(str(p)) is not None for p in path.glob("0*.png"))
            else:
                whole = bool(read_back(path).frames)
        except Exception as error:
            return f"{path.name} does not play: {error!r}"
        if not whole:
            return f"{path.name} does not play"
    return ""

"""The command line's first word, and what is said where an extra is not installed."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import iart_plugin
from iart_plugin import extras
from iart_plugin.__main__ import COMMANDS, EXIT_BROKEN_PIPE

ROOT = Path(__file__).parents[1]


def command_line(*arguments: str, without: str | None = None) -> subprocess.CompletedProcess:
    """Run the command line in a process of its own, perhaps as if a module were not installed."""
    hide = f"sys.modules[{without!r}] = None; " if without else ""
    program = f"import sys; {hide}from iart_plugin.__main__ import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, cwd=ROOT
    )


def test_version_is_the_package_s():
    assert command_line("--version").stdout == f"iart_plugin {iart_plugin.__version__}\n"


def test_help_lists_every_command():
    printed = command_line("--help").stdout
    assert all(f"\n  {name} " in printed for name in COMMANDS)


@pytest.mark.parametrize("arguments", [["--help"], ["weights"], ["configs"]])
def test_a_reader_that_goes_away_ends_the_command_quietly(arguments):
    readable, writable = os.pipe()
    os.close(readable)
    program = [sys.executable, "-m", "iart_plugin", *arguments]
    result = subprocess.run(program, stdout=writable, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    os.close(writable)
    assert (result.returncode, result.stderr) == (EXIT_BROKEN_PIPE, "")


def test_an_unknown_command_is_an_error():
    result = command_line("upscal")
    assert result.returncode == 2 and "no command 'upscal'" in result.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name, capsys):
    main = importlib.import_module(COMMANDS[name][0]).main
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    usage = rf"usage: (iart-plugin|python -m iart_plugin) {name} "
    assert re.match(usage, capsys.readouterr().out)


def test_a_missing_module_names_its_extra(tmp_path):
    result = command_line(
        "export", "--weights", "none.pth", "-o", str(tmp_path / "x.onnx"), without="onnxscript"
    )
    assert result.returncode == 1
    assert result.stderr.strip().endswith(
        "onnxscript is not installed: pip install 'iart_plugin[export]'"
    )


@pytest.mark.parametrize("framework", ["basicsr", "vapoursynth"])
def test_an_adapter_without_its_framework_names_the_extra(framework):
    program = f"import sys; sys.modules['{framework}'] = None; import iart_plugin.{framework}"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT
    )
    expected = f"{framework} is not installed: pip install 'iart_plugin[{framework}]'"
    assert expected in result.stderr


def test_advice_is_for_what_an_extra_brings():
    assert extras.advice("onnx.helper").startswith("onnx is not installed")
    assert extras.advice("torch") is None and extras.advice(None) is None

"""The files in tools/ that are another name for one of the package's commands."""

from __future__ import annotations

import importlib

import pytest

from iart_plugin.__main__ import COMMANDS
from tests.basicsr.basicsr_driver import load_tool

NAMES = (
    "check_dataset",
    "complexity",
    "prepare_clips",
    "prepare_reds",
    "prepare_sintel",
    "prepare_vimeo90k",
)


@pytest.mark.parametrize("name", NAMES)
def test_tool_is_the_command(name, capsys):
    module, _ = COMMANDS[name.replace("_", "-")]
    main = importlib.import_module(module).main
    assert load_tool(name).main is main
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert f"usage: iart-plugin {name.replace('_', '-')}" in capsys.readouterr().out

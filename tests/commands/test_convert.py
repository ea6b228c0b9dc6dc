"""The command ``convert``, and the tool of the same purpose."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from iart_plugin.archs import IACNN
from iart_plugin.commands.convert import main
from tests.tools.tool_driver import tool


@pytest.fixture
def source(tmp_path):
    """A BasicSR checkpoint with trained weights alone."""
    path = tmp_path / "net_g.pth"
    torch.save({"params": IACNN(num_feat=8, num_block=1, num_heads=2).state_dict()}, path)
    return path


def test_there_and_back(tmp_path, capsys):
    state = IACNN(num_feat=8, num_block=1, num_heads=2).state_dict()
    averaged = {key: value + 1 for key, value in state.items()}
    source, there, back = (str(tmp_path / name) for name in ("net_g.pth", "m.pth", "b.pth"))
    torch.save({"params": state, "params_ema": averaged}, source)

    assert main([source, there, "--to", "mmagic"]) == 0
    printed = capsys.readouterr().out
    assert "IACNN(num_feat=8, num_block=1" in printed
    assert "trained and averaged weights, mmagic layout" in printed
    assert main([there, back, "--to", "basicsr", "--only", "trained"]) == 0
    file = torch.load(back, weights_only=True)
    assert list(file) == ["params"]
    assert all(torch.equal(file["params"][key], state[key]) for key in state)


def test_missing_set_is_said(tmp_path, source, capsys):
    target = tmp_path / "m.pth"
    assert main([str(source), str(target), "--to", "mmagic", "--only", "averaged"]) == 1
    assert "net_g.pth holds no averaged weights" in capsys.readouterr().err
    assert not target.exists()


def test_a_file_of_something_else_is_refused_in_one_line(tmp_path, capsys):
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(1)}, other)
    assert main([str(other), str(tmp_path / "out.pth"), "--to", "basicsr"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1


def test_the_tool_is_the_command(tmp_path, source):
    tool("convert_checkpoint", source, tmp_path / "m.pth", "--to", "mmagic")
    assert (tmp_path / "m.pth").exists()

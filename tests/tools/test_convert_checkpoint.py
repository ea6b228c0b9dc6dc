"""The command line of tools/convert_checkpoint.py."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

from iart_plugin.archs import IACNN

TOOL = Path(__file__).parents[2] / "tools" / "convert_checkpoint.py"


@pytest.fixture
def convert(monkeypatch, capsys):
    """Runs the tool in this process; returns what it printed."""

    def convert(*arguments: str | Path) -> str:
        monkeypatch.setattr("sys.argv", [str(TOOL), *map(str, arguments)])
        runpy.run_path(str(TOOL), run_name="__main__")
        return capsys.readouterr().out

    return convert


def test_there_and_back(tmp_path, convert):
    state = IACNN(num_feat=8, num_block=1, num_heads=2).state_dict()
    averaged = {key: value + 1 for key, value in state.items()}
    source = tmp_path / "net_g.pth"
    torch.save({"params": state, "params_ema": averaged}, source)

    printed = convert(source, tmp_path / "m.pth", "--to", "mmagic")
    assert "IACNN(num_feat=8, num_block=1" in printed
    assert "trained and averaged weights, mmagic layout" in printed
    convert(tmp_path / "m.pth", tmp_path / "b.pth", "--to", "basicsr", "--only", "trained")
    file = torch.load(tmp_path / "b.pth", weights_only=True)
    assert list(file) == ["params"]
    assert all(torch.equal(file["params"][key], state[key]) for key in state)


def test_missing_set_is_said(tmp_path, convert):
    source = tmp_path / "net_g.pth"
    torch.save({"params": IACNN(num_feat=8, num_block=1, num_heads=2).state_dict()}, source)
    with pytest.raises(SystemExit, match=r"net_g\.pth holds no averaged weights"):
        convert(source, tmp_path / "m.pth", "--to", "mmagic", "--only", "averaged")
    assert not (tmp_path / "m.pth").exists()

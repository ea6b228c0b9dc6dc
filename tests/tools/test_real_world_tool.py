"""``tools/real_world.py``: where its training starts, and the picture that it draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import iart_plugin.basicsr  # noqa: F401  registers
from iart_plugin.archs import RealIACNN, load_checkpoint
from iart_plugin.data.packaged import basicvsr_weights
from tests.tools.tool_driver import load_tool


@pytest.fixture(scope="module")
def tool():
    return load_tool("real_world")


def test_the_training_starts_from_what_basicvsr_computes(tool, tmp_path) -> None:
    tool.main(["start", str(tmp_path / "weights" / "start.pth")])
    network = load_checkpoint(tmp_path / "weights" / "start.pth")[0].eval()
    assert isinstance(network, RealIACNN)
    basicvsr = load_checkpoint(basicvsr_weights())[0].eval()
    small = torch.rand(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    clip = torch.nn.functional.interpolate(small, size=(16, 24), mode="bilinear")[None]
    with torch.no_grad():
        assert torch.allclose(network(clip), basicvsr(clip), atol=1e-3)


def test_the_picture_has_a_panel_for_each_clip(tool) -> None:
    large, small = np.zeros((320, 480, 3), np.uint8), np.zeros((80, 120, 3), np.uint8)
    names = ("bicubic", "BasicVSR", "RealIACNN", "ground truth")
    clips = {"input": [small]} | {name: [large] for name in names}
    assert tool._picture(clips, 0).shape == (2 * (360 + 40), 3 * (480 + 8), 3)


def test_weights_that_are_missing_are_one_line(tool, tmp_path) -> None:
    with pytest.raises(SystemExit, match="error: .*nowhere"):
        tool.main(["show", str(tmp_path / "nowhere.pth"), "--frames", "1"])

"""The tool that averages a network's results over flips and turns of its input."""

from __future__ import annotations

import cv2

from tests.commands.command_driver import write_picture
from tests.tools.tool_driver import tool


def test_ensemble_frames_are_averages_of_the_symmetries(tmp_path) -> None:
    from iart_plugin.archs import IACNN, save_checkpoint

    network = IACNN(8, 1, alignment="flow_warp", extractor=False)
    save_checkpoint(network, tmp_path / "net.pth")
    for index, seed in enumerate((0, 1, 0)):  # the third frame repeats the first
        write_picture(tmp_path / f"BIx4/001/{index:08d}.png", seed)
    arguments = ("basicvsr", tmp_path / "net.pth", tmp_path / "BIx4", tmp_path / "ensemble")
    said = tool("self_ensemble", *arguments, "--gt", tmp_path / "ensemble")
    assert "mean inf dB" in said  # measured against itself
    paths = [tmp_path / f"ensemble/001/{index:08d}.png" for index in range(3)]
    assert cv2.imread(str(paths[0])).shape == (192, 256, 3)
    assert paths[0].read_bytes() == paths[2].read_bytes() != paths[1].read_bytes()
    said = tool("self_ensemble", *arguments, "--gt", tmp_path / "nothing", fails=True)
    assert "No such file" in said and "nothing/001/" in said
    said = tool("self_ensemble", *arguments[:2], tmp_path / "nothing", tmp_path, fails=True)
    assert "holds no folders" in said
    (tmp_path / "BIx4/002").mkdir()
    said = tool("self_ensemble", *arguments, fails=True)
    assert "BIx4/002 holds no PNG frames" in said

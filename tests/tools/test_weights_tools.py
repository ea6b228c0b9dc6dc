"""The tools that turn trained weights into others."""

from __future__ import annotations

import pytest
import torch

from iart_plugin.archs import IACNN, load_checkpoint, load_ia_cnn, save_checkpoint
from iart_plugin.weight_files import read_file
from tests.tools.tool_driver import tool

SMALL = {"num_feat": 8, "num_block": 1}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A small BasicVSR, an IA-CNN started from it, and that one after a step of training."""
    root = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    save_checkpoint(IACNN(**SMALL, alignment="flow_warp", extractor=False), root / "basicvsr.pth")
    tool("warm_start_ia_cnn", root / "basicvsr.pth", root / "start.pth")
    network, _ = load_checkpoint(root / "start.pth")
    with torch.no_grad():
        for parameter in (network.alignment.v.weight, network.fusion.bias):
            parameter += 0.5
    save_checkpoint(network, root / "trained.pth")
    return root


def test_an_adapter_and_its_basicvsr_make_the_network_again(files):
    adapter, again = files / "adapter.safetensors", files / "again.pth"
    tool("make_adapter", files / "trained.pth", files / "basicvsr.pth", adapter)
    tool("warm_start_ia_cnn", files / "basicvsr.pth", again, "--adapter", adapter)
    stored = read_file(adapter)
    assert "fusion.bias" in stored and "fusion.weight" not in stored
    assert all(value.dtype is torch.float16 for value in stored.values())
    trained, made = (
        load_checkpoint(path)[0].state_dict() for path in (files / "trained.pth", again)
    )
    for key, value in trained.items():
        torch.testing.assert_close(made[key], value, atol=1e-3, rtol=1e-3)
    composed = load_ia_cnn(adapter, files / "basicvsr.pth").state_dict()
    assert all(torch.equal(composed[key], value) for key, value in made.items())


def test_an_adapter_is_refused_for_another_basicvsr(files, tmp_path):
    other = tmp_path / "other.pth"
    save_checkpoint(IACNN(4, 1, alignment="flow_warp", extractor=False), other)
    output = tmp_path / "adapter.safetensors"
    said = tool("make_adapter", files / "trained.pth", other, output, fails=True)
    assert "does not fit" in said and not output.exists()


def test_weights_on_the_line_between_two_checkpoints(files, tmp_path):
    output = tmp_path / "between.pth"
    tool("interpolate_weights", files / "start.pth", files / "trained.pth", 0.25, output)
    start, between = (
        load_checkpoint(path)[0].state_dict() for path in (files / "start.pth", output)
    )
    torch.testing.assert_close(between["fusion.bias"], start["fusion.bias"] + 0.125)
    torch.testing.assert_close(between["fusion.weight"], start["fusion.weight"])
    for two in (("start.pth", "basicvsr.pth"), ("basicvsr.pth", "trained.pth")):
        paths = (files / name for name in two)
        said = tool("interpolate_weights", *paths, 0.5, tmp_path / "no.pth", fails=True)
        assert "another network" in said
        assert not (tmp_path / "no.pth").exists()

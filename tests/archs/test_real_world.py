"""RealIACNN: with BasicVSR's alignment it is MMagic's RealBasicVSR; the cleaning ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from iart_plugin.archs import (
    IACNN,
    CheckpointMismatch,
    RealIACNN,
    load_checkpoint,
    load_ia_cnn,
    save_adapter,
    save_checkpoint,
)
from iart_plugin.inference.engine import Engine
from iart_plugin.inference.models import load_model

ROOT = Path(__file__).parents[2]
SMALL = {"num_feat": 16, "num_block": 2, "num_clean_block": 1}

MMAGIC = """
import sys
import torch
import iart_plugin.mmagic
from mmagic.models.editors import RealBasicVSRNet

torch.manual_seed(0)
network = RealBasicVSRNet(16, 2, 1, dynamic_refine_thres=5).eval()
with torch.no_grad():  # a flow of some pixels, and a cleaning that frames need unequally
    for parameter in network.basicvsr.spynet.parameters():
        parameter.normal_(std=0.05)
    network.image_cleaning[1].weight.mul_(0.7)
    network.image_cleaning[1].bias.zero_()
    clip = torch.rand(1, 4, 3, 65, 70)
    clip[:, 1] *= 0.1
    clip[:, 2] = 0.3
    # The class decides for a clip as a whole; a clip of one frame is that frame's own decision.
    cleaned, passes = [], []
    for frame in clip.split(1, 1):
        calls = []
        hook = network.image_cleaning.register_forward_hook(lambda *_: calls.append(1))
        cleaned.append(network(frame.clone(), return_lqs=True)[1])
        hook.remove()
        passes.append(len(calls))
    cleaned = torch.cat(cleaned, 1)
    output = network.basicvsr(cleaned)
    alone = clip[:, :1]
    torch.save({"clip": clip, "cleaned": cleaned, "output": output, "passes": passes,
                "state": network.state_dict(), "alone": network(alone)}, sys.argv[1])
"""
"""MMagic's own network, in a process of its own, with random weights."""


@pytest.fixture(scope="module")
def theirs(tmp_path_factory) -> dict:
    pytest.importorskip("mmagic")
    path = tmp_path_factory.mktemp("mmagic") / "theirs.pth"
    subprocess.run([sys.executable, "-c", MMAGIC, str(path)], check=True, cwd=ROOT)
    return torch.load(path, weights_only=True)


def real_basicvsr(**options) -> RealIACNN:
    return RealIACNN(**SMALL, alignment="flow_warp", extractor=False, **options).eval()


@pytest.mark.parametrize("prefix", ["", "generator.", "generator_ema."])
def test_it_is_mmagics_real_basicvsr(theirs, prefix, tmp_path):
    state = {f"{prefix}{key}": value for key, value in theirs["state"].items()}
    state |= (
        {"step_counter": torch.zeros(1), "perceptual_loss.weight": torch.ones(2)} if prefix else {}
    )
    torch.save({"state_dict": state, "meta": {}}, tmp_path / "theirs.pth")
    network, info = load_checkpoint(tmp_path / "theirs.pth")
    assert info.recognised.network == "RealBasicVSR"
    assert info.recognised.options["num_clean_block"] == 1
    assert sorted(set(theirs["passes"])) != [1]  # else nothing was told apart
    with torch.no_grad():
        output, cleaned = network(theirs["clip"], return_lqs=True)
        torch.testing.assert_close(cleaned, theirs["cleaned"], atol=1e-5, rtol=0)
        torch.testing.assert_close(output, theirs["output"], atol=1e-5, rtol=0)
        alone = network(theirs["clip"][:, :1])
    torch.testing.assert_close(alone, theirs["alone"], atol=1e-5, rtol=0)


def test_its_state_dict_loads_strictly_into_the_class(theirs):
    network = real_basicvsr()
    network.load_state_dict(theirs["state"], strict=True)
    assert torch.equal(network.fusion.weight, theirs["state"]["basicvsr.fusion.weight"])


def test_mmagics_layout_is_read_by_mmagics_class(theirs, tmp_path):
    from iart_plugin.archs.conversion import read_weights, write_weights

    torch.save({"state_dict": theirs["state"]}, tmp_path / "theirs.pth")
    write_weights(read_weights(tmp_path / "theirs.pth"), tmp_path / "ours.pth", "basicsr")
    write_weights(read_weights(tmp_path / "ours.pth"), tmp_path / "back.pth", "mmagic")
    there = torch.load(tmp_path / "back.pth", weights_only=True)["state_dict"]
    # The model's two generators: the trained one, and the averaged one, which it tests.
    for part in ("generator.", "generator_ema."):
        given = {k.removeprefix(part): v for k, v in there.items() if k.startswith(part)}
        assert given.keys() == theirs["state"].keys()
        assert all(torch.equal(given[key], value) for key, value in theirs["state"].items())
    assert len(there) == 2 * len(theirs["state"])


class _Halve(nn.Module):
    """A cleaning that takes half of every value away, and counts its calls."""

    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return -x / 2


@pytest.mark.parametrize("grad", [False, True])
def test_each_frame_is_cleaned_while_it_changes_and_three_times_at_most(grad):
    network = real_basicvsr()
    network.image_cleaning = _Halve()
    # Mean changes of the passes: 0.4, 0.2, 0.1; 0.03, 0.015; 0.
    clip = torch.tensor([0.8, 0.06, 0.0]).view(1, 3, 1, 1, 1).expand(1, 3, 3, 4, 5)
    with torch.set_grad_enabled(grad):
        cleaned = network.prepare(clip)
    expected = torch.tensor([0.1, 0.015, 0.0]).view(1, 3, 1, 1, 1).expand_as(clip)
    torch.testing.assert_close(cleaned, expected)
    assert network.image_cleaning.calls == (3 if grad else 3 + 2 + 1)


@pytest.mark.parametrize(
    ("passes", "threshold", "left"), [(0, 0.0, 1), (1, 0.0, 0.5), (5, 0.0, 1 / 32), (9, 0.2, 1 / 8)]
)
def test_passes_and_threshold_can_be_set(passes, threshold, left):
    network = real_basicvsr(clean_passes=passes, clean_threshold=threshold)
    network.image_cleaning = _Halve()
    with torch.no_grad():
        cleaned = network.prepare(torch.ones(2, 1, 3, 2, 2))
    torch.testing.assert_close(cleaned, torch.full_like(cleaned, left))


@pytest.mark.parametrize(
    "bad", [{"clean_passes": -1}, {"clean_passes": 1.5}, {"clean_threshold": -1}]
)
def test_settings_of_the_cleaning_are_checked(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        real_basicvsr(**bad)


@pytest.mark.parametrize("value", [0.0, 1.0, float("nan")])
@pytest.mark.parametrize("size", [(1, 1, 1), (1, 7, 9), (3, 1, 1)])
def test_one_frame_one_pixel_constant_and_nan_clips_end(size, value):
    t, h, w = size
    network = RealIACNN(**SMALL, num_heads=4).eval()
    with torch.no_grad():
        output = network(torch.full((1, t, 3, h, w), value))
    assert output.shape == (1, t, 3, 4 * h, 4 * w)


def test_tiles_of_a_frame_are_cleaned_alike():
    """The change is that of the whole frame, of which one half alone would be cleaned again."""
    from iart_plugin.inference.tiles import Tiling

    network = real_basicvsr(clean_threshold=0.1)
    network.image_cleaning = _Halve()
    clip = torch.zeros(1, 1, 3, 64, 96)
    clip[..., 48:] = 0.3
    engine = Engine(network, torch.device("cpu"), "fp32", Tiling((64, 56), 8), 0, False)
    with torch.no_grad():
        tiled = next(engine._tiled(clip, slice(0, 1), engine.tiling))
        whole = network(clip)[0, 0]
    assert network.image_cleaning.calls == 2  # one pass for all tiles, and one here
    torch.testing.assert_close(tiled, whole, atol=2e-3, rtol=0)


@pytest.mark.parametrize("window_size", [2, 3, 4])
def test_a_warm_start_computes_what_real_basicvsr_computes(window_size, theirs, tmp_path):
    path = tmp_path / "theirs.pth"
    torch.save({"state_dict": {f"generator_ema.{k}": v for k, v in theirs["state"].items()}}, path)
    network = load_ia_cnn("warm-start", path, window_size=window_size)
    assert isinstance(network, RealIACNN) and network.alignment.window_size == window_size
    with torch.no_grad():
        output = network(theirs["clip"])
    change = (output - theirs["output"]).square().mean().sqrt()
    # Next to what no alignment at all would change.
    plain = load_checkpoint(path)[0]
    with torch.no_grad():
        flows = tuple(torch.zeros(1, 3, 2, 65, 70) for _ in range(2))
        unaligned = (plain(theirs["clip"], flows) - theirs["output"]).square().mean().sqrt()
    assert change < 0.02 * unaligned
    save_checkpoint(network, tmp_path / "started.pth")
    again, info = load_checkpoint(tmp_path / "started.pth")
    assert info.recognised.network == "RealIACNN" and again.options == network.options


def test_an_adapter_and_real_basicvsr_make_the_network_again(tmp_path):
    save_checkpoint(real_basicvsr(), tmp_path / "real.pth")
    network = load_ia_cnn("warm-start", tmp_path / "real.pth")
    with torch.no_grad():
        network.image_cleaning[1].bias += 0.5
    save_adapter(network, tmp_path / "real.pth", tmp_path / "adapter.safetensors")
    again = load_ia_cnn(tmp_path / "adapter.safetensors", tmp_path / "real.pth")
    assert isinstance(again, RealIACNN)
    for key, value in network.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value, atol=1e-3, rtol=1e-3)


def test_models_by_name(tmp_path):
    torch.manual_seed(0)
    save_checkpoint(real_basicvsr(), tmp_path / "real.pth")
    save_checkpoint(IACNN(16, 2, alignment="flow_warp", extractor=False), tmp_path / "plain.pth")
    model = load_model("real-basicvsr", tmp_path / "real.pth", clean_passes=2, clean_threshold=0.1)
    assert (model.network.clean_passes, model.network.clean_threshold) == (2, 0.1)
    assert isinstance(load_model("real-ia-cnn", tmp_path / "real.pth").network, RealIACNN)
    for name in ("real-basicvsr", "real-ia-cnn"):
        with pytest.raises(ValueError, match=f"plain.pth holds basicvsr weights, not {name}"):
            load_model(name, tmp_path / "plain.pth")
    with pytest.raises(ValueError, match="real.pth holds real-basicvsr weights, not basicvsr"):
        load_model("basicvsr", tmp_path / "real.pth")
    with pytest.raises(ValueError, match="basicvsr cleans no frames"):
        load_model("basicvsr", tmp_path / "plain.pth", clean_passes=2)


def test_plain_weights_do_not_load_into_it():
    plain = IACNN(16, 2, alignment="flow_warp", extractor=False).state_dict()
    with pytest.raises(CheckpointMismatch, match="holds a BasicVSR, the network is a RealBasicVSR"):
        real_basicvsr().load_state_dict(plain)


def test_it_learns_everywhere():
    network = RealIACNN(**SMALL, num_heads=4, clean_passes=1)
    network(torch.rand(1, 3, 3, 8, 9)).square().mean().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
    assert network.image_cleaning[0].main[0].weight.grad.abs().max() > 0


def test_with_a_cleaning_that_does_nothing_it_is_basicvsr(basicvsr_weights):
    basicvsr, info = load_checkpoint(basicvsr_weights)
    sizes = {name: info.recognised.options[name] for name in ("num_feat", "num_block")}
    network = RealIACNN(**sizes, num_clean_block=1, alignment="flow_warp", extractor=False).eval()
    nn.init.zeros_(network.image_cleaning[1].weight)
    nn.init.zeros_(network.image_cleaning[1].bias)
    cleaning = {k: v for k, v in network.state_dict().items() if k.startswith("image_cleaning.")}
    network.load_state_dict(basicvsr.state_dict() | cleaning)
    clip = torch.rand(1, 2, 3, 32, 40)
    with torch.no_grad():
        assert torch.equal(network(clip), basicvsr(clip))

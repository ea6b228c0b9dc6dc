"""Conversion among the four layouts: every round trip gives the same bits."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from iart_plugin.alignment import ALIGNMENTS
from iart_plugin.archs import (
    IACNN,
    IART,
    AlignmentStudyNet,
    CheckpointMismatch,
    export_official,
    load_checkpoint,
    save_checkpoint,
)
from iart_plugin.archs.conversion import LAYOUTS, Weights, read_weights, write_weights


def _fill(network: nn.Module, seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {
        key: torch.randn_like(value) if value.is_floating_point() else value
        for key, value in network.state_dict().items()
    }


def _ia_cnn(seed: int) -> dict[str, torch.Tensor]:
    return _fill(IACNN(num_feat=8, num_block=1, num_heads=2), seed)


def _ia_rt() -> IART:
    return IART(mid_channels=8, embed_dim=12, depths=(1,), num_heads=(2,))


def _suffix(layout: str) -> str:
    return ".safetensors" if layout == "safetensors" else ".pth"


def _assert_same(one: dict | None, other: dict | None) -> None:
    if one is None or other is None:
        assert one is other
        return
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert value.dtype == other[key].dtype
        assert torch.equal(value, other[key]), key


@pytest.fixture
def basicsr(tmp_path):
    """A BasicSR training's file: trained and averaged weights."""
    path = tmp_path / "net_g.pth"
    torch.save({"params": _ia_cnn(0), "params_ema": _ia_cnn(1)}, path)
    return path


def test_basicsr_to_mmagic_and_back(basicsr, tmp_path):
    write_weights(read_weights(basicsr), tmp_path / "mmagic.pth", "mmagic")
    write_weights(read_weights(tmp_path / "mmagic.pth"), tmp_path / "back.pth", "basicsr")
    before, after = (torch.load(p, weights_only=True) for p in (basicsr, tmp_path / "back.pth"))
    assert before.keys() == after.keys()
    for name in before:
        _assert_same(before[name], after[name])


def test_mmagic_file_has_the_average_in_front(basicsr, tmp_path):
    write_weights(read_weights(basicsr), tmp_path / "mmagic.pth", "mmagic")
    file = torch.load(tmp_path / "mmagic.pth", weights_only=True)
    given = torch.load(basicsr, weights_only=True)
    key = "fusion.weight"
    assert torch.equal(file["state_dict"][f"generator.{key}"], given["params_ema"][key])
    trained = file["ema_state_dict"][f"module.generator.{key}"]
    assert torch.equal(trained, given["params"][key])


@pytest.mark.parametrize("averaged", ["generator_ema.", "generator_ema.module."])
def test_mmagics_own_averaging_hook(tmp_path, averaged):
    one, other = _ia_cnn(2), _ia_cnn(3)
    state = {f"generator.{k}": v for k, v in one.items()}
    state |= {f"{averaged}{k}": v for k, v in other.items()}
    state["generator_ema.steps"] = torch.tensor(7)
    torch.save({"meta": {}, "state_dict": state}, tmp_path / "gan.pth")
    weights = read_weights(tmp_path / "gan.pth")
    _assert_same(weights.trained, one)
    averaged_set = {k: v for k, v in weights.averaged.items() if k != "steps"}
    _assert_same(averaged_set, other)


@pytest.mark.parametrize("via", itertools.permutations(LAYOUTS, 2))
def test_official_weights_survive_any_two_layouts(tmp_path, via):
    """The dead weights too, which no network here has."""
    network = _ia_rt()
    official = export_official(network)
    torch.manual_seed(4)
    official = {
        key: torch.randn_like(value) if value.is_floating_point() else value
        for key, value in official.items()
    }
    path = tmp_path / "official.pth"
    torch.save({"params": official}, path)
    for i, layout in enumerate((*via, "official")):
        target = tmp_path / f"{i}{_suffix(layout)}"
        write_weights(read_weights(path), target, layout)
        path = target
    _assert_same(torch.load(path, weights_only=True)["params"], official)


def test_network_trained_here_becomes_an_official_file(tmp_path):
    network = _ia_rt()
    network.load_state_dict(_fill(network, 5))
    torch.save({"params": network.state_dict()}, tmp_path / "basicsr.pth")
    write_weights(read_weights(tmp_path / "basicsr.pth"), tmp_path / "official.pth", "official")
    official = torch.load(tmp_path / "official.pth", weights_only=True)["params"]
    _assert_same(official, export_official(network))
    again = _ia_rt()
    again.load_state_dict(official)
    _assert_same(again.state_dict(), network.state_dict())


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({"window_size": 3}, None),
        ({"padding_mode": "zeros"}, "padding_mode=border, not zeros"),
        ({"encode_window": False}, "encode_window=True, not False"),
    ],
)
def test_recorded_options_reach_an_official_file(tmp_path, options, refused):
    network = IART(**{**_ia_rt().options, "alignment_options": options})
    save_checkpoint(network, tmp_path / "ours.pth")
    weights = read_weights(tmp_path / "ours.pth")
    if refused:
        with pytest.raises(ValueError, match=refused):
            write_weights(weights, tmp_path / "official.pth", "official")
    else:
        write_weights(weights, tmp_path / "official.pth", "official")
        official = torch.load(tmp_path / "official.pth", weights_only=True)["params"]
        assert official["implicit_warp.position_bias"].shape == (1, 9, 12)


def test_study_network_goes_to_mmagic_and_back(tmp_path):
    network = AlignmentStudyNet(embed_dim=12, mid_channels=8, depths=[1], num_heads=2)
    torch.save({"params": network.state_dict()}, tmp_path / "basicsr.pth")
    write_weights(read_weights(tmp_path / "basicsr.pth"), tmp_path / "mmagic.pth", "mmagic")
    write_weights(read_weights(tmp_path / "mmagic.pth"), tmp_path / "again.pth", "basicsr")
    again = torch.load(tmp_path / "again.pth", weights_only=True)["params"]
    _assert_same(again, network.state_dict())
    with pytest.raises(CheckpointMismatch, match="built from its config"):
        load_checkpoint(tmp_path / "basicsr.pth")


def test_single_set_is_the_average_unless_told(basicsr, tmp_path):
    given = torch.load(basicsr, weights_only=True)
    weights = read_weights(basicsr)
    write_weights(weights, tmp_path / "a.safetensors", "safetensors")
    _assert_same(read_weights(tmp_path / "a.safetensors").best, given["params_ema"])
    trained = Weights(weights.recognised, weights.trained, None)
    write_weights(trained, tmp_path / "b.safetensors", "safetensors")
    _assert_same(read_weights(tmp_path / "b.safetensors").best, given["params"])


def test_basicvsr_has_mmagics_names_in_mmagics_layout(tmp_path):
    network = IACNN(num_feat=8, num_block=1, alignment="flow_warp", extractor=False)
    state = _fill(network, 6)
    torch.save({"params": state}, tmp_path / "basicvsr.pth")
    write_weights(read_weights(tmp_path / "basicvsr.pth"), tmp_path / "mmagic.pth", "mmagic")
    there = torch.load(tmp_path / "mmagic.pth", weights_only=True)["state_dict"]
    assert "generator.backward_resblocks.main.2.0.conv1.weight" in there
    assert "generator.upsample1.upsample_conv.bias" in there
    assert "generator.spynet.basic_module.5.basic_module.4.conv.weight" in there
    write_weights(read_weights(tmp_path / "mmagic.pth"), tmp_path / "back.pth", "basicsr")
    _assert_same(torch.load(tmp_path / "back.pth", weights_only=True)["params"], state)


def test_released_program_has_no_ia_cnn(basicsr, tmp_path):
    with pytest.raises(ValueError, match="no IACNN"):
        write_weights(read_weights(basicsr), tmp_path / "official.pth", "official")
    assert [path.name for path in tmp_path.iterdir()] == ["net_g.pth"]


def test_name_must_fit_the_layout(basicsr, tmp_path):
    weights = read_weights(basicsr)
    with pytest.raises(ValueError, match="does not fit the file name"):
        write_weights(weights, tmp_path / "a.pth", "safetensors")
    with pytest.raises(ValueError, match="does not fit the file name"):
        write_weights(weights, tmp_path / "a.safetensors", "mmagic")
    with pytest.raises(ValueError, match="unknown layout 'onnx'"):
        write_weights(weights, tmp_path / "a.pth", "onnx")


def test_unknown_file_is_named(tmp_path):
    torch.save({"params": {"head.weight": torch.ones(1)}}, tmp_path / "other.pth")
    with pytest.raises(CheckpointMismatch, match=r"other\.pth holds no IA-RT"):
        read_weights(tmp_path / "other.pth")


@pytest.mark.parametrize("via", ["basicsr", "mmagic", "safetensors"])
def test_what_shapes_do_not_tell_comes_along(tmp_path, via):
    network = IACNN(16, 1, num_heads=4)
    save_checkpoint(network, tmp_path / "saved.pth")
    path = tmp_path / f"via{_suffix(via)}"
    write_weights(read_weights(tmp_path / "saved.pth"), path, via)
    assert load_checkpoint(path)[0].options == network.options


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize(
    "network",
    [
        lambda name: IACNN(8, 1, 2, alignment=name),
        lambda name: IART(8, 12, [1], [2], alignment=name),
        lambda name: AlignmentStudyNet(name, embed_dim=12, depths=[1], num_heads=2),
        lambda name: AlignmentStudyNet(name, align="images", embed_dim=12, depths=[1], num_heads=2),
        lambda name: AlignmentStudyNet(
            name, embed_dim=12, depths=[1], num_heads=2, window_size=(4, 8)
        ),
    ],
    ids=["IACNN", "IART", "study", "study on images", "oblong windows"],
)
def test_every_alignment_converts_without_recorded_options(tmp_path, network, alignment):
    state = network(alignment).state_dict()
    torch.save({"params": state}, tmp_path / "given.pth")
    write_weights(read_weights(tmp_path / "given.pth"), tmp_path / "m.pth", "mmagic")
    _assert_same(read_weights(tmp_path / "m.pth").best, state)


def test_a_study_network_that_lacks_a_key_is_refused(tmp_path):
    state = AlignmentStudyNet("none", embed_dim=12, depths=[1], num_heads=2).state_dict()
    del state["conv_hr.bias"]
    torch.save({"params": state}, tmp_path / "given.pth")
    with pytest.raises(CheckpointMismatch, match=r"given.pth: .* 1 missing \(conv_hr.bias\)"):
        read_weights(tmp_path / "given.pth")

"""Files of BasicSR, of the released program and safetensors, loaded by MMEngine itself."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import iart_plugin.mmagic
from iart_plugin.archs import IACNN, IART, CheckpointMismatch, export_official, save_checkpoint

CNN = {"type": "IACNN", "num_feat": 8, "num_block": 1, "num_heads": 2}
RT = {
    "type": "IART",
    "mid_channels": 8,
    "embed_dim": 12,
    "depths": (1, 1),
    "num_heads": (2, 2),
}


def _build(generator: dict) -> nn.Module:
    from mmagic.registry import MODELS
    from mmagic.utils import register_all_modules

    register_all_modules()
    return MODELS.build(
        {
            "type": "BasicVSR",
            "generator": generator,
            "pixel_loss": {"type": "CharbonnierLoss"},
            "data_preprocessor": {"type": "DataPreprocessor"},
        }
    )


def _network(cls: type, options: dict, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    network = cls(**{key: value for key, value in options.items() if key != "type"})
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return network


def _load(model: nn.Module, path) -> None:
    from mmengine.runner import load_checkpoint

    load_checkpoint(model, str(path), map_location="cpu", strict=True)


def _assert_same(model: nn.Module, network: nn.Module) -> None:
    loaded, given = model.generator.state_dict(), network.state_dict()
    assert loaded.keys() == given.keys()
    assert all(torch.equal(loaded[key], given[key]) for key in given)


def test_registered_classes_are_the_packages_own():
    from mmagic.registry import MODELS

    import iart_plugin

    assert MODELS.get("IACNN") is IACNN
    assert MODELS.get("mmagic.IART") is IART
    assert MODELS.get("ImplicitAlignment") is iart_plugin.ops.ImplicitAlignment
    assert MODELS.get("IART").__module__ == "iart_plugin.archs.ia_rt"


def test_average_of_a_basicsr_file_is_preferred(tmp_path):
    trained, averaged = (_network(IACNN, CNN, seed) for seed in (0, 1))
    path = tmp_path / "net_g_4.pth"
    torch.save({"params": trained.state_dict(), "params_ema": averaged.state_dict()}, path)
    model = _build(CNN)
    _load(model, path)
    _assert_same(model, averaged)


def test_official_file_with_its_dead_weights(tmp_path):
    network = _network(IART, RT, 2)
    path = tmp_path / "official.pth"
    torch.save({"params": export_official(network)}, path)
    model = _build(RT)
    _load(model, path)
    _assert_same(model, network)


def test_safetensors_file(tmp_path):
    network = _network(IACNN, CNN, 3)
    path = tmp_path / "network.safetensors"
    save_file(network.state_dict(), path)
    model = _build(CNN)
    _load(model, path)
    _assert_same(model, network)


def test_basicsrs_basicvsr_in_mmagics_own_network(tmp_path):
    """MMagic's BasicVSRNet, which is not of this package, reads BasicSR's file as well."""
    options = {"num_feat": 8, "num_block": 1, "alignment": "flow_warp", "extractor": False}
    network = _network(IACNN, options, 7)
    path = tmp_path / "BasicVSR.pth"
    torch.save({"params": network.state_dict()}, path)
    model = _build({"type": "BasicVSRNet", "mid_channels": 8, "num_blocks": 1})
    _load(model, path)
    network.load_state_dict(model.generator.state_dict())  # by its own translation
    given = torch.load(path, weights_only=True)["params"]
    assert all(torch.equal(value, given[key]) for key, value in network.state_dict().items())
    clip = torch.rand(1, 3, 3, 64, 64)
    with torch.no_grad():
        theirs, ours = model.generator.eval()(clip), network.eval()(clip)
    assert torch.allclose(theirs, ours, atol=1e-4)
    iart_plugin.mmagic.CheckpointFitHook().after_load_checkpoint(_runner(model), {})


def test_bare_state_dict(tmp_path):
    network = _network(IACNN, CNN, 4)
    path = tmp_path / "bare.pth"
    torch.save(network.state_dict(), path)
    model = _build(CNN)
    _load(model, path)
    _assert_same(model, network)


def _runner(model: nn.Module):
    from types import SimpleNamespace

    return SimpleNamespace(model=model, _load_from="given.pth")


def test_wrong_network_is_refused(tmp_path):
    from mmengine.runner.checkpoint import _load_checkpoint

    path = tmp_path / "ia_rt.pth"
    torch.save({"params": _network(IART, RT, 5).state_dict()}, path)
    hook = iart_plugin.mmagic.CheckpointFitHook()
    with pytest.raises(
        CheckpointMismatch, match="given.pth: .* it holds a IART, the network is a IACNN"
    ):
        hook.after_load_checkpoint(_runner(_build(CNN)), _load_checkpoint(str(path)))


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_alignment_that_the_file_records_is_compared(tmp_path, suffix):
    from mmengine.runner.checkpoint import _load_checkpoint

    path = tmp_path / f"ia_cnn.{suffix}"
    save_checkpoint(_network(IACNN, CNN | {"num_heads": 4}, 5), path)
    hook = iart_plugin.mmagic.CheckpointFitHook()
    with pytest.raises(CheckpointMismatch, match="num_heads=4, the network's num_heads=2"):
        hook.after_load_checkpoint(_runner(_build(CNN)), _load_checkpoint(str(path)))
    fitting = _runner(_build(CNN | {"num_heads": 4}))
    hook.after_load_checkpoint(fitting, _load_checkpoint(str(path)))


def test_a_resumed_checkpoint_of_other_heads_is_refused():
    """The sizes of the weights do not show the number of heads."""
    hook, trained = iart_plugin.mmagic.CheckpointFitHook(), _build(CNN | {"num_heads": 4})
    checkpoint = {"state_dict": trained.state_dict(), "optimizer": {}}
    hook.before_save_checkpoint(_runner(trained), checkpoint)
    hook.after_load_checkpoint(_runner(trained), checkpoint)
    with pytest.raises(CheckpointMismatch, match="num_heads=4, the network's num_heads=2"):
        hook.after_load_checkpoint(_runner(_build(CNN)), checkpoint)


def test_part_of_the_network_is_refused_unless_asked_for(tmp_path):
    model = _build(CNN)
    state = {k: v for k, v in model.state_dict().items() if "extractor" not in k}
    with pytest.raises(CheckpointMismatch, match="extractor"):
        iart_plugin.mmagic.CheckpointFitHook().after_load_checkpoint(
            _runner(model), {"state_dict": state}
        )
    partial = iart_plugin.mmagic.CheckpointFitHook(partial=True)
    partial.after_load_checkpoint(_runner(model), {"state_dict": state})
    state["generator.conv_last.weight"] = torch.ones(1)
    with pytest.raises(CheckpointMismatch):
        partial.after_load_checkpoint(_runner(model), {"state_dict": state})


def test_other_files_come_through_untouched(tmp_path):
    from mmengine.runner.checkpoint import _load_checkpoint

    for name, content in {
        "mmagic.pth": {
            "meta": {"iter": 3},
            "state_dict": {"generator.fusion.weight": torch.ones(1)},
        },
        "someone_elses.pth": {"params": {"body.0.weight": torch.ones(2)}},
        "bare.pth": {"head.weight": torch.ones(3)},
    }.items():
        torch.save(content, tmp_path / name)
        loaded = _load_checkpoint(str(tmp_path / name))
        assert repr(loaded) == repr(content)


def test_pretrained_flow_fills_the_flow_network_alone(tmp_path):
    from mmengine.model import initialize

    flow = _network(IACNN, CNN, 6).spynet
    weights = {k: v for k, v in flow.state_dict().items() if k not in ("mean", "std")}
    model = _build(CNN)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    mmagic_names = {_mmagic_name(key): value for key, value in weights.items()}
    for name, content in {"basicsr.pth": {"params": weights}, "mmagic.pth": mmagic_names}.items():
        model.load_state_dict(before)
        torch.save(content, tmp_path / name)
        initialize(model, {"type": "PretrainedFlow", "checkpoint": str(tmp_path / name)})
        after = model.state_dict()
        changed = {key for key in before if not torch.equal(after[key], before[key])}
        assert changed == {f"generator.spynet.{key}" for key in weights}
        assert all(torch.equal(after[f"generator.spynet.{k}"], v) for k, v in weights.items())


def _mmagic_name(key: str) -> str:
    """basic_module.0.basic_module.4.weight -> basic_module.0.basic_module.2.conv.weight."""
    *head, index, kind = key.split(".")
    return ".".join([*head, str(int(index) // 2), "conv", kind])


def test_pretrained_flow_names_what_is_missing(tmp_path):
    from mmengine.model import initialize

    torch.save({}, tmp_path / "empty.pth")
    config = {"type": "PretrainedFlow", "checkpoint": str(tmp_path / "empty.pth")}
    with pytest.raises(ValueError, match="Linear has no module named 'spynet'"):
        initialize(nn.Linear(1, 1), config)
    with pytest.raises(RuntimeError, match="basic_module"):
        initialize(_build(CNN), config)

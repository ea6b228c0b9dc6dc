"""What is refused before training starts, and how it is said."""

from __future__ import annotations

import shutil

import pytest
import torch

import iart_plugin.basicsr  # noqa: F401  registers
from iart_plugin.archs import IACNN, save_checkpoint
from iart_plugin.basicsr.checks import OptionError, check_options, check_weights
from iart_plugin.basicsr.model import RecurrentMixPrecisionRTModel
from iart_plugin.basicsr.precision import choose_amp_dtype
from tests.basicsr.basicsr_driver import (
    ROOT,
    SMALL_IACNN,
    SMALL_IART,
    parsed,
    run,
    test_options,
    write_options,
)


@pytest.mark.parametrize(
    ("section", "key", "nearest"),
    [
        ("network_g", "num_blocks", "num_block"),
        ("train", "fix_flows", "fix_flow"),
        ("train", "flow_lr", "flow_lr_mul"),
    ],
)
def test_misspelt_key_is_named_with_the_nearest(options, section, key, nearest) -> None:
    opt = parsed(options())
    opt[section][key] = 1
    with pytest.raises(OptionError, match=f"'{key}' in {section}.*Did you mean '{nearest}'"):
        check_options(opt)
    with pytest.raises(OptionError, match=key):  # also where the stock entry builds the model
        RecurrentMixPrecisionRTModel(opt)


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        (None, "model_type", ["IACNN"], "model_type must be a name"),
        (None, "dist_params", {"backend": "ncl"}, "dist_params.backend is 'ncl'.*'nccl'"),
        (None, "dist_params", {"prot": 29500}, "'prot' in dist_params.*Did you mean 'port'"),
        ("network_g", "num_block", True, "network_g.num_block is True; it must be a whole number"),
        ("train", "pixel_opt", {"type": "CharbonnierLoss", "loss_weight": -1}, "loss_weight is -1"),
    ],
)
def test_values_that_would_be_taken_for_others(options, section, key, value, message) -> None:
    opt = parsed(options())
    (opt if section is None else opt[section])[key] = value
    with pytest.raises(OptionError, match=message):
        check_options(opt)


def test_official_fields_are_known(options) -> None:
    check_options(parsed(options(network_g=SMALL_IART)))


@pytest.mark.parametrize(
    ("section", "name", "nearest"), [("network_g", "IACN", "IACNN"), ("network_g", "IARTT", "IART")]
)
def test_unregistered_network(options, section, name, nearest) -> None:
    opt = parsed(options())
    opt[section] = {"type": name}
    with pytest.raises(OptionError, match=f"'{name}' is not registered. Did you mean '{nearest}'"):
        check_options(opt)


@pytest.mark.parametrize(
    ("network", "changes", "named"),
    [
        (SMALL_IACNN, {"alignment": "implict"}, "implict"),
        (SMALL_IACNN, {"num_heads": 3}, "3"),
        (SMALL_IART, {"is_low_res_input": False}, "is_low_res_input"),
        (SMALL_IART, {"num_frames": 5}, "5"),
    ],
)
def test_value_that_the_network_does_not_have(options, network, changes, named) -> None:
    with pytest.raises(OptionError, match=rf"network_g \({network['type']}\).*{named}"):
        check_options(parsed(options(network_g={**network, **changes})))


def test_gpu_that_is_not_there(options, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(OptionError, match="num_gpu is 8"):
        check_options(parsed(options(num_gpu=8)))


def test_processes_that_would_not_fit_the_gpus(options, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(OptionError, match="CUDA_VISIBLE_DEVICES"):
        check_options({**parsed(options(num_gpu=0)), "dist": True})
    opt = parsed(options(num_gpu=2))
    opt["train"]["amp_dtype"] = "bf16"
    with pytest.raises(OptionError, match="amp_dtype.*torchrun"):
        check_options(opt)
    check_options({**opt, "dist": True})


@pytest.mark.parametrize("name", ["fp8", "fp16"])
def test_precision_that_a_cpu_lacks(name) -> None:
    with pytest.raises(OptionError, match=name):
        choose_amp_dtype(name, torch.device("cpu"))


def test_missing_and_broken_weights(options, tmp_path) -> None:
    opt = parsed(options())
    opt["path"]["pretrain_network_g"] = str(tmp_path / "absent.pth")
    with pytest.raises(OptionError, match=r"pretrain_network_g: .*absent\.pth does not exist"):
        check_weights(opt)
    (tmp_path / "absent.pth").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(OptionError, match=r"absent\.pth is not a readable PyTorch checkpoint"):
        check_weights(opt)
    opt = parsed(options())
    opt["network_g"]["spynet_path"] = "nowhere/spynet.pth"
    with pytest.raises(OptionError, match=r"network_g\.spynet_path: nowhere/spynet\.pth"):
        check_weights(opt)


def test_weights_of_another_network_are_told_in_few_words(options, tmp_path) -> None:
    path = tmp_path / "wide.pth"
    torch.save({"params": IACNN(num_feat=16, num_block=1, num_heads=2).state_dict()}, path)
    opt = parsed(options())
    opt["path"]["pretrain_network_g"] = str(path)
    with pytest.raises(OptionError) as caught:
        RecurrentMixPrecisionRTModel(opt)
    assert str(path) in str(caught.value)
    assert "16" in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_alignment_that_the_file_records_is_compared(options, tmp_path) -> None:
    """Its heads: the network would load and give other numbers."""
    opt = parsed(options())
    network = {k: v for k, v in opt["network_g"].items() if k not in ("type", "spynet_path")}
    save_checkpoint(IACNN(**(network | {"num_heads": 1})), tmp_path / "one.pth")
    opt["path"]["pretrain_network_g"] = str(tmp_path / "one.pth")
    with pytest.raises(OptionError, match=r"one\.pth does not fit: .*num_heads=1, the network's"):
        check_weights(opt)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train__total_iter": 102}, "add up to 100 iterations, fewer than train.total_iter, 102"),
        ({"val__save_img": True}, "val.save_img must be there and false"),
        ({"datasets__train__prefetch_mode": "cpu"}, "num_worker_per_gpu of 1 or more"),
    ],
)
def test_what_would_end_a_training_in_the_middle(options, changes, message) -> None:
    check_options(parsed(options(train__total_iter=101)))
    with pytest.raises(OptionError, match=message):
        check_options(parsed(options(**changes)))


def test_validation_sets_of_one_name(options) -> None:
    opt = options()
    for name in ("reds4", "REDS4"):
        opt["datasets"]["val_2"] = {**opt["datasets"]["val"], "name": name}
        if name == "reds4":
            check_options(parsed(opt))
    with pytest.raises(OptionError, match=r"have one name \(REDS4, REDS4\)"):
        check_options(parsed(opt))


def test_weights_that_do_not_fit_are_refused_before_anything_is_written(
    data, tmp_path, options
) -> None:
    import torch

    from iart_plugin.archs import IACNN

    torch.save({"params": IACNN(16, 2).state_dict()}, tmp_path / "wide.pth")
    torch.save({"params": {"weight": torch.zeros(2)}}, tmp_path / "no_flow.pth")
    for change, message in (
        (("path", "pretrain_network_g", tmp_path / "wide.pth"), "num_feat=16, the network"),
        (("network_g", "spynet_path", tmp_path / "no_flow.pth"), "does not hold SPyNet weights"),
    ):
        opt = options()
        section, key, path = change
        opt.setdefault(section, {})[key] = str(path)
        output = run("basicsr_train", write_options(opt, tmp_path / "train.yml"), fails=True)
        assert f"error: {section}.{key}: {path} does not fit" in output
        assert message in output
        assert "Traceback" not in output
        assert not (tmp_path / "experiments").exists()


@pytest.mark.parametrize("network", [None, {"num_feat": 8}])
def test_network_without_a_type(options, network) -> None:
    opt = options()
    opt["network_g"] = network
    with pytest.raises(OptionError, match="network_g must be a section with a 'type'"):
        check_options(opt)


def test_the_tool_says_it_in_one_line_before_it_starts(data, tmp_path, options) -> None:
    """No traceback, and nothing written."""
    opt = options()
    opt["network_g"]["num_feats"] = 8
    output = run("basicsr_train", write_options(opt, tmp_path / "train.yml"), fails=True)
    assert "error: Unknown key 'num_feats' in network_g (IACNN)" in output
    assert "Traceback" not in output
    assert not (tmp_path / "experiments").exists()


def test_the_tool_checks_the_data_of_a_stock_model(data, tmp_path, options) -> None:
    """An option file without anything of this package's, and a test set with a frame missing."""
    shutil.copytree(data / "val", tmp_path / "val")
    (tmp_path / "val" / "BIx4" / "000" / "00000001.png").unlink()
    opt = test_options(options(), "")
    opt["path"]["pretrain_network_g"] = None
    opt["model_type"] = "VideoRecurrentModel"
    opt["network_g"] = {"type": "BasicVSR", "num_feat": 8, "num_block": 1}
    opt["datasets"]["test"]["dataroot_gt"] = str(tmp_path / "val" / "GT")
    opt["datasets"]["test"]["dataroot_lq"] = str(tmp_path / "val" / "BIx4")
    output = run("basicsr_test", write_options(opt, tmp_path / "t.yml", plugin=False), fails=True)
    assert "error: data set 'REDS4'" in output
    assert "Traceback" not in output
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs" / "basicsr").glob("*/*.yml")), ids=lambda p: p.stem
)
def test_shipped_option_files_are_sound(path, monkeypatch) -> None:
    """They parse as BasicSR parses them, and every key is read; weights and data are the user's."""
    import yaml
    from basicsr.utils.options import ordered_yaml

    opt = yaml.load(path.read_text(), Loader=ordered_yaml()[0])
    assert opt["plugin"] == "iart_plugin.basicsr"
    if not path.stem.startswith("AlignmentStudy"):  # its name changes with its overrides
        assert opt["name"] == path.stem
    opt.update(num_gpu=0, path={}, is_train="train" in opt)
    opt["network_g"].pop("spynet_path", None)
    check_options(opt)

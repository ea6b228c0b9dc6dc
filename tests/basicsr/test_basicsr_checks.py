"""What is refused before training starts, and how it is said."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import iart_plugin.basicsr  # noqa: F401  registers
from iart_plugin.archs import IACNN, save_checkpoint
from iart_plugin.basicsr.checks import OptionError, check_dataset, check_options, check_weights
from iart_plugin.basicsr.model import RecurrentMixPrecisionRTModel, choose_amp_dtype
from tests.basicsr.basicsr_driver import (
    ROOT,
    SMALL_IACNN,
    SMALL_IART,
    run,
    test_options,
    write_options,
)


def parsed(opt: dict) -> dict:
    """The options as BasicSR's ``parse_options`` completes them."""
    opt = copy.deepcopy(opt)
    opt.update(is_train=True, auto_resume=False, dist=False, rank=0, world_size=1)
    for phase, dataset in opt["datasets"].items():
        dataset.update(phase=phase, scale=opt["scale"])
    return opt


@pytest.fixture
def train_set(data: Path, tmp_path: Path, options) -> dict:
    """The training set's options, on a copy of the data that a test may damage."""
    shutil.copytree(data, tmp_path / "data")
    opt = parsed(options())["datasets"]["train"]
    for key in ("dataroot_gt", "dataroot_lq", "meta_info_file"):
        opt[key] = opt[key].replace(str(data), str(tmp_path / "data"))
    return opt


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


def test_whole_set_passes(train_set) -> None:
    check_dataset(train_set)


def test_missing_frame(train_set) -> None:
    frame = Path(train_set["dataroot_lq"], "001", "00000042.png")
    frame.unlink()
    with pytest.raises(OptionError, match=f"{frame} is missing"):
        check_dataset(train_set)


def test_missing_clip(train_set) -> None:
    clip = Path(train_set["dataroot_gt"], "002")
    shutil.rmtree(clip)
    with pytest.raises(OptionError, match=f"{clip}/00000000.png is missing"):
        check_dataset(train_set)


@pytest.mark.parametrize("damage", ["truncate", "flip", "text", "empty"])
def test_unreadable_png(train_set, damage) -> None:
    frame = Path(train_set["dataroot_gt"], "002", "00000099.png")
    content = bytearray(frame.read_bytes())
    if damage == "truncate":
        content = content[: len(content) // 2]
    elif damage == "flip":
        content[len(content) // 2] ^= 0xFF
    else:
        content = b"no image" if damage == "text" else b""
    frame.write_bytes(bytes(content))
    with pytest.raises(OptionError, match=f"{frame} is not a readable image"):
        check_dataset(train_set)


def test_mismatched_sizes(train_set) -> None:
    frame = Path(train_set["dataroot_lq"], "001", "00000007.png")
    cv2.imwrite(str(frame), np.zeros((16, 15, 3), np.uint8))
    with pytest.raises(OptionError, match=r"00000007\.png is 15x16.*do not match"):
        check_dataset(train_set)


def test_crop_larger_than_the_frames(train_set) -> None:
    train_set["gt_size"] = 256
    with pytest.raises(OptionError, match="gt_size 256"):
        check_dataset(train_set)


def test_short_reds_clip(train_set) -> None:
    Path(train_set["meta_info_file"]).write_text("001 30 (64,64,3)\n")
    with pytest.raises(OptionError, match="clip 001 30 frames"):
        check_dataset(train_set)


def test_every_clip_in_the_validation_partition(train_set) -> None:
    Path(train_set["meta_info_file"]).write_text("000 100 (64,64,3)\n")
    with pytest.raises(OptionError, match="none is left"):
        check_dataset(train_set)


def test_test_set_with_unequal_counts(data, tmp_path, options) -> None:
    shutil.copytree(data / "val", tmp_path / "val")
    opt = parsed(options())["datasets"]["val"]
    opt["dataroot_gt"] = str(tmp_path / "val" / "GT")
    opt["dataroot_lq"] = str(tmp_path / "val" / "BIx4")
    check_dataset(opt)
    Path(opt["dataroot_lq"], "000", "00000003.png").unlink()
    with pytest.raises(OptionError, match=r"4 frames.*5.*'00000003'"):
        check_dataset(opt)
    with pytest.raises(OptionError, match="Vid4, REDS4 and REDSofficial"):
        check_dataset({**opt, "name": "mine"})


def test_vimeo_set(data, tmp_path) -> None:
    frame = cv2.imread(str(data / "train" / "GT" / "001" / "00000000.png"))
    for root, image in (("GT", frame), ("BIx4", frame[::4, ::4])):
        for index in range(1, 8):
            path = tmp_path / root / "00001" / "0001" / f"im{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), image)
    (tmp_path / "meta.txt").write_text("00001/0001 7 (64,64,3)\n")
    opt = {
        "name": "Vimeo90K",
        "type": "Vimeo90KRecurrentDataset",
        "dataroot_gt": str(tmp_path / "GT"),
        "dataroot_lq": str(tmp_path / "BIx4"),
        "meta_info_file": str(tmp_path / "meta.txt"),
        "num_frame": -1,
        "gt_size": 64,
        "scale": 4,
    }
    check_dataset(opt)
    (tmp_path / "GT" / "00001" / "0001" / "im4.png").unlink()
    for kind in ("Vimeo90KRecurrentDataset", "VideoTestVimeo90KDataset"):
        with pytest.raises(OptionError, match=r"im4\.png is missing"):
            check_dataset({**opt, "type": kind, "num_frame": 7})


def test_blank_line_in_a_meta_file(train_set) -> None:
    """Which BasicSR takes for a clip's name, when that is drawn."""
    meta = Path(train_set["meta_info_file"])
    meta.write_text(meta.read_text() + "\n")
    with pytest.raises(OptionError, match=r"line 3: expected .*, got ''"):
        check_dataset(train_set)


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


def test_frames_whose_names_agree_in_part_are_refused(data, tmp_path) -> None:
    """Equal counts, but each side lacks another frame: sorted pairs would be misaligned."""
    shutil.copytree(data / "val", tmp_path / "val")
    (tmp_path / "val" / "BIx4" / "000" / "00000001.png").unlink()
    (tmp_path / "val" / "GT" / "000" / "00000003.png").unlink()
    opt = {
        "name": "REDS4",
        "type": "VideoRecurrentTestDataset",
        "phase": "test",
        "cache_data": True,
        "num_frame": -1,
        "dataroot_gt": str(tmp_path / "val" / "GT"),
        "dataroot_lq": str(tmp_path / "val" / "BIx4"),
        "io_backend": {"type": "disk"},
        "scale": 4,
    }
    with pytest.raises(OptionError, match="not the same .*'00000001'"):
        check_dataset(opt)


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
    assert opt["name"] == path.stem
    opt.update(num_gpu=0, path={}, is_train="train" in opt)
    opt["network_g"].pop("spynet_path", None)
    check_options(opt)

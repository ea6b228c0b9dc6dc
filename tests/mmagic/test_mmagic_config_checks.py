"""What is refused before MMEngine builds it, and how it is said."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from mmengine.config import Config

import iart_plugin.mmagic  # noqa: F401  registers
from iart_plugin.mmagic.config_checks import check_config, check_data
from iart_plugin.option_errors import OptionError
from tests.mmagic.mmagic_driver import CONFIGS, TINY, environment, tool
from tests.programs import run_program

SHIPPED = CONFIGS / "ia_cnn" / "ia-cnn_c64b30_8xb1-300k_reds4.py"
DATASET = "train_dataloader.dataset."


@pytest.fixture(scope="module")
def shipped() -> str:
    """The shipped config's text, with a small network; reading it again is faster."""
    cfg = Config.fromfile(SHIPPED)
    cfg.merge_from_dict(dict(pair.split("=") for pair in TINY) | {"model.generator.num_block": 1})
    cfg.merge_from_dict({"model.generator.num_feat": 8, "model.generator.num_heads": 2})
    cfg.merge_from_dict({"train_dataloader.dataset.pipeline.4.gt_patch_size": 64})
    return cfg.dump()


def config(text: str, **changes: object) -> Config:
    cfg = Config.fromstring(text, ".py")
    cfg.merge_from_dict({key.replace("__", "."): value for key, value in changes.items()})
    return cfg


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.generator.num_feats": 8}, "'num_feats' in model.generator.*mean 'num_feat'"),
        ({"model.generator.num_heads": 3}, r"model\.generator \(IACNN\): .*3"),
        ({"model.generator.alignment": "implict"}, "implict"),
        ({"model.generator.type": "IACN"}, r"model\.generator\.type 'IACN'.*mean 'IACNN'"),
        ({"model.pixel_loss.type": "CharbonierLoss"}, "mean 'CharbonnierLoss'"),
        ({"optim_wrapper.optimizer.type": "Adm"}, "mean 'Adam'"),
        ({"optim_wrapper.optimizer.lr": -1}, r"optimizer\.lr is -1"),
        ({"param_scheduler.type": "CosineRestart"}, "mean 'CosineRestartLR'"),
        ({"train_cfg.max_iters": 0}, r"train_cfg\.max_iters is 0"),
        ({"custom_hooks.2.type": "FrozenFlow"}, "custom_hooks.2.*mean 'FrozenFlowHook'"),
        ({DATASET + "type": "BasicFrameDataset"}, "mean 'BasicFramesDataset'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_config_that_cannot_be_built(shipped, changes, message) -> None:
    check_config(config(shipped))
    with pytest.raises(OptionError, match=message) as caught:
        check_config(config(shipped, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_dataloader.batch_size": 0}, r"train_dataloader\.batch_size is 0"),
        ({"train_dataloader.num_workers": -1}, "num_workers is -1"),
        ({DATASET + "data_root": "nowhere"}, "nowhere/train_sharp_bicubic/X4, nowhere.* do not"),
        ({DATASET + "ann_file": "no.txt"}, r"no\.txt does not exist"),
        ({DATASET + "num_input_frames": 101}, "num_input_frames is 101 .* has 100 frames"),
        ({DATASET + "num_input_frames": 0}, "num_input_frames is 0"),
        ({DATASET + "pipeline.4.gt_patch_size": 66}, "66; it must be a multiple of the scale, 4"),
        ({DATASET + "pipeline.0.interval_list": []}, r"interval_list is \[\]"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_data_that_cannot_be_read(shipped, workspace, monkeypatch, changes, message) -> None:
    monkeypatch.chdir(workspace)
    check_data(config(shipped), ["train", "val"])
    with pytest.raises(OptionError, match=message) as caught:
        check_data(config(shipped, **changes), ["train"])
    assert "\n" not in str(caught.value)


def refused(command: list, cwd: Path) -> str:
    """What a command prints that ends with an error."""
    done = run_program(command, cwd, environment(), timeout=280)
    assert done.returncode == 1, done.stdout[-4000:]
    assert "Traceback" not in done.stdout
    return done.stdout.rstrip().splitlines()[-1]


def test_stock_tester_without_data_ends_in_one_line(tmp_path) -> None:
    config_file = CONFIGS / "ia_cnn" / "ia-cnn_c64b30_vid4-bi.py"
    command = [sys.executable, tool("test"), config_file, "none.pth", "--cfg-options", *TINY]
    last = refused(command, tmp_path)
    assert last.startswith("error: test_dataloader")
    assert "data/Vid4/BIx4" in last and "Download and prepare the data set" in last


def test_stock_trainer_names_a_misspelt_option_before_it_writes_anything(tmp_path) -> None:
    command = [sys.executable, tool("train"), SHIPPED, "--work-dir", "out", "--cfg-options"]
    last = refused([*command, "model.generator.num_blocs=1"], tmp_path)
    assert last.startswith("error: Unknown key 'num_blocs' in model.generator (IACNN)")
    assert not (tmp_path / "out").exists()


def test_our_tools_start_mmagics(tmp_path) -> None:
    from tests.mmagic.mmagic_driver import ROOT

    command = [sys.executable, ROOT / "tools" / "mmagic_train.py", SHIPPED, "--cfg-options"]
    assert "train_cfg.max_iters is -1" in refused([*command, "train_cfg.max_iters=-1"], tmp_path)

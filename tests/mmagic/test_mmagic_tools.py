"""MMagic's stock tools on the shipped configs, with a small network on small data."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import cv2
import pytest
import torch

from iart_plugin.mmagic import tools
from tests.mmagic.mmagic_driver import CONFIGS, SIZE, TINY, environment, run, tool
from tests.programs import run_program

VID4 = CONFIGS / "ia_cnn" / "ia-cnn_c64b30_vid4-bi.py"


@pytest.fixture(scope="module")
def trained(workspace: Path, train) -> Path:
    """The folder of a training of four iterations, the flow network released after two."""
    train("trained", options=["train_cfg.max_iters=4", "param_scheduler.periods=[6]"])
    return workspace / "trained"


def _checkpoint(path: Path) -> dict:
    # The training's own log buffers are not weights; the tests that resume read them safely.
    return torch.load(path, weights_only=False)


def _flow(state: dict, prefix: str) -> dict:
    prefix = f"{prefix}generator.spynet.basic_module."
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def test_training_leaves_the_flow_network_alone_until_it_is_released(trained, spynet):
    loaded = torch.load(spynet, weights_only=True)["params"]
    loaded = {key.removeprefix("basic_module."): value for key, value in loaded.items()}
    frozen = _flow(_checkpoint(trained / "iter_2.pth")["ema_state_dict"], "module.")
    released = _flow(_checkpoint(trained / "iter_4.pth")["ema_state_dict"], "module.")
    assert frozen.keys() == loaded.keys()
    assert all(torch.equal(frozen[key], loaded[key]) for key in loaded)
    assert all(not torch.equal(released[key], loaded[key]) for key in loaded)


def test_training_moves_everything_else_from_the_first_iteration(trained):
    first, last = (_checkpoint(trained / f"iter_{i}.pth") for i in (2, 4))
    first, last = (file["ema_state_dict"] for file in (first, last))
    # A bias on every key shifts all logits alike: its gradient is zero but for rounding.
    ignored = ("spynet", "alignment.k.bias")
    trainable = [
        key
        for key in first
        if key.endswith((".weight", ".bias")) and not any(name in key for name in ignored)
    ]
    assert len(trainable) > 20
    assert all(not torch.equal(first[key], last[key]) for key in trainable)


def test_checkpoint_holds_the_average_and_the_trained_weights(trained):
    file = _checkpoint(trained / "iter_4.pth")
    key = "generator.fusion.weight"
    averaged, weights = file["state_dict"][key], file["ema_state_dict"][f"module.{key}"]
    assert not torch.equal(averaged, weights)
    # 0.1 % of the way a step: four steps of 2e-4 at most.
    assert (averaged - weights).abs().max() <= 4 * 2e-4


def test_flow_network_learns_at_an_eighth_of_the_rate(trained):
    groups = _checkpoint(trained / "iter_4.pth")["optimizer"]["param_groups"]
    rates = sorted({group["initial_lr"] for group in groups})
    assert rates == pytest.approx([0.125 * 2e-4, 2e-4])
    assert {group["betas"] for group in groups} == {(0.9, 0.99)}


def test_tensorboard_shows_the_training(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (events,) = trained.glob("*/vis_data/**/events.out.tfevents.*")
    events = EventAccumulator(str(events)).Reload()
    scalars = events.Tags()["scalars"]
    assert {"loss", "lr"} <= set(scalars)
    assert {"PSNR", "SSIM"} <= {name.rpartition("/")[2] for name in scalars}
    for name in scalars:
        if name.endswith(("PSNR", "SSIM")):
            assert [value.step for value in events.Scalars(name)] == [2, 4]
    # The middle one of three frames of each clip.
    names = ["train_sharp_000_00000001", "train_sharp_001_00000001"]
    assert sorted(events.Tags()["images"]) == names
    for name in names:
        images = events.Images(name)
        assert len(images) == 2
        # One frame: truth, input, output.
        assert {(i.height, i.width) for i in images} == {(SIZE, 2 * SIZE + SIZE // 4)}


def test_mim_resumes_a_training(workspace, trained, train):
    pytest.importorskip("mim")
    options = ["train_cfg.max_iters=6", "param_scheduler.periods=[6]"]
    log = train("trained", "--resume", options=options, through_mim=True)
    assert "Training finished successfully" in log
    assert "resumed epoch: 0, iter: 4" in log
    resumed = _checkpoint(trained / "iter_6.pth")
    assert resumed["state_dict"]["step_counter"].item() == 6
    assert resumed["message_hub"]["log_scalars"]["train/loss"]._log_history.shape == (6,)


def test_stock_tester_runs_every_loop(workspace, trained):
    settings = {f"test_dataloader.{i}.num_workers": 0 for i in range(6)}
    settings |= {f"test_dataloader.0.dataset.{k}": 5 for k in ("fixed_seq_len", "num_input_frames")}
    config = CONFIGS / "ia_cnn" / "ia-cnn_c64b30_8xb1-300k_reds4.py"
    log = run(
        [
            *(sys.executable, tool("test"), config, trained / "iter_4.pth", "--work-dir", "tested"),
            *("--cfg-options", *TINY, *(f"{k}={v}" for k, v in settings.items())),
        ],
        workspace,
    )
    for name in ("REDS4-BIx4-RGB", "Vimeo-90K-T-BDx4-Y", "Vimeo-90K-T-BIx4-Y"):
        assert _metrics(log, name)["PSNR"] > 10
    for name in ("UDM10-BDx4-Y", "VID4-BDx4-Y", "VID4-BIx4-Y"):
        assert _metrics(log, name)["PSNR"] > 10
    # The two degradations of the test's Vid4 are the same frames.
    assert _metrics(log, "VID4-BDx4-Y") == _metrics(log, "VID4-BIx4-Y")


def _metrics(log: str, prefix: str) -> dict[str, float]:
    found = re.findall(rf"{re.escape(prefix)}/(PSNR|SSIM): ([\d.]+)", log)
    assert {name for name, _ in found} == {"PSNR", "SSIM"}, f"no metrics of {prefix}"
    return {name: float(value) for name, value in found}


def test_mim_drives_the_same_tester(workspace, trained):
    pytest.importorskip("mim")
    log = run(
        [
            *(sys.executable, "-m", "mim", "test", "mmagic", VID4, "--gpus", "0"),
            *("--checkpoint", trained / "iter_4.pth", "--work-dir", "mim", "--cfg-options", *TINY),
        ],
        workspace,
    )
    assert "Testing finished successfully" in log
    assert _metrics(log, "VID4-BIx4-Y")["PSNR"] > 10


def test_inferencer_takes_a_folder(workspace, trained):
    """MMagic's own inferencer, in a program of its own as its users write it."""
    script = (
        "import iart_plugin.mmagic\n"
        "from mmagic.apis.inferencers import VideoRestorationInferencer\n"
        "from mmengine.config import Config\n"
        f"config = Config.fromfile({str(VID4)!r})\n"
        "config.model.generator.update(num_feat=8, num_block=1, num_heads=2)\n"
        "model = VideoRestorationInferencer(\n"
        f"    config, {str(trained / 'iter_4.pth')!r}, device='cpu')\n"
        "model(video='data/Vid4/BIx4/calendar', result_out_dir='inferred/')\n"
    )
    run([sys.executable, "-c", script], workspace)
    frames = sorted((workspace / "inferred").glob("*.png"))
    assert [frame.name for frame in frames] == [f"{i:08d}.png" for i in range(4)]
    assert all(cv2.imread(str(frame)).shape == (SIZE, SIZE, 3) for frame in frames)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("MISSING.py", "MISSING.py: no such file"),
        ("folder", "folder is a folder, not a config"),
        ("empty.py", "empty.py is empty"),
    ],
)
def test_what_is_no_config_is_said_in_a_line(config, message, tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["test", config])
    with pytest.raises(SystemExit, match=f"^error: {message}$"):
        tools.run("test")


def test_a_missing_checkpoint_is_said_in_a_line(tmp_path):
    command = [sys.executable, "-m", "iart_plugin.mmagic.test", VID4, "MISSING.pth"]
    result = run_program(command, tmp_path, environment(), timeout=280)
    assert result.returncode == 1 and "Traceback" not in result.stdout
    assert result.stdout.strip().splitlines()[-1].startswith("error: ")

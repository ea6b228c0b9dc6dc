"""Training for real video: both stages through BasicSR's entry point, stopped and resumed."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import iart_plugin.basicsr  # noqa: F401  registers
from iart_plugin.archs import RealIACNN, save_checkpoint
from tests.basicsr.basicsr_driver import run, saved_weights, test_options, write_options
from tests.basicsr.real_world_options import SMALL_REAL, first_stage, second_stage, write_vgg


@pytest.fixture(scope="session")
def vgg(tmp_path_factory) -> Path:
    """A file of a seeded VGG-11."""
    return write_vgg(tmp_path_factory.mktemp("vgg") / "vgg11.pth")


def discriminator(folder: Path, iteration: int | str) -> dict[str, torch.Tensor]:
    path = folder / "experiments" / "run" / "models" / f"net_d_{iteration}.pth"
    return torch.load(path, weights_only=True)["params"]


def moved(before: dict, after: dict, part: str = "") -> list[str]:
    names = [key for key in before if key.startswith(part) and before[key].is_floating_point()]
    assert names, part
    return [key for key in names if not torch.equal(before[key], after[key])]


@pytest.mark.parametrize("stage", [1, 2])
def test_a_stage_trains_all_its_networks_and_resumes_exactly(tmp_path, options, vgg, stage) -> None:
    opt = first_stage(options()) if stage == 1 else second_stage(options(), vgg)
    whole = tmp_path / "whole"
    whole.mkdir()
    output = run("basicsr_train", write_options(opt, whole / "train.yml"))
    assert "iter:       4" in output and "# psnr: " in output
    losses = ["l_pix", "l_clean"]
    losses += ["l_percep", "l_g_gan", "l_d_real", "l_d_fake"] if stage == 2 else []
    assert all(f"{name}: " in output for name in losses)

    first, last = saved_weights(whole, 2), saved_weights(whole, 4)
    for part in ("image_cleaning", "backward_trunk", "alignment", "conv_last"):
        assert moved(first, last, part)
    if stage == 2:
        assert len(moved(discriminator(whole, 2), discriminator(whole, 4))) > 20

    resumed = tmp_path / "resumed"
    shutil.copytree(whole, resumed)
    runs = resumed / "experiments" / "run"
    for path in [*runs.glob("models/*_4.pth"), *runs.glob("models/*latest*")]:
        path.unlink()
    (runs / "training_states" / "4.state").unlink()
    output = run("basicsr_train", resumed / "train.yml", "--auto_resume")
    assert "Resuming training from epoch: 0, iter: 2" in output
    for key in ("params", "params_ema"):
        assert not moved(saved_weights(whole, 4, key), saved_weights(resumed, 4, key)), key
    if stage == 2:
        assert not moved(discriminator(whole, 4), discriminator(resumed, 4))


def test_two_processes_train_the_second_stage(tmp_path, options, vgg) -> None:
    opt = second_stage(options(find_unused_parameters=False, use_static_graph=True), vgg)
    opt["train"]["perceptual_opt"] = None
    opt["train"]["total_iter"] = 2
    opt["logger"]["save_checkpoint_freq"] = 1
    del opt["val"], opt["datasets"]["val"]
    output = run("basicsr_train", write_options(opt, tmp_path / "train.yml"), processes=2)
    assert "iter:       2" in output
    assert moved(saved_weights(tmp_path, 1), saved_weights(tmp_path, 2), "image_cleaning")
    assert len(moved(discriminator(tmp_path, 1), discriminator(tmp_path, 2))) > 20


def test_a_missing_vgg_file_is_one_line_and_nothing_is_moved(tmp_path, options) -> None:
    earlier = tmp_path / "experiments" / "run" / "models" / "net_g_2.pth"
    earlier.parent.mkdir(parents=True)
    earlier.write_bytes(b"of an earlier run")
    opt = second_stage(options(), tmp_path / "vgg11.pth")
    output = run("basicsr_train", write_options(opt, tmp_path / "train.yml"), fails=True)
    assert "error: train.perceptual_opt.vgg_path: " in output.strip().splitlines()[-1]
    assert "Traceback" not in output
    assert earlier.read_bytes() == b"of an earlier run"
    assert [path.name for path in (tmp_path / "experiments").iterdir()] == ["run"]


def test_clips_without_ground_truth_are_tested_with_niqe(tmp_path, options) -> None:
    frames = tmp_path / "Input" / "000"
    frames.mkdir(parents=True)
    random = np.random.default_rng(0)
    for index in range(2):
        frame = random.integers(0, 256, (48, 52, 3), dtype=np.uint8)
        cv2.imwrite(str(frames / f"{index:08d}.png"), frame)
    weights = tmp_path / "net_g.pth"
    save_checkpoint(RealIACNN(**{k: v for k, v in SMALL_REAL.items() if k != "type"}), weights)
    opt = test_options(options(network_g=dict(SMALL_REAL)), weights)
    opt["model_type"] = "RealRecurrentModel"
    opt["network_g"]["clean_passes"] = 3
    opt["datasets"]["test"]["dataroot_lq"] = str(frames.parent)
    del opt["datasets"]["test"]["dataroot_gt"]
    opt["val"]["metrics"] = {"niqe": {"type": "calculate_niqe", "crop_border": 0}}
    output = run("basicsr_test", write_options(opt, tmp_path / "test.yml"))
    assert "# niqe: " in output
    images = sorted((tmp_path / "results" / "run" / "visualization").rglob("*.png"))
    assert [cv2.imread(str(path)).shape for path in images] == [(192, 208, 3)] * 2

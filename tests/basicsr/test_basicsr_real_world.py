"""Training for real video: both stages through BasicSR's entry point, stopped and resumed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import iart_plugin.basicsr  # noqa: F401  registers
from tests.basicsr.basicsr_driver import run, saved_weights, write_options
from tests.basicsr.real_world_options import first_stage, second_stage, write_vgg


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

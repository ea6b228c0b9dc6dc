"""Training, validation, saving, resuming and testing through BasicSR's own pipelines."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch

import iart_plugin.basicsr  # noqa: F401  lets BasicSR be imported
from tests.basicsr.basicsr_driver import (
    ROOT,
    SMALL_IACNN,
    SMALL_IART,
    environment,
    run,
    saved_weights,
    test_options,
    write_options,
)


def psnr(output: str) -> float:
    return float(re.findall(r"# psnr: ([0-9.]+)", output)[-1])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, options) -> tuple[Path, str]:
    """A run of four iterations, saved at 2 and 4, and what it printed."""
    folder = tmp_path_factory.mktemp("trained")
    output = run("basicsr_train", write_options(options(), folder / "train.yml"))
    return folder, output


def test_trains_validates_and_saves(trained) -> None:
    folder, output = trained
    assert "iter:       4" in output
    assert psnr(output) > 15
    assert 0 < float(re.findall(r"# ssim: ([0-9.]+)", output)[-1]) <= 1
    states = folder / "experiments" / "run" / "training_states"
    assert {p.name for p in states.iterdir()} == {"2.state", "4.state", "validations.pth"}
    assert output.count("Validation REDS4") == 1
    assert "@ 4 iter" in output


def test_flow_network_is_held_for_fix_flow_iterations(trained) -> None:
    folder, _ = trained
    first, last = saved_weights(folder, 2), saved_weights(folder, 4)
    start = {key: value for key, value in first.items() if key.startswith("spynet")}
    moved = [key for key in start if not torch.equal(first[key], last[key])]
    assert moved, "the flow network must train after fix_flow iterations"

    # What it started from is what manual_seed gives, so a run that has only begun still has it.
    import basicsr.utils

    from iart_plugin.archs import IACNN

    basicsr.utils.set_random_seed(0)
    fresh = IACNN(**{k: v for k, v in SMALL_IACNN.items() if k != "type"}).state_dict()
    for key in start:
        assert torch.equal(fresh[key], first[key]), key
    assert not torch.equal(fresh["conv_last.weight"], first["conv_last.weight"])


def test_heads_that_the_run_did_not_have_are_refused(trained, tmp_path, options) -> None:
    """Their number shows in no weight's shape: the network would load and give other numbers."""
    folder, _ = trained
    shutil.copytree(folder, tmp_path / "copy")
    opt = options(network_g={**SMALL_IACNN, "num_heads": 4})
    file = write_options(opt, tmp_path / "copy" / "train.yml")
    output = run("basicsr_train", file, "--auto_resume", fails=True)
    assert "net_g_4.pth does not fit: " in output and "num_heads=2, the network's" in output
    assert "Traceback" not in output


def test_resumed_run_ends_where_the_whole_run_ends(trained, tmp_path, options) -> None:
    folder, _ = trained
    opt = options()
    opt["path"]["resume_state"] = str(folder / "experiments/run/training_states/2.state")
    models = tmp_path / "experiments" / "run" / "models"
    models.mkdir(parents=True)
    (models / "net_g_2.pth").write_bytes(
        (folder / "experiments/run/models/net_g_2.pth").read_bytes()
    )
    (tmp_path / "experiments" / "run" / "training_states").mkdir()
    output = run("basicsr_train", write_options(opt, tmp_path / "train.yml"))
    assert "Resuming training from epoch: 0, iter: 2" in output
    for key in ("params", "params_ema"):
        whole, resumed = saved_weights(folder, 4, key), saved_weights(tmp_path, 4, key)
        assert all(torch.equal(whole[name], resumed[name]) for name in whole), key


def test_tests_and_saves_images(trained, tmp_path, options) -> None:
    folder, trained_output = trained
    path = folder / "experiments/run/models/net_g_latest.pth"
    # Without the plugin's line: the tool supplies it.
    file = write_options(test_options(options(), path), tmp_path / "test.yml", plugin=False)
    output = run("basicsr_test", file)
    assert psnr(output) == pytest.approx(psnr(trained_output), abs=1e-3)
    images = sorted((tmp_path / "results/run/visualization/REDS4/000").iterdir())
    assert len(images) == 5
    assert cv2.imread(str(images[0])).shape == (64, 64, 3)


def test_two_processes_cross_fix_flow_and_validate(tmp_path, options) -> None:
    """With activation checkpointing and a static graph; then tested by two."""
    opt = options(network_g=SMALL_IART, use_static_graph=True, find_unused_parameters=False)
    opt["datasets"]["train"].update(batch_size_per_gpu=1, gt_size=32)
    opt["logger"]["save_checkpoint_freq"] = 1
    output = run("basicsr_train", write_options(opt, tmp_path / "train.yml"), processes=2)
    assert "iter:       4" in output
    saved = [saved_weights(tmp_path, iteration) for iteration in (1, 2, 3)]
    flow = [key for key in saved[0] if key.startswith("spynet") and key.endswith("weight")]
    assert all(torch.equal(saved[0][key], saved[1][key]) for key in flow)
    assert all(not torch.equal(saved[1][key], saved[2][key]) for key in flow)

    path = tmp_path / "experiments/run/models/net_g_latest.pth"
    file = write_options(test_options(opt, path), tmp_path / "test.yml")
    both = run("basicsr_test", file, processes=2)
    assert psnr(both) == pytest.approx(psnr(output), abs=1e-3)


def test_two_processes_train_as_one(tmp_path, options) -> None:
    """The same samples, half of them in each process, one at a time: the same but for rounding."""
    found = []
    for processes, static in ((1, False), (2, False), (2, True)):
        opt = options(network_g=SMALL_IACNN, train__total_iter=6, use_static_graph=static)
        opt["datasets"]["train"].update(batch_size_per_gpu=4 // processes, gt_size=32)
        opt["train"].update(accumulate=processes)
        opt["train"]["optim_g"]["lr"] = 1e-4
        del opt["val"], opt["datasets"]["val"]
        folder = tmp_path / f"{processes}{static}"
        folder.mkdir()
        run("basicsr_train", write_options(opt, folder / "train.yml"), processes=processes)
        found.append([flat(saved_weights(folder, iteration)) for iteration in (2, 6)])
    (start, one), *others = found
    for _, two in others:
        assert (one - two).norm() < 0.01 * (one - start).norm()


def flat(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([weights[key].double().flatten() for key in sorted(weights)])


def test_two_processes_stop_together_at_a_loss_that_is_not_finite(tmp_path, options) -> None:
    """One process alone has a batch that is not finite, from the second iteration on."""
    script = tmp_path / "poisoned.py"
    script.write_text(
        "import os, sys, torch\n"
        "import iart_plugin.basicsr\n"
        "from iart_plugin.basicsr import model, pipeline\n"
        "feed, steps = model.RecurrentMixPrecisionRTModel.feed_data, []\n"
        "def feed_data(self, data):\n"
        "    steps.append(1)\n"
        "    if len(steps) > 1 and os.environ['RANK'] == '1':\n"
        "        data['gt'].fill_(float('nan'))\n"
        "    feed(self, data)\n"
        "model.RecurrentMixPrecisionRTModel.feed_data = feed_data\n"
        "pipeline.run('train')\n"
    )
    opt = options(train__max_skipped_steps=2, use_static_graph=True)
    opt["datasets"]["train"].update(batch_size_per_gpu=1, gt_size=32)
    del opt["val"], opt["datasets"]["val"]
    file = write_options(opt, tmp_path / "train.yml")
    output = run(str(script.with_suffix("")), file, processes=2, fails=True)
    assert output.count("FloatingPointError: Stopped at iteration 3: 2 steps in a row") >= 2


def test_bfloat16_trains_on_a_cpu(tmp_path, options) -> None:
    opt = options(train__amp_dtype="bf16", train__grad_clip_norm=1.0, network_g=SMALL_IART)
    opt["train"]["total_iter"] = 2
    opt["datasets"]["train"]["gt_size"] = 32
    output = run("basicsr_train", write_options(opt, tmp_path / "train.yml"))
    assert "trains in bfloat16 on cpu" in output
    assert all(value.dtype != torch.bfloat16 for value in saved_weights(tmp_path).values())
    assert psnr(output) > 15


def test_stock_entry_point(tmp_path, options) -> None:
    """``python -m basicsr.train|test`` itself, with the plugin's line.

    Stock BasicSR writes beside its package: a link to the package puts that place into the test's
    folder. ``stock/sitecustomize.py`` stands for a BasicSR that today's torchvision can import.
    """
    import basicsr

    (tmp_path / "basicsr").symlink_to(Path(basicsr.__file__).parent)
    opt = options()
    opt["train"]["total_iter"] = 2
    stock = Path(__file__).parent / "stock"
    paths = os.pathsep.join([str(tmp_path), str(stock), str(ROOT)])

    def start(module: str, file: Path) -> str:
        done = subprocess.run(
            [sys.executable, "-m", module, "-opt", str(file)],
            cwd=tmp_path,
            env=environment(PYTHONPATH=paths),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout + done.stderr

    start("basicsr.train", write_options(opt, tmp_path / "train.yml"))
    path = tmp_path / "experiments/run/models/net_g_latest.pth"
    output = start("basicsr.test", write_options(test_options(opt, path), tmp_path / "test.yml"))
    assert psnr(output) > 15

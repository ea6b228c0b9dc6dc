"""Sintel's data set and the study's model through BasicSR's own pipelines."""

from __future__ import annotations

import copy
import importlib.util
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from iart_plugin.study import ROWS
from iart_plugin.study.overrides import BASICSR_FILE, basicsr_command, basicsr_overrides
from tests.basicsr.basicsr_driver import ROOT, run, saved_weights, write_options

CONFIG = ROOT / BASICSR_FILE

if importlib.util.find_spec("skimage") is None:
    pytest.skip("the clips are made from scikit-image's photographs", allow_module_level=True)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    from iart_plugin.data.synthetic import write_dataset

    root = tmp_path_factory.mktemp("flow_clips")
    options = {"num_train": 2, "num_test": 2, "num_frames": 5, "height": 48, "width": 56}
    for _ in write_dataset(root, samples=2, **options):
        pass
    return root


@pytest.fixture(scope="module")
def options(clips):
    """The shipped CPU-scale options for four steps on the test's clips, in a run named 'run'."""
    text = CONFIG.read_text().replace("!!python/name:iart_plugin.basicsr.PLUGIN", "x")
    opt = yaml.safe_load(text.replace("!!float ", ""))
    del opt["plugin"]
    for key, value in basicsr_overrides(ROWS["bilinear"], "gt", "cpu").items():
        section, *parents, last = opt, *key.split(":")
        for parent in parents:
            section = section[parent]
        section[last] = value
    opt["name"] = "run"
    opt["datasets"]["train"] |= {"gt_size": 32, "batch_size_per_gpu": 2, "dataset_enlarge_ratio": 2}
    for data in opt["datasets"].values():
        data["dataroot"] = str(clips)
    opt["network_g"] |= {"embed_dim": 8, "mid_channels": 4, "depths": [1]}
    opt["train"]["total_iter"] = 4
    opt["train"]["optim_g"]["lr"] = 4e-4
    opt["train"]["scheduler"] |= {"periods": [4], "eta_min": 1e-7}
    opt["val"]["val_freq"] = 4
    opt["logger"] = {"print_freq": 1, "save_checkpoint_freq": 4, "use_tb_logger": False}
    return opt


@pytest.fixture(scope="module")
def trained(tmp_path_factory, options) -> tuple[Path, str]:
    """A run of four steps and what it printed."""
    folder = tmp_path_factory.mktemp("study_run")
    return folder, run("basicsr_train", write_options(options, folder / "train.yml"))


def test_trains_and_validates_on_the_given_flow(trained, options, clips) -> None:
    folder, output = trained
    reported = float(re.findall(r"# psnr: ([0-9.]+)", output)[0])

    from iart_plugin.archs import AlignmentStudyNet
    from iart_plugin.data import SintelFlowDataset

    network = AlignmentStudyNet(**{k: v for k, v in options["network_g"].items() if k != "type"})
    network.load_state_dict(saved_weights(folder, 4))
    network.eval()
    scores = {True: [], False: []}
    for clip in SintelFlowDataset(clips, clips="test"):
        for has_flow in scores:
            flows = clip["flows"].unsqueeze(0) * has_flow
            with torch.no_grad():
                frames = network(clip["lq"].unsqueeze(0), flows)[0]
            error = (frames.clamp(0, 1) * 255).round() - (clip["gt"] * 255).round()
            mse = error.double().square().mean((1, 2, 3))
            scores[has_flow].append((10 * torch.log10(255**2 / mse)).mean().item())
    assert reported == pytest.approx(np.mean(scores[True]), abs=1.5e-4)
    assert reported != pytest.approx(np.mean(scores[False]), abs=5e-4)


def test_a_printed_command_trains(tmp_path, clips) -> None:
    """The shipped file with the overrides of a printed command, two steps long."""
    shutil.copy(CONFIG, tmp_path)
    command = basicsr_command(ROWS["no_alignment"], "gt", "cpu")
    sizes = {
        "network_g:embed_dim": 8,
        "network_g:mid_channels": 4,
        "network_g:depths": "[1]",
        **{f"datasets:{part}:dataroot": clips for part in ("train", "val")},
        "datasets:train:gt_size": 32,
        "train:total_iter": 2,
        "val:val_freq": 2,
    }
    words = [*command[command.index("--force_yml") :], *(f"{k}={v}" for k, v in sizes.items())]
    output = run("basicsr_train", tmp_path / CONFIG.name, *words)
    assert "alignment: none" in output
    assert re.search(r"# psnr: [0-9.]+", output)


def test_two_processes_train_as_one_does(tmp_path, trained, options) -> None:
    halved = copy.deepcopy(options)
    halved["datasets"]["train"]["batch_size_per_gpu"] = 1
    run("basicsr_train", write_options(halved, tmp_path / "train.yml"), processes=2)
    one, two = saved_weights(trained[0], 4), saved_weights(tmp_path, 4)
    assert one.keys() == two.keys()
    difference = torch.cat([(two[key] - value).abs().flatten() for key, value in one.items()])
    # Adam's first steps turn rounding of a vanishing gradient into a whole step: look at most.
    assert difference.quantile(0.95) < 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rendr": "clean"}, "Unknown key 'rendr'"),
        ({"gt_size": 30}, "gt_size 30"),
        ({"clips": ["nobody"]}, "nobody"),
        ({"dataroot": None}, "dataroot is not set"),
        ({"flow": "farneback"}, "gt, spynet, raft"),
    ],
)
def test_data_set_refuses_in_one_line(options, change, message) -> None:
    from iart_plugin.basicsr.alignment_study import SintelFlowDataset
    from iart_plugin.basicsr.checks import OptionError

    opt = {**options["datasets"]["train"], "phase": "train", "scale": 4, **change}
    with pytest.raises(OptionError, match=message) as caught:
        SintelFlowDataset(opt)
    assert "\n" not in str(caught.value) and "data set 'Sintel'" in str(caught.value)


def test_data_set_gives_what_basicsr_reads(options) -> None:
    from iart_plugin.basicsr.alignment_study import SintelFlowDataset

    train = SintelFlowDataset({**options["datasets"]["train"], "phase": "train", "scale": 4})
    item = train[0]
    assert {k: tuple(v.shape) for k, v in item.items() if isinstance(v, torch.Tensor)} == {
        "lq": (4, 3, 8, 8),
        "gt": (4, 3, 32, 32),
        "flows": (3, 2, 8, 8),
        "masks": (3, 1, 8, 8),
    }
    test = SintelFlowDataset({**options["datasets"]["val"], "phase": "val", "scale": 4})
    assert test.data_info["folder"] == ["test_000"] * 5 + ["test_001"] * 5
    assert [item["folder"] for item in test] == ["test_000", "test_001"]
    windows = {**options["datasets"]["val"], "phase": "val", "scale": 4, "num_frame": 2}
    assert SintelFlowDataset(windows)[1]["folder"] == "test_000_0002"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val": {"flip_seq": True}}, "flip_seq"),
        ({"train": {"accumulate": 2}}, "accumulate"),
        ({"num_gpu": 2}, "one process a GPU"),
        ({"network_g": {"type": "RRDBNet"}}, "RRDBNet takes no flow"),
    ],
)
def test_model_refuses_what_parts_clip_and_flow(changes, message) -> None:
    import iart_plugin.basicsr  # noqa: F401  registers
    from iart_plugin.basicsr.alignment_study import AlignmentStudyModel
    from iart_plugin.option_errors import OptionError

    opt = {"num_gpu": 0, "dist": False, "network_g": {"type": "AlignmentStudyNet"}}
    AlignmentStudyModel.check(opt)
    with pytest.raises(OptionError, match=message):
        AlignmentStudyModel.check(opt | changes)

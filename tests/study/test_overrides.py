"""Every printed command builds the network of its row, in both frameworks."""

import shlex
import sys
from pathlib import Path

import pytest
import torch
import yaml

from iart_plugin.archs import AlignmentStudyNet
from iart_plugin.study import CPU_SCALE, PAPER_SCALE, ROWS, experiments
from iart_plugin.study.overrides import (
    BASICSR_FILE,
    MMAGIC_FOLDER,
    basicsr_command,
    command_lines,
    mmagic_command,
    mmagic_config,
)

ROOT = Path(__file__).resolve().parents[2]
SCALES = {"paper": PAPER_SCALE, "cpu": CPU_SCALE}
COMMANDS = [(row, flow, scale) for row, flow in experiments() for scale in SCALES]
each_command = pytest.mark.parametrize(
    ("row", "flow", "scale"), COMMANDS, ids=[f"{r.key}-{f}-{s}" for r, f, s in COMMANDS]
)


def shapes(network):
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def check_network(options, row, scale):
    """The options build the row's network: the same weights, and the same aligner's settings."""
    options = dict(options)
    assert options.pop("type") == "AlignmentStudyNet"
    with torch.device("meta"):
        built = AlignmentStudyNet(**options)
        expected = SCALES[scale].build(row.network, seed=0)
    assert shapes(built) == shapes(expected)
    assert str(built) == str(expected)
    assert built.align == expected.align
    settings = [
        {k: v for k, v in vars(n.alignment).items() if isinstance(v, (bool, int, str, tuple))}
        if n.alignment is not None
        else None
        for n in (built, expected)
    ]
    assert settings[0] == settings[1]


@pytest.fixture
def basicsr_options(monkeypatch):
    """What the BasicSR tool makes of a command line, with all that it checks first."""
    pytest.importorskip("iart_plugin.basicsr")
    from iart_plugin.basicsr.checks import check_options
    from iart_plugin.basicsr.option_files import read_options

    def parse(command):
        words = [*command[command.index("-opt") :]]
        words += [] if "--force_yml" in words else ["--force_yml"]
        monkeypatch.setattr(sys, "argv", ["train.py", *words, "num_gpu=0"])  # as on this machine
        monkeypatch.chdir(ROOT)
        opt, _ = read_options(True, check_options)
        return opt

    return parse


@each_command
def test_basicsr_command(basicsr_options, row, flow, scale):
    opt = basicsr_options(basicsr_command(row, flow, scale))
    check_network(opt["network_g"], row, scale)
    size, train, val = SCALES[scale], opt["datasets"]["train"], opt["datasets"]["val"]
    assert {train["flow"], val["flow"]} == {flow}
    assert ("flow_weights" in train) == ("flow_weights" in val) == (flow == "spynet")
    assert train["batch_size_per_gpu"] == size.batch_size
    assert (train["num_frame"], train["gt_size"]) == (size.num_frames, 4 * size.crop_size)
    assert opt["train"]["optim_g"]["lr"] == size.learning_rate
    assert opt["train"]["scheduler"]["periods"] == [opt["train"]["total_iter"]] == [size.iterations]
    assert opt["train"]["scheduler"]["eta_min"] == size.final_learning_rate
    assert opt["name"].endswith(f"{row.key}_{flow}")


@each_command
def test_mmagic_command(row, flow, scale):
    config = pytest.importorskip("mmengine.config")
    import argparse

    command = mmagic_command(row, flow, scale)
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=config.DictAction, default={})
    given, rest = parser.parse_known_args(command)
    cfg = config.Config.fromfile(ROOT / rest[3])
    cfg.merge_from_dict(given.cfg_options)
    check_network(cfg.model.generator.to_dict(), row, scale)
    size, train = SCALES[scale], cfg.train_dataloader
    sets = [train.dataset, cfg.val_dataloader.dataset, cfg.test_dataloader[0].dataset]
    assert {data.get("flow", "gt") for data in sets} == {flow}
    assert {"flow_weights" in data for data in sets} == {flow == "spynet"}
    assert (train.batch_size, train.dataset.num_frames) == (size.batch_size, size.num_frames)
    assert train.dataset.augment.crop_size == size.crop_size
    assert cfg.param_scheduler.periods == [cfg.train_cfg.max_iters] == [size.iterations]
    assert cfg.optim_wrapper.optimizer.lr == size.learning_rate
    assert cfg.param_scheduler.eta_min == size.final_learning_rate


def test_a_wrong_override_is_noticed(basicsr_options):
    command = basicsr_command(ROWS["nearest"], "gt")
    wrong = [word.replace("=nearest", "=bilinear") for word in command]
    assert wrong != command
    with pytest.raises(AssertionError):
        check_network(basicsr_options(wrong)["network_g"], ROWS["nearest"], "paper")


def test_lines_are_a_shells_and_only_what_the_paper_has():
    lines = list(command_lines(list(ROWS.values()), ["gt", "raft"], frameworks=["basicsr"]))
    assert len(lines) == 17 + 10
    assert len(set(lines)) == len(lines)
    row = ROWS["no_alignment"]
    (line,) = command_lines([row], ["gt", "spynet"], frameworks=["basicsr"])
    assert shlex.split(line) == basicsr_command(row, "gt")


def test_the_configs_are_table_1s_and_its_figures_the_papers():
    table_1 = [row for row in ROWS.values() if "Table 1" in row.tables]
    configs = {path.relative_to(ROOT).as_posix() for path in (ROOT / MMAGIC_FOLDER).glob("*.py")}
    assert configs == {mmagic_config(row) for row in table_1}
    assert (ROOT / BASICSR_FILE).is_file()
    models = yaml.safe_load((ROOT / MMAGIC_FOLDER / "metafile.yml").read_text())["Models"]
    figures = {m["Config"]: m["Results"][0]["Metrics"]["PSNR (RGB)"] for m in models}
    assert figures == {mmagic_config(row): row.paper["gt"] for row in table_1}

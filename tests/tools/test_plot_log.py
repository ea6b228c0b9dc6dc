"""Reading and drawing the logs of both frameworks."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import cv2
import pytest

SPEC = importlib.util.spec_from_file_location(
    "plot_log", Path(__file__).resolve().parents[2] / "tools" / "plot_log.py"
)
plot_log = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(plot_log)

BASICSR = """2026-01-01 00:00:00,000 INFO: [IACNN..][epoch:  0, iter:     {0:,d}, \
lr:(2.000e-04,2.500e-05,)] [eta: 0:00:23, time (data): 0.337 (0.010)] \
l_pix: {1} skipped_steps: 0.0000e+00
"""
VALIDATION = """2026-01-01 00:00:01,000 INFO: Validation REDS4
\t # psnr: {0:.4f}\t # 000: 33.2343
\t    Best: 33.2343 @ 50 iter
\t # ssim: 0.9404\t # 000: 0.9404

"""


def write_run(folder: Path) -> None:
    """A run of 1,100 iterations that was resumed at 1,000 with another outcome."""
    first = BASICSR.format(900, "2.0000e-02") + BASICSR.format(1000, "1.5000e-02")
    first += VALIDATION.format(30) + BASICSR.format(1050, "nan")
    (folder / "train_run_20260101_000000.log").write_text(first)
    second = BASICSR.format(1100, "1.0000e-02") + VALIDATION.format(31)
    second = BASICSR.format(1025, "1.2000e-02") + second
    (folder / "train_run_20260102_000000.log").write_text(second)


def test_basicsr_run(tmp_path) -> None:
    write_run(tmp_path)
    curves = plot_log.read_run(tmp_path)
    assert curves["loss"] == {"l_pix": [(900, 0.02), (1000, 0.015), (1025, 0.012), (1100, 0.01)]}
    assert curves["lr"]["group 1"][0] == (900, 2.5e-05)
    assert curves["validation"]["REDS4 psnr"] == [(1000, 30.0), (1100, 31.0)]
    assert curves["validation"]["REDS4 ssim"][0] == (1000, 0.9404)


def test_resumed_log_that_starts_with_a_validation(tmp_path) -> None:
    """That is before the first logged iteration, and replaces nothing of what came earlier."""
    write_run(tmp_path)
    line = "2026-01-03 00:00:00,000 INFO: Start training from epoch: 3, iter: 1100\n"
    text = line + VALIDATION.format(32) + BASICSR.format(1200, "9.0000e-03")
    (tmp_path / "train_run_20260103_000000.log").write_text(text)
    curves = plot_log.read_run(tmp_path)
    iterations = [iteration for iteration, _ in curves["loss"]["l_pix"]]
    assert iterations == [900, 1000, 1025, 1100, 1200]
    assert curves["validation"]["REDS4 psnr"] == [(1000, 30.0), (1100, 32.0)]


def test_mmagic_run(tmp_path) -> None:
    """Its validation steps are 0; they belong to the iteration before."""
    scalars = tmp_path / "20260101_000000" / "vis_data" / "scalars.json"
    scalars.parent.mkdir(parents=True)
    scalars.write_text(
        '{"base_lr": 0.0002, "lr": 2.5e-05, "loss": 0.04, "time": 0.6, "iter": 1, "step": 1}\n'
        '{"base_lr": 0.0001, "lr": 1e-05, "loss": 0.03, "time": 0.5, "iter": 2, "step": 2}\n'
        '{"PSNR": 28.5, "SSIM": 0.88, "time": 0.1, "step": 0}\n'
    )
    curves = plot_log.read_run(tmp_path)
    assert curves["loss"] == {"loss": [(1, 0.04), (2, 0.03)]}
    assert set(curves["lr"]) == {"base_lr", "lr"}
    assert curves["validation"] == {"PSNR": [(2, 28.5)], "SSIM": [(2, 0.88)]}


def test_mmagic_run_with_validations_at_their_iterations(tmp_path) -> None:
    """One right after a resume replaces nothing before it; one of no iteration is left out."""
    write = '{{"loss": {1}, "iter": {0}, "step": {0}}}\n{{"PSNR": {2}, "step": {3}}}\n'.format
    texts = [write(10, 0.04, 28.5, 10), '{"PSNR": 29.0, "step": 20}\n' + write(30, 0.03, 29.5, 30)]
    texts.append('{"PSNR": 1.0, "step": 0}\n')
    for day, text in enumerate(texts, 1):
        scalars = tmp_path / f"2026010{day}_000000" / "vis_data" / "scalars.json"
        scalars.parent.mkdir(parents=True)
        scalars.write_text(text)
    curves = plot_log.read_run(tmp_path)
    assert curves["loss"] == {"loss": [(10, 0.04), (30, 0.03)]}
    assert curves["validation"] == {"PSNR": [(10, 28.5), (20, 29.0), (30, 29.5)]}


def test_a_picture_is_drawn(tmp_path, capsys) -> None:
    write_run(tmp_path)
    plot_log.main([str(tmp_path)])
    assert capsys.readouterr().out.strip() == str(tmp_path / "plot.png")
    image = cv2.imread(str(tmp_path / "plot.png"))
    assert image.std() > 5


def test_smoothing_leaves_out_what_is_not_finite() -> None:
    assert plot_log.smoothed([1.0, 3.0, math.nan, 5.0], 2) == [1.0, 2.0, 3.0, 5.0]


@pytest.mark.parametrize("content", [None, "nothing of interest\n"])
def test_a_folder_without_a_run_is_said(tmp_path, content) -> None:
    if content is not None:
        (tmp_path / "train_x.log").write_text(content)
    with pytest.raises(SystemExit, match="error: .*(neither|no iteration)"):
        plot_log.main([str(tmp_path)])

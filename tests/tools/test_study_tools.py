"""The data's and the study's command lines, run as a user runs them but in this process."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from tests.commands.command_driver import run

pytest.importorskip("skimage", reason="the clips are made from its photographs")

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def call(monkeypatch, capsys):
    def run(tool: str, *arguments: object) -> tuple[int | None, str]:
        spec = importlib.util.spec_from_file_location(tool, TOOLS / f"{tool}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, "argv", [f"{tool}.py", *map(str, arguments)])
        code = module.main()
        captured = capsys.readouterr()
        return code, captured.out + captured.err  # progress bars are in the latter

    return run


def test_clips_are_made_checked_and_prepared(call, tmp_path):
    size = ("--size", 32, 40, "--frames", 3, "--samples", 2)
    _, output = call("make_flow_dataset", tmp_path, "--train-clips", 2, "--test-clips", 1, *size)
    assert "3 clips written, 0 were there" in output
    _, output = call("make_flow_dataset", tmp_path, "--train-clips", 3, "--test-clips", 1, *size)
    assert "1 clips written, 3 were there" in output

    output = run("prepare-sintel", tmp_path)
    assert "4 of 4 clips are complete" in output
    assert "12 frames written, 0 were there" in output
    output = run("prepare-sintel", tmp_path)
    assert "0 frames written, 12 were there" in output

    lost = tmp_path / "training/flow/train_001/frame_0002.flo"
    lost.unlink()
    output = run("prepare-sintel", tmp_path, "--check", fails=True)
    assert str(lost) in output and "3 of 4 clips are complete" in output


def test_study_runs_and_reports(call, tmp_path, monkeypatch):
    from iart_plugin.study import run as study

    small = {"num_train": 1, "num_test": 1, "num_frames": 4, "height": 40, "width": 40}
    monkeypatch.setattr(study, "DATA", {**small, "samples": 2})
    steps = ("--iterations", 2, "--search-iterations", 0)
    sizes = (*steps, "--crop-size", 8, "--embed-dim", 8, "--mid-channels", 4)
    places = ("--folder", tmp_path / "runs", "--docs", tmp_path / "docs", *sizes)
    _, output = call("alignment_study", "--rows", "bilinear", "implicit", *places)
    assert "2/2 IA, gt, seed 0" in output
    first = (tmp_path / "docs/alignment_study.md").read_text()
    _, output = call("alignment_study", "--rows", "bilinear", "implicit", "--report-only", *places)
    assert "seed 0" not in output and (tmp_path / "docs/alignment_study.md").read_text() == first

    # Told nothing but the folder: its own scale and all its results, and no command to repeat.
    places = ("--folder", tmp_path / "runs", "--docs", tmp_path / "docs")
    call("alignment_study", "--report-only", *places)
    text = (tmp_path / "docs/alignment_study.md").read_text()
    without_command = [part for part in first.split("\n\n") if not part.startswith("By `")]
    assert text.split("\n\n") == without_command
    assert "2 steps are far from convergence" in text and " 8 channels" in text
    call("alignment_study", "--report-only", "--full", *places)
    text = (tmp_path / "docs/alignment_study.md").read_text()
    assert "| IA |" in " ".join(text.split()) and "Not run: w/o Prop. (GT, seed 0)" in text


def test_study_prints_commands(call):
    _, output = call("alignment_study", "--print-commands")
    assert len(output.splitlines()) == 2 * 9
    _, output = call("alignment_study", "--print-commands", "mmagic", "--full", "--cpu-scale")
    lines = output.splitlines()
    assert len(lines) == 2 + 3 * 7 + 3 * 3 + 3 + 2 * 2
    assert all(line.startswith("mim train mmagic configs/") for line in lines)


def test_frequency_response_page(call, tmp_path):
    coarse = ("--steps", 1, "--frequencies", 4, "--shifts", 2, "--seeds", 2)
    places = ("--docs", tmp_path, "--folder", tmp_path / "kept")
    call("frequency_response", *coarse, *places)
    text = (tmp_path / "frequency_response.md").read_text()
    assert "| bicubic |" in " ".join(text.split()) and "trained for 1 steps" in text
    assert "of 2 at" in text and "±" in text
    assert (tmp_path / "frequency_response.png").exists()
    _, output = call("frequency_response", *coarse, *places)  # reads what was kept
    assert "step" not in output.replace("steps", "")
    assert (tmp_path / "frequency_response.md").read_text() == text


def test_method_is_drawn(call, tmp_path):
    chosen = ("--only", "window", "attention")
    _, output = call("draw_method", *chosen, "--steps", 1, "--output", tmp_path)
    drawn = {path.name for path in tmp_path.glob("*.svg")}
    assert drawn == {f"{name}{theme}.svg" for name in chosen[1:] for theme in ("", "-dark")}
    assert "set to bilinear, off by 0.0054 at most" in output  # as the page says


def test_gallery_is_what_its_tool_writes():
    spec = importlib.util.spec_from_file_location("make_gallery", TOOLS / "make_gallery.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    docs = TOOLS.parent / "docs"
    page = (docs / "gallery.md").read_text(encoding="utf-8")
    figures = re.findall(r"^Bicubic: ([\d.]+) dB\. IA-CNN: ([\d.]+) dB\.", page, re.MULTILINE)
    frames = int(re.search(r"clip of (\d+) frames", page)[1])
    rows = [{"bicubic": bicubic, "ia-cnn": network} for bicubic, network in figures]
    assert page == tool.page_text(rows, frames)
    pictures = list((docs / "gallery").glob("*.jpg"))
    assert len(pictures) == 3 * len(tool.CLIPS)
    assert sum(path.stat().st_size for path in pictures) < 3_000_000
    assert len(tool.camera_move(2)) == 2 and tool.camera_move(1)[0].shape == (400, 400, 3)

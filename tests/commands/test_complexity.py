"""The command that counts parameters and FLOPs and measures time and memory."""

from __future__ import annotations

import json

import pytest

from tests.commands.command_driver import run


def test_complexity_prints_what_was_asked_for():
    arguments = ("--count-only", "--size", 8, 8, "--channels", 60, "--style", "json")
    output = run("complexity", "--only", "deformable", *arguments)
    rows, _ = json.JSONDecoder().raw_decode(output)  # the progress bar follows
    assert {row["name"]: row["parameters"] for row in rows} == {
        "deformable_conv": 250_962,
        "deformable_attention": 213_424,
    }


def test_complexity_page_says_what_was_measured(tmp_path):
    arguments = ("--count-only", "--size", 8, 8, "--channels", 60, "--only", "deformable")
    run("complexity", *arguments, "--train", "--docs", tmp_path)
    text = " ".join((tmp_path / "complexity.md").read_text().split())
    assert "FLOPs are those of a forward pass, counted by PyTorch" in text
    assert "Time and memory are those of a training step." in text


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("IA-CNN", ["IACNN", "IACNN, flow_warp (BasicVSR)"]),
        ("ia-rt", ["IART", "IART, patch (PSRT-recurrent)"]),
        ("AlignmentStudyNet, none", ["AlignmentStudyNet, none"]),
    ],
)
def test_names_are_found_as_people_write_them(asked, found):
    arguments = ("--count-only", "--size", 8, 8, "--frames", 1, "--style", "json")
    rows, _ = json.JSONDecoder().raw_decode(run("complexity", "--only", asked, *arguments))
    assert [row["name"] for row in rows] == found


@pytest.mark.parametrize("asked", ["BasicVSR++", "-"])
def test_an_unknown_name_is_said(asked):
    output = run("complexity", "--count-only", "--only=" + asked, fails=True)
    assert f"no network or aligner is called '{asked}'" in output and "IACNN" in output

"""The command ``doctor``: what it says, and what it answers where two forms disagree."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch
from torch import nn

import iart_plugin
from iart_plugin.commands.doctor import ADVICE, main
from iart_plugin.commands.self_check import CASES, Case, run_checks
from iart_plugin.fused import is_fused

CPU = torch.device("cpu")


class Offset(nn.Module):
    """Adds ``offset`` where the fused forms are on."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = offset

    def forward(self, x):
        if is_fused() and self.offset == float("inf"):
            raise RuntimeError("the compiler\nfailed")
        return x + self.offset if is_fused() else x


def case(offset: float, **options) -> tuple[Case, ...]:
    return (Case("offset", lambda: Offset(offset), lambda: (torch.ones(2, 3),), **options),)


@pytest.mark.parametrize("chosen", CASES, ids=lambda case: case.name)
def test_every_form_agrees_here(chosen):
    (result,) = run_checks(CPU, (chosen,))
    assert result.agrees and result.error < 1e-3, result


@pytest.mark.parametrize("backward", [False, True])
def test_forms_that_differ_are_found(backward):
    (result,) = run_checks(CPU, case(0.1, backward=backward))
    assert not result.agrees and result.error == pytest.approx(0.1, rel=1e-3)


def test_not_a_number_is_no_agreement():
    (result,) = run_checks(CPU, case(float("nan")))
    assert not result.agrees


def test_the_report_and_its_advice(capsys):
    assert main(["--device", "cpu"], cases=case(0.1)) == 1
    printed = capsys.readouterr().out
    assert printed.rstrip().endswith(ADVICE) and "DISAGREES" in printed
    assert f"iart_plugin     {iart_plugin.__version__}" in printed
    for part in ("Versions", "Devices", "Fused kernels on cpu", "Frameworks", "Encoders"):
        assert f"\n{part}\n" in printed
    assert re.search(r"torch +\d+\.\d+", printed) and "libx264" in printed


def test_a_form_that_fails_is_said_in_one_line(capsys):
    assert main(["--device", "cpu"], cases=case(float("inf"))) == 1
    assert "RuntimeError: the compiler failed" in capsys.readouterr().out


def test_agreement_ends_with_0(capsys):
    assert main(["--device", "cpu"], cases=case(0.0)) == 0
    assert capsys.readouterr().out.rstrip().endswith("All agree.")


def test_a_framework_that_is_here_lists_its_repairs():
    pytest.importorskip("mmengine")
    program = (
        "from iart_plugin.commands.doctor import frameworks, print_part; "
        "print_part('Frameworks', frameworks())"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "mmengine 0." in result.stdout and "cannot be imported" not in result.stdout
    assert "repaired: Let import mmagic.models succeed on mmcv-lite." in result.stdout

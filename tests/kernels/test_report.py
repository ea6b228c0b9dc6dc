"""The kernels on cards that are not here: no register spills, and shared memory suffices.

``python tools/kernel_report.py`` does so for all kernels and cards, which takes some minutes.
"""

import importlib.util

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)


@pytest.mark.parametrize("card", [80, 90])
@pytest.mark.parametrize(
    "use", ["IA-RT, float16", "IA-CNN, float32", "fusion, float16", "one pixel"]
)
def test_kernels_fit_the_cards(use, card):
    from iart_plugin.kernels.report import report

    lines = list(report(use, [card]))
    assert len(lines) >= 2  # forward and backward
    assert not [f"{line}: {line.problem}" for line in lines if line.problem]


def test_what_does_not_fit_is_said():
    from iart_plugin.kernels.report import Line

    fits = Line("use", "kernel", 86, 4, 255, 0, 99 * 1024)
    assert fits.problem is None
    assert "8 bytes spilled" in fits._replace(spilled=8).problem
    assert "99 KiB of sm_86" in fits._replace(shared=99 * 1024 + 1).problem

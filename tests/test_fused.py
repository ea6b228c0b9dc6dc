"""The switch; that both sides compute the same is tested with the networks."""

import os
import subprocess
import sys

import pytest

import iart_plugin
from iart_plugin.fused import VARIABLE, fused


def test_switch():
    assert iart_plugin.is_fused()
    with fused(False):
        assert not iart_plugin.is_fused()
        iart_plugin.set_fused(True)
        assert iart_plugin.is_fused()
    assert iart_plugin.is_fused()


@pytest.mark.parametrize(("value", "expected"), [("0", "False"), ("off", "False"), ("1", "True")])
def test_environment(value, expected):
    code = "import iart_plugin; print(iart_plugin.is_fused())"
    environment = {**os.environ, VARIABLE: value}
    out = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    assert out.strip() == expected

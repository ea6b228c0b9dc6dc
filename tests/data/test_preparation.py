"""The order in which a short clip's frames are shown for longer than it lasts."""

from __future__ import annotations

import pytest

from iart_plugin.data import preparation


@pytest.mark.parametrize(("length", "shown"), [(1, "0000"), (2, "0101"), (4, "0123210123")])
def test_back_and_forth(length, shown) -> None:
    got = [preparation.back_and_forth(index, length) for index in range(len(shown))]
    assert got == [int(digit) for digit in shown]

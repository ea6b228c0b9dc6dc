"""Every write, rename, fsync, encode and mux call of a run fails once; here a share of them.

``python -m benchmarks.faults`` tries them all; docs/reliability.md has the count.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

from tests.commands.upscale_faults import OUTPUTS, Film, faults

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
STEP = int(os.environ.get("IART_PLUGIN_FAULTS_STEP", "17"))


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", OUTPUTS)
def test_no_failing_call_loses_anything(tmp_path, name):
    film = Film(tmp_path, name)
    assert {"write", "rename", "fsync", "encode"} <= set(film.calls)
    assert ("mux" in film.calls) == (name == "out.mp4")
    tried, outcomes, lost = Counter(), Counter(), []
    for number, mode in list(faults(film))[::STEP]:
        tried[film.calls[number]] += 1
        try:
            outcomes[film.check(number, mode)] += 1
        except AssertionError as error:
            lost.append(f"call {number} ({film.calls[number]}), {mode}: {error}")
    print(f"\n{name}: {tried.total()} runs {dict(tried)}: {dict(outcomes)}, {len(lost)} lost")
    assert not lost, "\n".join(lost)

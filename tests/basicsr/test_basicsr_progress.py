"""The progress bar inside a clip only watches."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from iart_plugin.archs import IACNN

progress = pytest.importorskip("iart_plugin.basicsr.progress")


def test_outputs_are_the_same_when_the_bar_is_drawn(monkeypatch):
    """tqdm's update returns True when it has drawn; a hook's result replaces an output."""
    steps = []

    @contextmanager
    def always_drawing(**_):
        yield SimpleNamespace(update=lambda: steps.append(1) or True)

    monkeypatch.setattr(progress, "tqdm", always_drawing)
    torch.manual_seed(0)
    network = IACNN(num_feat=8, num_block=1, num_heads=2).eval()
    clip = torch.rand(1, 3, 3, 16, 16)
    with torch.no_grad():
        expected = network(clip)
        with progress.clip_progress(network, 3):
            watched = network(clip)
    assert torch.equal(watched, expected)
    assert len(steps) == 3 * len(network.branches())

"""The progress bar."""

from __future__ import annotations

import torch

from iart_plugin.archs import IACNN
from iart_plugin.commands.upscale import progress as module
from iart_plugin.commands.upscale.progress import Progress


def test_steps_are_shown_before_the_first_frame(capsys, monkeypatch):
    monkeypatch.setattr(module, "_INTERVAL", 0)
    network = IACNN(num_feat=8, num_block=1).eval()
    bar = Progress(3, network, shown=True)
    with torch.no_grad(), bar.chunk(3, 1):
        frames = network.forward_iter(torch.rand(1, 3, 3, 8, 8))
        next(frames)
        assert "chunk" in capsys.readouterr().err
        list(frames)
        assert "chunk 100%" in capsys.readouterr().err
    bar.done()
    bar.found(2)
    bar.close()
    assert "3/3" in capsys.readouterr().err
    assert not any(b._forward_hooks for b in network.branches())


def test_silent(capsys):
    bar = Progress(None, object(), shown=False)
    with bar.chunk(3, 1):
        bar.done()
        bar.found(1)
    bar.close()
    assert capsys.readouterr().err == ""

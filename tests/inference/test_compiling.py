"""Compiled branches give the same frames, and one that cannot be compiled runs as it is."""

from functools import partial

import numpy as np
import pytest
import torch

from iart_plugin.archs import IACNN, IART
from iart_plugin.inference import upscale
from iart_plugin.inference.compiling import Compiled
from tests.videos import moving_picture

NETWORKS = {
    "IA-CNN": partial(IACNN, num_feat=8, num_block=1, num_heads=2),
    "IA-RT": partial(IART, mid_channels=8, embed_dim=8, depths=(2,), num_heads=(2,)),
}


def compiler(monkeypatch, backend):
    """Replaces the compiler's backend; returns the graphs that are compiled from now on."""
    graphs = []

    def counted(graph, inputs):
        graphs.append(graph)
        return backend(graph)

    compile = torch.compile
    monkeypatch.setattr(
        torch,
        "compile",
        lambda f, **options: compile(f, backend=counted, fullgraph=True, **options),
    )
    return graphs


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_compiled_frames_are_the_same(make, monkeypatch):
    torch.manual_seed(0)
    network = make().eval()
    frames = [moving_picture(i)[:16, :24] for i in range(3)]
    expected = list(upscale(frames, network, device="cpu", precision="fp32"))
    graphs = compiler(monkeypatch, lambda graph: graph.forward)
    found = list(upscale(frames, network, device="cpu", precision="fp32", compile=True))
    difference = np.abs(np.stack(found).astype(int) - np.stack(expected).astype(int))
    assert difference.max() <= 1
    compiled = len(graphs)
    assert 1 <= compiled <= len(network.branches())  # equal branches share a graph
    for _ in upscale(frames[1:], network, device="cpu", precision="fp32", compile=True):
        assert len(graphs) == compiled


def test_what_cannot_be_compiled_runs_as_it_is(monkeypatch, caplog):
    def broken(graph):
        raise RuntimeError("no C++ compiler")

    compiler(monkeypatch, broken)
    double = Compiled(lambda x: 2 * x)
    for _ in range(2):
        assert double(torch.ones(2)).tolist() == [2, 2]
    (record,) = [x for x in caplog.records if x.name.startswith("iart_plugin")]
    assert "no C++ compiler" in record.getMessage()

"""Every aligner in every network: it builds by name, runs, and learns."""

import pytest
import torch

from iart_plugin.alignment import ALIGNMENTS
from iart_plugin.archs import IACNN, IART

NETWORKS = {
    "IART": lambda name: IART(
        mid_channels=8, embed_dim=12, depths=(1,), num_heads=(2,), alignment=name
    ),
    "IACNN": lambda name: IACNN(num_feat=16, num_block=1, num_heads=2, alignment=name),
}


@pytest.mark.parametrize("name", ALIGNMENTS)
@pytest.mark.parametrize("network", NETWORKS)
def test_builds_runs_and_learns(network, name):
    torch.manual_seed(0)
    network = NETWORKS[network](name)
    clip = torch.rand(1, 3, 3, 9, 10)
    flows = (torch.randn(1, 2, 2, 9, 10), torch.randn(1, 2, 2, 9, 10))
    out = network(clip, flows)
    assert out.shape == (1, 3, 3, 36, 40) and out.isfinite().all()
    out.square().mean().backward()
    for key, parameter in network.named_parameters():
        if key.split(".")[0] in ("implicit_warp", "alignment") and "offsets" not in key:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), key
            # A key's bias adds the same to every logit.
            assert parameter.grad.abs().max() > 0 or key.endswith(".k.bias"), key

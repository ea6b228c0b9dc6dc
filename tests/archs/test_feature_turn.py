"""Turning a BasicVSR's features changes what they are, not what the network computes."""

from __future__ import annotations

import torch

from iart_plugin.archs import IACNN
from iart_plugin.archs.feature_turn import CONTENT, measure_branches, turn_features
from iart_plugin.archs.warm_start import natural_noise

CHANNELS = 16


def basicvsr_with_spare_units() -> IACNN:
    """Four hidden units of each branch's last block never fire."""
    torch.manual_seed(0)
    network = IACNN(CHANNELS, 2, alignment="flow_warp", extractor=False).eval()
    for trunk in network.branches():
        for block in trunk.main[2]:
            for conv in (block.conv1, block.conv2):
                conv.weight.data.mul_(5)
        trunk.main[2][-1].conv1.bias.data[3:7] = -100
    return network


def plane() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(CHANNELS, 2, dtype=torch.float64, generator=generator)


@torch.no_grad()
def test_the_output_stays_and_the_plane_holds_little():
    network, steps = basicvsr_with_spare_units(), plane()
    clips = natural_noise(4, 32, 1)
    expected = network(clips)
    before = measure_branches(network, clips)
    told = [turn_features(network, i, each, steps) for i, each in enumerate(before)]
    torch.testing.assert_close(network(clips), expected, atol=2e-5, rtol=0)
    for found, (mean, covariance), old in zip(
        measure_branches(network, clips), told, before, strict=True
    ):
        torch.testing.assert_close(found.mean, mean, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found.covariance, covariance, atol=1e-6, rtol=1e-3)
        read = torch.linalg.pinv(steps)
        content = (read @ covariance @ read.t()).diagonal() + (read @ mean).square()
        assert (content.sqrt() <= 1.01 * CONTENT).all()
        assert not torch.allclose(found.covariance, old.covariance, rtol=0.1)


@torch.no_grad()
def test_features_turn_without_being_stretched():
    """Training would otherwise disturb the small directions most."""
    network, steps = basicvsr_with_spare_units(), plane()
    steps *= 5.6 / steps.norm(dim=0)  # the length of the encodings' steps at 64 channels
    before = [trunk.main[0].weight.clone() for trunk in network.branches()]
    for index, measured in enumerate(measure_branches(network, natural_noise(4, 32, 1))):
        turn_features(network, index, measured, steps)
        assert network.branches()[index].main[0].weight.norm() < 3 * before[index].norm()


@torch.no_grad()
def test_a_branch_without_units_to_spare_stays_as_it_is():
    for sizes in ({"num_feat": 8, "num_block": 1}, {"num_feat": 16, "num_block": 0}):
        network = IACNN(**sizes, alignment="flow_warp", extractor=False).eval()
        before = {key: value.clone() for key, value in network.state_dict().items()}
        steps = torch.eye(sizes["num_feat"]).double()[:, :2]
        for index, measured in enumerate(measure_branches(network, natural_noise(3, 16, 1))):
            mean, covariance = turn_features(network, index, measured, steps)
            assert torch.equal(mean, measured.mean)
            assert torch.equal(covariance, measured.covariance)
        assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())

"""RAFT's wrapper, with seeded weights: its real ones are torchvision's download."""

import pytest
import torch

from iart_plugin.flow import RAFT, build_flow_estimator


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    from torchvision.models.optical_flow import raft_large

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("raft") / "raft.pth"
    torch.save(raft_large().state_dict(), path)
    return path


def test_small_frames_are_padded_and_match_torchvision(weights):
    network = build_flow_estimator("raft", weights)
    network.num_updates = 2
    generator = torch.Generator().manual_seed(0)
    current, reference = torch.rand(2, 1, 3, 128, 136, generator=generator)
    with torch.no_grad():
        flow = network(current, reference)
        expected = network.raft(2 * current - 1, 2 * reference - 1, num_flow_updates=2)[-1]
        small = network(current[..., :109, :130], reference[..., :109, :130])
    torch.testing.assert_close(flow, expected)
    assert small.shape == (1, 2, 109, 130)
    assert not network.training and not any(p.requires_grad for p in network.parameters())


def test_refusals(weights, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.pth"):
        RAFT(tmp_path / "missing.pth")
    torch.save({"params": {}}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth does not hold weights"):
        RAFT(tmp_path / "other.pth")
    with pytest.raises(ValueError, match="spynet or raft"):
        build_flow_estimator("pwc")
    with pytest.raises(ValueError, match="expected two"):
        RAFT(weights)(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 9))

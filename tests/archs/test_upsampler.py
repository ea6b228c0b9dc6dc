import pytest
import torch

from iart_plugin.archs import upsampler
from iart_plugin.archs.upsampler import UpsamplingNetwork


@pytest.mark.parametrize("size", [(1, 1), (4, 3), (5, 2), (9, 4), (23, 2)])
def test_strips_give_what_the_whole_frame_gives(size, monkeypatch):
    torch.manual_seed(0)
    network = UpsamplingNetwork(4).double()
    features = torch.randn(2, 4, *size, dtype=torch.float64)
    frame = torch.rand(2, 3, *size, dtype=torch.float64)
    whole = network.upsample(features, frame)
    monkeypatch.setattr(upsampler, "STRIP_BYTES", 1)  # strips of four rows
    with torch.no_grad():
        torch.testing.assert_close(network.upsample(features, frame), whole)

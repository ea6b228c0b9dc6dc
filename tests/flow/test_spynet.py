import pytest
import torch

from iart_plugin.flow import SPyNet, clip_flows
from iart_plugin.flow.spynet import mirror_check
from tests.natural_noise import natural_noise


@pytest.fixture(scope="module")
def spynet(basicvsr_weights) -> SPyNet:
    """The fine-tuned flow network inside BasicVSR's weights."""
    return SPyNet(basicvsr_weights).eval()


@pytest.fixture(scope="module")
def moving() -> torch.Tensor:
    """A textured clip that moves by (3, 2) pixels a frame: its flow is (3, 2) forward in time."""
    return natural_noise(3, 96, 1)


def test_finds_a_known_motion(spynet, moving):
    with torch.no_grad():
        flow = spynet(moving[:, 1], moving[:, 0])[..., 16:-16, 16:-16]
    # Frame 1 shows what frame 0 has 3 to the right and 2 below.
    assert flow[:, 0].mean().item() == pytest.approx(3, abs=0.3)
    assert flow[:, 1].mean().item() == pytest.approx(2, abs=0.3)


def test_equals_basicsrs(spynet, moving):
    from tests.basicsr_reference import SpyNet

    reference = SpyNet().eval()
    reference.load_state_dict(spynet.state_dict())
    frames = moving[:, 0, :, :50, :70], moving[:, 1, :, :50, :70]
    with torch.no_grad():
        torch.testing.assert_close(spynet(*frames), reference(*frames), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (31, 33)])
def test_any_size(spynet, size):
    with torch.no_grad():
        assert spynet(torch.rand(1, 3, *size), torch.rand(1, 3, *size)).shape == (1, 2, *size)


def test_mirrored_clip_reuses_its_flow(spynet, moving):
    half = moving[:, :2]
    clip = torch.cat((half, half.flip(1)), 1)
    assert mirror_check(clip)()
    assert not mirror_check(moving)() and not mirror_check(moving[:, :2])()
    with torch.no_grad():
        forward, backward = clip_flows(spynet, clip)
        expected = spynet(clip[0, 1:], clip[0, :-1])
    torch.testing.assert_close(forward[0], expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(forward, backward.flip(1))


def test_long_clips_are_estimated_in_chunks(spynet, moving, monkeypatch):
    with torch.no_grad():
        whole = clip_flows(spynet, moving)
        monkeypatch.setattr("iart_plugin.flow.spynet.CHUNK_PIXELS", {"cpu": 1})
        for flow, expected in zip(clip_flows(spynet, moving), whole, strict=True):
            torch.testing.assert_close(flow, expected, atol=1e-5, rtol=1e-5)


def test_one_frame_has_no_flow(spynet):
    forward, backward = clip_flows(spynet, torch.rand(2, 1, 3, 8, 9))
    assert forward.shape == backward.shape == (2, 0, 2, 8, 9)


def test_both_layouts_load(spynet, tmp_path):
    state = {}
    for key, value in spynet.state_dict().items():
        parts = key.split(".")
        if len(parts) == 5:
            parts[3:4] = [str(int(parts[3]) // 2), "conv"]
        state[".".join(parts)] = value
    assert "basic_module.5.basic_module.4.conv.bias" in state
    torch.save({"state_dict": state}, tmp_path / "mmagic.pth")
    loaded = SPyNet(tmp_path / "mmagic.pth")
    for key, value in spynet.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)


def test_bad_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        SPyNet(tmp_path / "nowhere.pth")
    torch.save({"params": {"weight": torch.zeros(2)}}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="other.pth does not hold SPyNet weights"):
        SPyNet(tmp_path / "other.pth")


def test_bad_frames(spynet):
    with pytest.raises(ValueError, match="one size"):
        spynet(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 9))


def test_half_precision_network_gives_float32_flow(spynet, moving):
    import copy

    frames = moving[:, 1], moving[:, 0]
    half = copy.deepcopy(spynet).bfloat16()
    with torch.no_grad():
        flow = half(*(frame.bfloat16() for frame in frames))
        assert flow.dtype == torch.float32
        assert (flow - spynet(*frames)).abs().mean() < 0.3

"""The study's network: parameter counts of Table 1, what aligns with what, and gradients."""

import pytest
import torch

from iart_plugin.alignment import ALIGNMENTS
from iart_plugin.archs import AlignmentStudyNet
from iart_plugin.ops import warp

SMALL = {"embed_dim": 12, "mid_channels": 8, "depths": (2, 1), "num_heads": 2}
# Table 1's parameters less the 141,848 of layers that the two backbones never use.
COUNTS = {
    None: 1_209_427,
    "none": 1_209_427,
    "flow_warp": 1_209_427,
    "patch": 1_209_427,
    "deformable_conv": 1_209_427 + 250_962,
    "deformable_attention": 1_209_427 + 213_424,
    "implicit": 1_209_427 + 10_980,
}


def _network(alignment="implicit", **options):
    torch.manual_seed(0)
    return AlignmentStudyNet(alignment, **{**SMALL, **options}).eval()


def _clip(t=3, height=10, width=12, n=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lqs = torch.rand(n, t, 3, height, width, generator=generator)
    return lqs, torch.randn(n, max(t - 1, 0), 2, height, width, generator=generator)


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_of_table_1(name):
    network = AlignmentStudyNet(name)
    assert sum(p.numel() for p in network.parameters()) == COUNTS[name]
    paper = {"deformable_conv": 1.60, "deformable_attention": 1.56, "implicit": 1.36}.get(
        name, 1.35
    )
    assert round((COUNTS[name] + 141_848) / 1e6, 2) == pytest.approx(paper, abs=0.011)


@pytest.mark.parametrize("align", ["features", "images"])
@pytest.mark.parametrize("name", [None, *ALIGNMENTS])
@torch.no_grad()
def test_every_aligner_on_features_and_on_images(name, align):
    network = _network(name, align=align)
    lqs, flows = _clip()
    out = network(lqs, flows)
    assert out.shape == (1, 3, 3, 40, 48) and out.isfinite().all()
    other = network(lqs, flows + 1.5)
    assert torch.equal(out, other) == (name in (None, "none"))
    # The last frame has no successor: nothing else reaches it.
    alone = network(lqs[:, -1:])
    torch.testing.assert_close(out[:, -1:], alone, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_next_frame_is_what_is_aligned():
    network = _network("flow_warp")
    lqs, flows = _clip(t=2)
    features = network._extract(lqs[0]).unsqueeze(0)
    aligned = warp(features[:, 1], flows[:, 0])
    fused = network.fusion(torch.stack((features[:, 0], aligned), 1))
    expected = network.upsample(network.conv_before_upsample(fused), lqs[:, 0])
    torch.testing.assert_close(network(lqs, flows)[:, 0], expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_image_alignment_warps_frames():
    network = _network("flow_warp", align="images", alignment_options={"mode": "nearest"})
    lqs, flows = _clip(t=2)
    warped = torch.stack((lqs[:, 0], warp(lqs[:, 1], flows[:, 0], mode="nearest")), 1)
    still = _network("none", align="images")
    still.load_state_dict(network.state_dict())
    expected = still(warped, torch.zeros_like(flows))
    torch.testing.assert_close(network(lqs, flows)[:, 0], expected[:, 0], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_without_propagation_frames_are_alone():
    network = _network(None)
    lqs, _ = _clip()
    together = network(lqs)
    alone = torch.cat([network(lqs[:, i : i + 1]) for i in range(3)], 1)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_flows_come_as_one_or_as_a_pair():
    network = _network()
    lqs, flows = _clip(n=2)
    pair = (torch.full_like(flows, 9.0), flows)
    assert torch.equal(network(lqs, flows), network(lqs, pair))


@torch.no_grad()
def test_spynet_stands_in_for_missing_flow(tmp_path):
    from iart_plugin.flow import SPyNet

    torch.save({"params": SPyNet().state_dict()}, tmp_path / "spynet.pth")
    network = _network("flow_warp", spynet_path=tmp_path / "spynet.pth")
    lqs, _ = _clip(t=2)
    flow = network.spynet(lqs[:, 0], lqs[:, 1]).unsqueeze(1)
    assert torch.equal(network(lqs), network(lqs, flow))
    assert not any(p.requires_grad for p in network.spynet.parameters())


@pytest.mark.parametrize("name", [None, *ALIGNMENTS])
def test_every_weight_is_trained(name):
    network = _network(name, use_checkpoint=True).train()
    lqs, flows = _clip()
    if hasattr(network.alignment, "offsets"):  # starts at zero, which stops gradients behind it
        torch.nn.init.normal_(network.alignment.offsets.body[-1].weight, std=0.01)
    network(lqs, flows).square().mean().backward()
    dead = [key for key, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    # The last block of a layer may have been dropped by stochastic depth.
    assert not [key for key in dead if not key.startswith(("extractor.layers", "fusion.layers"))]


def test_one_seed_gives_all_rows_the_same_shared_weights():
    shared = _network(None).state_dict()
    for name in ALIGNMENTS:
        state = _network(name, align="images").state_dict()
        assert all(torch.equal(state[key], value) for key, value in shared.items())


def test_refusals():
    lqs, flows = _clip()
    network = _network()
    with pytest.raises(ValueError, match="spynet_path"):
        network(lqs)
    with pytest.raises(ValueError, match="expected a clip"):
        network(lqs[0], flows)
    with pytest.raises(ValueError, match="flow"):
        network(lqs, flows[:, :1])
    with pytest.raises(ValueError, match="features, images"):
        _network(align="frames")
    with pytest.raises(ValueError, match="nothing to set"):
        _network(None, alignment_options={"mode": "nearest"})
    with pytest.raises(ValueError, match="unknown alignment"):
        _network("optical")

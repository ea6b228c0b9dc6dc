import numpy as np
import pytest
import torch

from iart_plugin.archs import IART, export_official
from iart_plugin.archs.mfsab import MFSABBackbone, draw_depths
from iart_plugin.fused import fused
from tests.parity import assert_recorded, cases, filled

TINY = {"mid_channels": 8, "embed_dim": 12, "depths": (2, 1), "num_heads": (2, 3)}


@pytest.fixture
def tiny() -> IART:
    return IART(**TINY).eval()


@pytest.mark.parametrize("case", cases("IART"), ids=lambda case: case["name"])
def test_recorded_figures(case):
    network = IART(**case["config"]).eval()
    official = export_official(network)
    assert {key: list(value.shape) for key, value in official.items()} == case["state_dict"]
    live = sum(parameter.numel() for parameter in network.parameters())
    dead = 4 * (24 * 27 + 24 + 24 * 64 * 9 + 24 + 24 * 64 * 9 + 64)
    assert live + dead == case["num_params"]

    as_built = ("spynet.mean", "spynet.std", "position_bias", "offset", "position_index")
    state = {
        key: official[key] if key.endswith(as_built) else filled(key, shape, case["salt"])
        for key, shape in case["state_dict"].items()
    }
    network.load_state_dict(state, strict=True)
    random = np.random.RandomState(case["input_seed"])
    t = case["t"] // 2 if case.get("mirrored") else case["t"]
    clip = random.rand(case["n"], t, 3, case["h"], case["w"])
    if case.get("mirrored"):
        clip = np.concatenate((clip, clip[:, ::-1]), 1)
    with torch.no_grad():
        out = network(torch.from_numpy(clip.astype(np.float32)))
    assert_recorded(out, case, 2e-4)


def test_parameter_count():
    with torch.device("meta"):
        network = IART()
    assert sum(p.numel() for p in network.parameters()) == 13_410_503 - 567_136
    assert sum(p.numel() for p in network.spynet.parameters()) == 1_440_300


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 8), (17, 10)])
@pytest.mark.parametrize("t", [1, 2, 4])
def test_any_size_and_length(tiny, size, t):
    with torch.no_grad():
        out = tiny(torch.rand(2, t, 3, *size))
    assert out.shape == (2, t, 3, 4 * size[0], 4 * size[1])
    assert out.isfinite().all()


def test_clips_do_not_influence_each_other(tiny):
    clips = torch.rand(2, 4, 3, 9, 10)
    mirrored = torch.cat((clips[:1, :2], clips[:1, :2].flip(1)), 1)
    with torch.no_grad():
        alone = tiny(clips[:1])
        tiny(mirrored)
        tiny(clips[1:, :2])
        torch.testing.assert_close(tiny(clips[:1]), alone, atol=0, rtol=0)
        torch.testing.assert_close(tiny(clips)[:1], alone, atol=1e-5, rtol=1e-5)


def test_frames_one_at_a_time_and_offloading_change_nothing(tiny):
    clip = torch.rand(1, 4, 3, 8, 9)
    with torch.no_grad():
        whole = tiny(clip)
        torch.testing.assert_close(torch.stack(list(tiny.forward_iter(clip)), 1), whole)
        tiny.cpu_cache_length = 2
        torch.testing.assert_close(tiny(clip), whole, atol=0, rtol=0)


def test_given_flow_equals_estimated_flow(tiny):
    from iart_plugin.flow import clip_flows

    clip = torch.rand(1, 3, 3, 16, 12)
    with torch.no_grad():
        torch.testing.assert_close(tiny(clip, clip_flows(tiny.spynet, clip)), tiny(clip))


def test_flow_of_another_size_is_named(tiny):
    flow = torch.zeros(1, 2, 2, 8, 8)
    with pytest.raises(ValueError, match=r"backward flow is \(1, 2, 2, 8, 7\)"):
        tiny(torch.rand(1, 3, 3, 8, 8), (flow, flow[..., :-1]))
    with pytest.raises(ValueError, match="pair"):
        tiny(torch.rand(1, 3, 3, 8, 8), flow)
    with pytest.raises(ValueError, match="expected a clip"):
        tiny(torch.rand(3, 3, 8, 8))


def test_every_parameter_gets_a_gradient(tiny):
    """No dead weights in the graph: nothing for DistributedDataParallel to wait for."""
    tiny.train()
    tiny(torch.rand(1, 3, 3, 12, 10)).square().mean().backward()
    without = [name for name, p in tiny.named_parameters() if p.grad is None]
    assert not without
    assert all(p.grad.isfinite().all() for p in tiny.parameters())


@pytest.mark.parametrize("use_checkpoint", [True, [True, False, False, True]])
def test_checkpointing_gives_the_same_gradients(use_checkpoint):
    clip = torch.rand(1, 3, 3, 8, 8)
    gradients = []
    for flag in (False, use_checkpoint):
        torch.manual_seed(1)
        network = IART(**TINY, use_checkpoint=flag).train()
        torch.manual_seed(2)  # the same paths are dropped
        network(clip).square().mean().backward()
        gradients.append([p.grad for p in network.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain)


def test_patch_alignment_is_the_baseline():
    network = IART(**TINY, alignment="patch").eval()
    assert not [key for key in network.state_dict() if key.startswith("implicit_warp")]
    assert network(torch.rand(1, 2, 3, 10, 9)).shape == (1, 2, 3, 40, 36)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"is_low_res_input": False}, "is_low_res_input"),
        ({"num_frames": 2}, "num_frames"),
        ({"window_size": (2, 8, 8)}, "window_size"),
        ({"patch_size": [1, 2, 2]}, "patch_size"),
        ({"use_checkpoint": [True, False]}, "use_checkpoint"),
        ({"alignment": "implicitt"}, "'implicitt'"),
        ({"depths": (2,)}, "depths"),
        ({"num_heads": (5, 5)}, "num_heads"),
    ],
)
def test_bad_options(option, message):
    with pytest.raises(ValueError, match=message):
        IART(**(TINY | option))


def test_official_options_build():
    network_g = {
        "mid_channels": 8,
        "embed_dim": 12,
        "depths": [1, 1],
        "num_heads": [2, 2],
        "window_size": [3, 8, 8],
        "num_frames": 3,
        "img_size": [64, 64],
        "patch_size": 1,
        "cpu_cache_length": 100,
        "is_low_res_input": True,
        "use_checkpoint": False,
        "spynet_path": None,
    }
    IART(**network_g)


def test_stochastic_depth_rises_to_a_tenth_and_rests_in_evaluation():
    factors = draw_depths(4, 4000, torch.device("cpu"))
    assert factors.shape == (4, 2, 4000)
    assert (factors[0] == 1).all()
    for block, rate in zip(factors[1:], [0.1 / 3, 0.2 / 3, 0.1], strict=True):
        assert block.unique().tolist() == pytest.approx([0, 1 / (1 - rate)])
        assert (block == 0).float().mean(1).tolist() == pytest.approx([rate] * 2, abs=0.02)
    assert (draw_depths(1, 9, torch.device("cpu")) == 1).all()

    backbone = IART(**(TINY | {"depths": (2, 2), "num_heads": (2, 2)})).swin_backbone["forward_2"]
    x = torch.rand(1, 3, TINY["embed_dim"], 8, 8)
    with torch.no_grad():
        assert torch.equal(backbone.eval()(x), backbone(x))
        results = [backbone.train()(x) for _ in range(40)]
    assert any(not torch.equal(result, results[0]) for result in results)


def test_compiles_without_graph_breaks():
    backbone = MFSABBackbone(4, depths=(2,), num_heads=(2,)).eval()
    x = torch.randn(1, 3, 4, 9, 8)
    with torch.no_grad():
        compiled = torch.compile(backbone, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x), backbone(x))


def test_trains_compiled_without_graph_breaks():
    network = IART(mid_channels=4, embed_dim=4, depths=(1,), num_heads=(1,)).eval()
    clip = torch.rand(1, 2, 3, 8, 9)
    weight = network.swin_backbone["forward_1"].layers[0].residual_group.blocks[0].attn.qkv.weight
    expected = torch.autograd.grad(network(clip).square().mean(), weight)[0]
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    gradient = torch.autograd.grad(compiled(clip).square().mean(), weight)[0]
    torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=1e-3)


def test_equals_the_plain_form():
    """Work by chunks, edge masks and one frame in the last block change nothing."""
    network = IART(**TINY).eval()
    clip = torch.rand(2, 3, 3, 17, 12)
    with torch.no_grad():
        out = network(clip)
        with fused(False):
            torch.testing.assert_close(out, network(clip), atol=1e-5, rtol=1e-4)


def test_trains_like_the_plain_form():
    network = IART(**TINY).double().eval()
    clip = torch.rand(2, 3, 3, 17, 12, dtype=torch.float64)
    gradients = []
    for flag in (True, False):
        network.zero_grad()
        with fused(flag):
            network(clip).square().mean().backward()
        gradients.append({name: p.grad for name, p in network.named_parameters()})
    torch.testing.assert_close(*gradients, atol=1e-12, rtol=1e-6)


def test_half_precision_keeps_the_stream_of_tokens_full():
    backbone = MFSABBackbone(12, depths=(2, 1), num_heads=(2, 2)).eval()
    x = torch.rand(1, 3, 12, 17, 12)
    with torch.no_grad():
        full = backbone(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = backbone(x)
    assert half.dtype == torch.float32
    assert 0 < (half - full).abs().max() < 0.02

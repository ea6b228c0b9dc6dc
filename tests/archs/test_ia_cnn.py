import pytest
import torch

from iart_plugin.archs import IACNN, load_ia_cnn
from iart_plugin.weight_files import CheckpointMismatch
from tests.natural_noise import natural_noise

TINY = {"num_feat": 8, "num_block": 1, "num_heads": 2}


@pytest.fixture
def tiny() -> IACNN:
    return IACNN(**TINY).eval()


def test_parameter_count():
    with torch.device("meta"):
        assert sum(p.numel() for p in IACNN().parameters()) == 8_521_263
        basicvsr = IACNN(alignment="flow_warp", extractor=False)
        assert sum(p.numel() for p in basicvsr.parameters()) == 6_291_311


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 8), (33, 10)])
@pytest.mark.parametrize("t", [1, 2, 3])
@pytest.mark.parametrize("alignment", ["implicit", "flow_warp", "patch", "none"])
def test_any_size_and_length(size, t, alignment):
    network = IACNN(**TINY, alignment=alignment).eval()
    with torch.no_grad():
        out = network(torch.rand(2, t, 3, *size))
    assert out.shape == (2, t, 3, 4 * size[0], 4 * size[1])
    assert out.isfinite().all()


def test_every_parameter_gets_a_gradient(tiny):
    tiny.train()
    tiny(torch.rand(1, 3, 3, 12, 10)).square().mean().backward()
    assert not [name for name, p in tiny.named_parameters() if p.grad is None]


def test_implicit_alignment_needs_the_extractor():
    with pytest.raises(ValueError, match="extractor"):
        IACNN(**TINY, extractor=False)


def test_autocast_keeps_the_flow_in_float32(tiny):
    seen = []
    tiny.alignment.register_forward_pre_hook(lambda _, args: seen.append(args[2].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        out = tiny(torch.rand(1, 3, 3, 16, 16))
    assert out.isfinite().all()
    assert seen and set(seen) == {torch.float32}


def test_equals_basicsrs_basicvsr_on_real_weights(basicvsr_weights):
    """The extractor is there and its output unused; everything else is BasicVSR, to rounding."""
    from tests.basicsr_reference import BasicVSR

    basicsr_basicvsr = BasicVSR(num_feat=64, num_block=30).eval()
    state = torch.load(basicvsr_weights, weights_only=True)["params"]
    basicsr_basicvsr.load_state_dict(state, strict=True)
    network = IACNN(alignment="flow_warp").eval()
    network.load_state_dict(state, strict=False)
    clip = torch.rand(1, 3, 3, 64, 72)
    with torch.no_grad():
        expected = basicsr_basicvsr(clip)
        torch.testing.assert_close(network(clip), expected, atol=1e-5, rtol=0)


def test_warm_start_is_basicvsr(basicvsr_weights):
    from iart_plugin.archs import load_checkpoint

    basicvsr, _ = load_checkpoint(basicvsr_weights)
    network = load_ia_cnn("warm-start", basicvsr_weights)
    clip = natural_noise(4, 48, 1, seed=5)
    with torch.no_grad():
        expected, out = basicvsr(clip), network(clip)

    # Integer motion, where the kernel is worst; at the borders too.
    assert (out - expected).square().mean().sqrt() < 0.002  # of full scale; measured 0.0016


def test_warm_start_can_be_trained(basicvsr_weights):
    network = load_ia_cnn("warm-start", basicvsr_weights).train()
    network(torch.rand(1, 2, 3, 16, 16)).square().mean().backward()
    assert network.extractor.main[0].weight.grad.abs().max() > 0
    assert network.alignment.q.weight.grad.abs().max() > 0
    assert network.alignment.k.weight.grad.abs().max() > 0


def test_warm_start_refuses_what_it_cannot_start(basicvsr_weights, tmp_path):
    from iart_plugin.archs import warm_start

    with pytest.raises(ValueError, match="window of 2"):
        warm_start(IACNN(**TINY, alignment_options={"window_size": 1}))
    wrong = tmp_path / "spynet.pth"
    torch.save({"params": IACNN(**TINY).spynet.state_dict()}, wrong)
    with pytest.raises(CheckpointMismatch, match="holds SPyNet"):
        load_ia_cnn("warm-start", wrong)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_ia_cnn(tmp_path / "nowhere.safetensors", basicvsr_weights)


def test_adapter_refuses_another_networks_weights(basicvsr_weights, tmp_path):
    from iart_plugin.archs import save_adapter

    with pytest.raises(CheckpointMismatch, match="does not fit"):
        save_adapter(IACNN(**TINY), basicvsr_weights, tmp_path / "adapter.safetensors")
    assert not list(tmp_path.iterdir())


def test_adapter_brings_the_parts_that_basicvsr_lacks(basicvsr_weights, tmp_path):
    from iart_plugin.archs import save_adapter
    from iart_plugin.weight_files import read_file

    network = load_ia_cnn("warm-start", basicvsr_weights)
    with torch.no_grad():
        network.fusion.bias += 0.01
        network.upconv1.weight *= 1 + 1e-6  # a moving average's rounding
    adapter = tmp_path / "adapter.safetensors"
    save_adapter(network, basicvsr_weights, adapter)
    stored = read_file(adapter)
    assert {key.partition(".")[0] for key in stored} == {"extractor", "alignment", "fusion"}
    composed = load_ia_cnn(adapter, basicvsr_weights)
    for key, value in network.state_dict().items():
        torch.testing.assert_close(composed.state_dict()[key], value, atol=2e-2, rtol=2e-3)


def test_warm_start_of_narrow_networks():
    """Heads are as many as leave each two channels, which the kernel's two logits need."""
    from iart_plugin.archs import warm_start

    def started(num_heads: int, position_channels: int) -> IACNN:
        options = {"position_channels": position_channels}
        return warm_start(IACNN(8, 1, num_heads, alignment_options=options))

    assert started(4, 16)(torch.rand(1, 2, 3, 8, 8)).any()
    with pytest.raises(ValueError, match="2 channels a head"):
        started(8, 16)
    for too_few in (0, 4, 8):
        with pytest.raises(ValueError, match="'position_channels': 16"):
            started(4, too_few)


def test_warm_started_alignment_is_bilinear_warping():
    from iart_plugin.alignment import FlowWarp
    from iart_plugin.archs import warm_start
    from iart_plugin.archs.warm_start import ALIGNMENT_OPTIONS

    network = warm_start(IACNN(64, 0, alignment_options=ALIGNMENT_OPTIONS))
    features, flow = torch.randn(2, 64, 9, 11), 4 * torch.randn(2, 2, 9, 11)
    out = network.alignment(features, torch.zeros_like(features), flow)
    error = (out - FlowWarp()(features, None, flow)).square().mean().sqrt()
    assert error < 0.02 * out.std()


@pytest.mark.parametrize("sizes", [{"num_feat": 0}, {"num_block": -1}])
def test_impossible_sizes(sizes):
    with pytest.raises(ValueError, match="num_feat must be positive"):
        IACNN(**(TINY | sizes))


def test_trains_compiled_without_graph_breaks(tiny):
    clip = torch.rand(1, 3, 3, 8, 8)
    expected = torch.autograd.grad(tiny(clip).square().mean(), tiny.alignment.q.weight)[0]
    compiled = torch.compile(tiny, fullgraph=True, backend="aot_eager")
    gradient = torch.autograd.grad(compiled(clip).square().mean(), tiny.alignment.q.weight)[0]
    torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=1e-3)

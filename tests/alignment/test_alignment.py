import pytest
import torch

from iart_plugin.alignment import ALIGNMENTS, build_alignment
from iart_plugin.ops import ImplicitAlignment


def build(name: str, channels: int = 8, **options) -> torch.nn.Module:
    if name == "implicit":
        options.setdefault("num_heads", 2)
    return build_alignment(name, channels, **options)


def test_the_dict_of_names_builds_and_all_share_the_interface():
    for name in ("none", "flow_warp", "patch", "implicit"):
        aligner = build(name)
        reference, current = torch.randn(2, 2, 8, 6, 7).unbind()
        flow = torch.randn(2, 2, 6, 7)
        out = aligner(reference, current, flow)
        assert out.shape == reference.shape
        projected = aligner.project_reference(reference)
        assert torch.equal(aligner.align(projected, current, flow), out)
        assert isinstance(aligner.uses_current, bool)


@pytest.mark.parametrize("name", ["none", "flow_warp", "patch"])
@pytest.mark.parametrize("size", [(1, 1), (9, 17)])
def test_zero_flow_is_the_identity(name, size):
    x = torch.randn(1, 4, *size)
    torch.testing.assert_close(build(name, 4)(x, x, torch.zeros(1, 2, *size)), x)


@pytest.mark.parametrize("name", ["flow_warp", "patch"])
def test_integer_flow_is_exact(name):
    x = torch.randn(1, 4, 8, 16)
    flow = torch.zeros(1, 2, 8, 16)
    flow[:, 0] = 3
    out = build(name, 4)(x, None, flow)
    torch.testing.assert_close(out[..., :-3], x[..., 3:], atol=1e-5, rtol=0)
    assert not out[..., -3:].any()


def test_patch_moves_whole_patches_by_whole_pixels():
    x = torch.randn(1, 2, 10, 12)
    flow = torch.zeros(1, 2, 10, 12)
    flow[..., :8, :8] = 1.0
    flow[:, 0, 0, 0] = 1 + 64 * 0.3  # the patch's mean becomes 1.3 in x
    flow[:, :, 8:, 8:] = -2.4
    out = build("patch", 2)(x, None, flow)
    torch.testing.assert_close(out[..., :8, :8], x[..., 1:9, 1:9])
    torch.testing.assert_close(out[..., 8:, 8:], x[..., 6:8, 6:10])
    torch.testing.assert_close(out[..., :8, 8:], x[..., :8, 8:])


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_flow_warp_modes(mode):
    from iart_plugin.ops import warp

    x, flow = torch.randn(1, 3, 6, 6), torch.randn(1, 2, 6, 6)
    aligner = build_alignment("flow_warp", 3, mode=mode, padding="border")
    torch.testing.assert_close(aligner(x, None, flow), warp(x, flow, mode=mode, padding="border"))


def test_gradcheck_of_warping():
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    flow = (0.2 + 0.6 * torch.rand(1, 2, 4, 4, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, f: build("flow_warp")(a, None, f), (x, flow))


def test_implicit_is_the_op():
    assert ALIGNMENTS["implicit"] is ImplicitAlignment
    op = build_alignment("implicit", 8, num_heads=2, window_size=3, encode_window=False)
    assert op.window_size == 3 and not op.encode_window


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("implicitt", {}, "unknown alignment 'implicitt': choose one of none, flow_warp"),
        ("flow_warp", {"modes": "nearest"}, "no option modes; it takes mode, padding"),
        ("none", {"mode": "nearest"}, "it takes none"),
        ("implicit", {}, "num_heads"),
        ("flow_warp", {"mode": "lanczos"}, "'lanczos'"),
        ("patch", {"patch_size": 0}, "patch_size"),
    ],
)
def test_bad_names_and_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_alignment(name, 8, **options)


def test_flow_of_another_size():
    for name in ("none", "flow_warp", "patch"):
        with pytest.raises(ValueError, match="does not match"):
            build(name)(torch.zeros(1, 8, 4, 4), None, torch.zeros(1, 2, 4, 5))


@pytest.mark.parametrize("name", sorted(ALIGNMENTS))
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -1e30, 1e9])
def test_flow_that_is_no_number_ends_no_process(name, value):
    """Neither pass reads memory at such a place, and NaN stays NaN, so that the loss shows it."""
    aligner = build(name)
    reference, current = torch.rand(2, 1, 8, 16, 16).requires_grad_().unbind()
    flow = torch.rand(1, 2, 16, 16)
    flow[:, :, 2:9] = value
    out = aligner(reference, current, flow.requires_grad_())
    assert out[:, :, 4].isnan().all() or name == "none" or value == value
    out.sum().backward()

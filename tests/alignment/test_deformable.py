"""FGDC and FGDA: parameter counts, gradients, and both against sums written out pixel by pixel."""

import math

import pytest
import torch
import torch.nn.functional as F

from iart_plugin.alignment import build_alignment

NAMES = ("deformable_conv", "deformable_attention")


def _inputs(channels, height, width, *, dtype=torch.float64, seed=0, n=1, speed=1.5):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, n, channels, height, width, generator=generator, dtype=dtype)
    flow = torch.randn(n, 2, height, width, generator=generator, dtype=dtype) * speed
    return features[0], features[1], flow


def _build(name, channels, seed=0, **options):
    """An aligner whose offsets are not the zeros that training starts from."""
    torch.manual_seed(seed)
    aligner = build_alignment(name, channels, **options).double()
    for parameter in aligner.offsets.body[-1].parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    return aligner


def _bilinear(image, x, y):
    """Value of (c, h, w) at a position, zero outside, from the definition."""
    c, h, w = image.shape
    total = image.new_zeros(c)
    for j in (math.floor(y), math.floor(y) + 1):
        for i in (math.floor(x), math.floor(x) + 1):
            if 0 <= i < w and 0 <= j < h:
                total = total + image[:, j, i] * (1 - abs(x - i)) * (1 - abs(y - j))
    return total


@pytest.mark.parametrize(
    ("name", "count"), [("deformable_conv", 250_962), ("deformable_attention", 213_424)]
)
def test_parameters_at_the_papers_width(name, count):
    aligner = build_alignment(name, 60)
    assert sum(p.numel() for p in aligner.parameters()) == count


@pytest.mark.parametrize("name", NAMES)
def test_gradcheck(name):
    aligner = _build(name, 4, hidden_channels=3)
    reference, current, flow = _inputs(4, 3, 4)
    inputs = [t.requires_grad_() for t in (reference, current, flow)]
    assert torch.autograd.gradcheck(aligner, inputs, atol=1e-6)
    parameters = dict(aligner.named_parameters())
    names = list(parameters)

    def of_parameters(*values):
        return torch.func.functional_call(
            aligner, dict(zip(names, values, strict=True)), (reference, current, flow)
        )

    assert torch.autograd.gradcheck(of_parameters, tuple(parameters.values()), fast_mode=True)


def test_deformable_conv_equals_the_sum_written_out():
    aligner = _build("deformable_conv", 4, num_groups=2)
    reference, current, flow = _inputs(4, 5, 6)
    from iart_plugin.ops import warp

    raw = aligner.offsets.body(torch.cat((warp(reference, flow), current, flow), 1))[0]
    offset = 10 * raw[:36].tanh().view(2, 9, 2, 5, 6)  # group, point, (y, x)
    modulation = raw[36:].sigmoid().view(2, 9, 5, 6)
    out = aligner(reference, current, flow)[0]
    for y, x in [(0, 0), (2, 3), (4, 5), (1, 4)]:
        expected = aligner.bias.clone()
        for group in range(2):
            block = reference[0, 2 * group : 2 * group + 2]
            for point in range(9):
                dy, dx = point // 3 - 1, point % 3 - 1
                at_y = y + dy + flow[0, 1, y, x] + offset[group, point, 0, y, x]
                at_x = x + dx + flow[0, 0, y, x] + offset[group, point, 1, y, x]
                value = _bilinear(block, at_x.item(), at_y.item()) * modulation[group, point, y, x]
                kernel = aligner.weight[:, 2 * group : 2 * group + 2, dy + 1, dx + 1]
                expected = expected + kernel @ value
        torch.testing.assert_close(out[:, y, x], expected)


def test_deformable_attention_equals_the_sum_written_out():
    aligner = _build("deformable_attention", 4, num_heads=2, hidden_channels=5)
    reference, current, flow = _inputs(4, 5, 6)
    from iart_plugin.ops import warp

    raw = aligner.offsets.body(torch.cat((warp(reference, flow), current, flow), 1))[0]
    offset = 10 * raw.tanh().view(2, 9, 2, 5, 6)  # head, point, (x, y)
    out = aligner(reference, current, flow)[0]
    keys, values = (
        layer(reference[0].permute(1, 2, 0)).permute(2, 0, 1) for layer in (aligner.k, aligner.v)
    )
    for y, x in [(0, 0), (2, 3), (4, 5)]:
        query = aligner.q(current[0, :, y, x])
        heads = []
        for head in range(2):
            channels = slice(4 * head, 4 * head + 4)
            logits, sampled = [], []
            for point in range(9):
                at_x = x + point % 3 - 1 + flow[0, 0, y, x] + offset[head, point, 0, y, x]
                at_y = y + point // 3 - 1 + flow[0, 1, y, x] + offset[head, point, 1, y, x]
                key = _bilinear(keys[channels], at_x.item(), at_y.item())
                logits.append(query[channels] @ key / 4**0.5)
                sampled.append(_bilinear(values[channels], at_x.item(), at_y.item()))
            heads.append(torch.stack(logits).softmax(0) @ torch.stack(sampled))
        expected = aligner.out(torch.cat(heads))
        torch.testing.assert_close(out[:, y, x], expected + aligner.mlp(expected))


@pytest.mark.parametrize("name", NAMES)
def test_training_starts_from_the_flow(name):
    """With offsets at zero, whole-pixel flow is a shift of what zero flow gives."""
    torch.manual_seed(0)
    aligner = build_alignment(name, 8)
    reference, current, _ = _inputs(8, 12, 14, dtype=torch.float32)
    current = current.mean((2, 3), keepdim=True).expand_as(current)  # alike everywhere
    flow = torch.tensor([3.0, -2.0]).view(1, 2, 1, 1).expand(1, 2, 12, 14)
    with torch.no_grad():
        moved = aligner(reference, current, flow)
        still = aligner(reference, current, torch.zeros_like(flow))
    torch.testing.assert_close(moved[..., 4:, :-5], still[..., 2:-2, 3:-2], atol=1e-5, rtol=1e-5)


def test_deformable_conv_with_zero_flow_is_half_a_convolution():
    torch.manual_seed(0)
    aligner = build_alignment("deformable_conv", 6)
    reference, current, flow = _inputs(6, 7, 9, dtype=torch.float32)
    expected = F.conv2d(reference, 0.5 * aligner.weight, aligner.bias, padding=1)
    torch.testing.assert_close(aligner(reference, current, 0 * flow), expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3)])
def test_any_size_and_a_reference_projected_once(name, size):
    aligner = _build(name, 6).float()
    reference, current, flow = _inputs(6, *size, dtype=torch.float32, n=2)
    out = aligner(reference, current, flow)
    assert out.shape == reference.shape and out.isfinite().all()
    projected = aligner.project_reference(reference)
    torch.testing.assert_close(aligner.align(projected, current, flow), out)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_keeps_positions_exact(name, dtype):
    aligner = _build(name, 8).float()
    reference, current, flow = _inputs(8, 6, 300, dtype=torch.float32)
    expected = aligner(reference, current, flow)
    with torch.autocast("cpu", dtype=dtype):
        out = aligner(reference, current, flow)
    # Positions rounded to half precision would be off by a pixel at this width.
    assert (out.float() - expected).abs().mean() < 0.05 * expected.std()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("channels", "groups"), [(60, None), (64, None), (120, None), (3, None)])
def test_widths_of_every_network(name, channels, groups):
    aligner = build_alignment(name, channels)
    reference, current, flow = _inputs(channels, 4, 4, dtype=torch.float32)
    assert aligner(reference, current, flow).shape == reference.shape


def test_refusals():
    with pytest.raises(ValueError, match="divide 60 channels, got 7"):
        build_alignment("deformable_conv", 60, num_groups=7)
    with pytest.raises(ValueError, match="divide 120 channels, got 7"):
        build_alignment("deformable_attention", 60, num_heads=7)
    with pytest.raises(ValueError, match="max_offset"):
        build_alignment("deformable_conv", 60, max_offset=0)
    with pytest.raises(ValueError, match="no option"):
        build_alignment("deformable_conv", 60, window=3)
    aligner = build_alignment("deformable_conv", 6)
    reference, current, flow = _inputs(6, 4, 5, dtype=torch.float32)
    with pytest.raises(ValueError, match="does not match"):
        aligner(reference, current, flow[..., :-1])

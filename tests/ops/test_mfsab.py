"""The block of the backbone: the reference form, and the CPU form against it."""

import pytest
import torch
import torch.nn.functional as F

from iart_plugin.kernels.mfsab_sizes import BlockWeights
from iart_plugin.ops.mfsab import MASKED, Windows, cut, masks, reference_block, regions, uncut
from iart_plugin.ops.mfsab_windows import attend, linear, windowed_block
from tests.blocks import random_block


@pytest.fixture(params=[True, False], ids=["fast mkl", "slow mkl"])
def mkl(request, monkeypatch):
    """Either sort of CPU, whichever this one is."""
    monkeypatch.setattr("iart_plugin.ops.mfsab_windows.has_fast_mkl", lambda: request.param)


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("frame", [None, 1])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (9, 17), (33, 41), (65, 73)])
def test_a_few_windows_at_a_time_change_nothing(size, frame, shift, mkl):
    x, weights, scales = random_block(2, 3, *size, dtype=torch.float64)
    arguments = weights, Windows((8, 8), shift), frame, scales
    with torch.no_grad():
        expected = reference_block(x, *arguments)
        torch.testing.assert_close(windowed_block(x, *arguments), expected)
        if frame is None:
            overwritten = x.clone()
            torch.testing.assert_close(
                windowed_block(overwritten, *arguments, in_place=True), expected
            )
            torch.testing.assert_close(overwritten, expected)


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("frame", [None, 0])
@pytest.mark.parametrize("window", [(8, 8), (4, 3)])
def test_gradients_a_few_windows_at_a_time(frame, shift, window):
    gradients = []
    for form in (reference_block, windowed_block):
        x, weights, scales = random_block(2, 2, 9, 13, window=window, dtype=torch.float64)
        leaves = [part.requires_grad_() for part in (x, *weights)]
        out = form(x, weights, Windows(window, shift), frame, scales)
        weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
        gradients.append(torch.autograd.grad((out * weight).sum(), leaves))
    torch.testing.assert_close(*gradients)


def test_half_precision_keeps_the_stream_full():
    x, weights, _ = random_block(1, 3, 9, 8)
    half = BlockWeights(*(w.bfloat16() if w.dim() > 1 else w for w in weights))
    with torch.no_grad():
        full = reference_block(x, weights, Windows((8, 8), shift=True))
        for form in (reference_block, windowed_block):
            out = form(x, half, Windows((8, 8), shift=True))
            assert out.dtype == torch.float32
            assert 0 < (out - full).abs().max() < 0.05


def test_a_reference_written_apart():
    """Without shift, padding and other frames a block is PyTorch's attention and a plain MLP."""
    x, w, _ = random_block(2, 1, 8, 8, dtype=torch.float64)
    y = F.layer_norm(x, (12,), w.norm1_weight, w.norm1_bias).view(2, 64, 12)
    q, k, v = F.linear(y, w.qkv_weight, w.qkv_bias).view(2, 64, 3, 2, 6).permute(2, 0, 3, 1, 4)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=w.bias.unsqueeze(0))
    y = F.linear(y.transpose(1, 2).reshape(2, 64, 12), w.proj_weight, w.proj_bias)
    expected = x + y.view_as(x)
    y = F.layer_norm(expected, (12,), w.norm2_weight, w.norm2_bias)
    y = F.linear(F.gelu(F.linear(y, w.fc1_weight, w.fc1_bias)), w.fc2_weight, w.fc2_bias)
    out = reference_block(x, w, Windows((8, 8), shift=False))
    torch.testing.assert_close(out, expected + y)


@pytest.mark.parametrize("form", [reference_block, windowed_block])
def test_stochastic_depth_leaves_out_a_clips_branch(form):
    x, weights, _ = random_block(2, 2, 9, 8)
    with torch.no_grad():
        out = form(x, weights, Windows((8, 8), shift=True), None, torch.tensor([[0.0, 1], [0, 1]]))
        assert torch.equal(out[0], x[0])
        whole = form(x, weights, Windows((8, 8), shift=True))
        torch.testing.assert_close(out[1], whole[1])


@pytest.mark.parametrize("size", [(8, 8), (9, 17), (3, 5)])
@pytest.mark.parametrize("shift", [False, True])
def test_windows_come_back_where_they_were(size, shift):
    x, windows = torch.randn(2, 3, *size, 5), Windows((8, 8), shift)
    assert torch.equal(uncut(cut(x, windows), windows, x), x)


def test_rolled_windows_mask_across_the_seam_only():
    """A roll brings the top row below the bottom row: only these must not see each other."""
    windows = Windows((8, 8), shift=True)
    position = torch.stack(torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij"), -1)
    positions = cut(position.view(1, 1, 16, 16, 2), windows)[0]  # (windows, tokens, 2)
    near = (positions.unsqueeze(1) - positions.unsqueeze(2)).abs().amax(-1) < 8
    assert torch.equal(masks(regions(16, 16, windows), 1), torch.where(near, 0, int(MASKED)))


def test_mask_is_not_minus_infinity():
    """-100 lets a logit 100 above the others through, which the released weights may rely on."""
    x, weights, _ = random_block(1, 1, 8, 8)
    windows = Windows((8, 8), shift=True)
    base = reference_block(x, weights, windows)
    weights.bias[:, 0, -1] += 300  # only between opposite corners, which the seam parts
    assert (reference_block(x, weights, windows) - base).abs().max() > 1e-3


@pytest.mark.parametrize("is_masked", [False, True])
def test_attention_equals_pytorchs(is_masked, mkl):
    query, key_value = torch.randn(3, 4, 8), torch.randn(3, 6, 16)
    bias, mask = torch.randn(2, 4, 6), torch.randn(3, 4, 6) if is_masked else None
    q, k, v = (x.unflatten(-1, (2, 4)).transpose(1, 2) for x in (query, *key_value.chunk(2, -1)))
    added = bias.unsqueeze(0) + (mask.unsqueeze(1) if is_masked else 0)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=added)
    expected = expected.transpose(1, 2).flatten(2)
    torch.testing.assert_close(attend(query, key_value, bias, mask), expected)
    with torch.no_grad():
        torch.testing.assert_close(attend(query, key_value, bias, mask), expected)


@pytest.mark.parametrize("shape", [(5, 3), (2, 7, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_linear_equals_pytorchs(shape, dtype, mkl):
    x, weight, bias = torch.randn(shape), torch.randn(4, 3), torch.randn(4)
    x, weight, bias = (part.to(dtype) for part in (x, weight, bias))
    torch.testing.assert_close(linear(x, weight, bias), F.linear(x, weight, bias))

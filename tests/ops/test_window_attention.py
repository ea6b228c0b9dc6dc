import pytest
import torch
import torch.nn.functional as F

from iart_plugin.ops.linear import linear
from iart_plugin.ops.window_attention import MaskedWindows, attend


def inputs(queries: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    q = torch.randn(3, queries, 2, 4, dtype=dtype, requires_grad=True)
    key_value = torch.randn(3, 6, 2, 2, 4, dtype=dtype, requires_grad=True)
    return q, key_value, torch.randn(2, queries, 6, dtype=dtype, requires_grad=True)


@pytest.fixture(params=[True, False], ids=["fast mkl", "slow mkl"])
def mkl(request, monkeypatch):
    """Either sort of CPU, whichever this one is."""
    for module in ("window_attention", "linear"):
        monkeypatch.setattr(f"iart_plugin.ops.{module}.has_fast_mkl", lambda: request.param)


@pytest.mark.parametrize("queries", [1, 6])
def test_equals_pytorchs(queries, mkl):
    q, key_value, added = inputs(queries)
    k, v = key_value.unbind(2)
    per_head = (x.transpose(1, 2) for x in (q, k, v))
    expected = F.scaled_dot_product_attention(*per_head, attn_mask=added.unsqueeze(0))
    expected = expected.transpose(1, 2).flatten(2)
    torch.testing.assert_close(attend(q, key_value, added), expected)
    with torch.no_grad():
        torch.testing.assert_close(attend(q, key_value, added), expected)


@pytest.mark.parametrize("queries", [1, 6])
def test_gradient(queries):
    assert torch.autograd.gradcheck(attend, inputs(queries))


@pytest.mark.parametrize("runs", [[(0, 1)], [(1, 3)], [(0, 2), (2, 3)], [(1, 2)]])
def test_windows_have_their_own_masks(runs, mkl):
    q, key_value, added = inputs(6)
    masks = [MaskedWindows(*run, torch.randn(6, 6, dtype=q.dtype)) for run in runs]
    expected = [attend(q[i : i + 1], key_value[i : i + 1], added) for i in range(3)]
    for start, stop, mask in masks:
        for i in range(start, stop):
            expected[i] = attend(q[i : i + 1], key_value[i : i + 1], added + mask)
    out = attend(q, key_value, added, masks)
    torch.testing.assert_close(out, torch.cat(expected))
    with torch.no_grad():
        torch.testing.assert_close(attend(q, key_value, added, masks), out)
    wanted = torch.autograd.grad(torch.cat(expected).square().sum(), (q, key_value, added))
    torch.testing.assert_close(
        torch.autograd.grad(out.square().sum(), (q, key_value, added)), wanted
    )


def test_masked_keys_do_not_count():
    q, key_value, added = inputs(6)
    masked = added.clone()
    masked[..., 3:] -= 1e4
    expected = attend(q, key_value[:, :3], added[..., :3])
    torch.testing.assert_close(attend(q, key_value, masked), expected)


@pytest.mark.parametrize("shape", [(5, 3), (2, 7, 3), (0, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_linear_equals_pytorchs(shape, dtype, mkl):
    x, weight, bias = torch.randn(shape), torch.randn(4, 3), torch.randn(4)
    x, weight, bias = (part.to(dtype) for part in (x, weight, bias))
    expected = F.linear(x, weight, bias)
    torch.testing.assert_close(linear(x, weight, bias), expected)
    out = x.new_empty(x[..., 0].numel(), 4)
    torch.testing.assert_close(linear(x, weight, bias, out), expected)


def test_linear_has_gradients():
    x, weight, bias = torch.randn(2, 7, 3), torch.randn(4, 3), torch.randn(4)
    gradients = []
    for function in (linear, F.linear):
        parts = [part.clone().requires_grad_() for part in (x, weight, bias)]
        function(*parts).square().sum().backward()
        gradients.append([part.grad for part in parts])
    torch.testing.assert_close(*gradients)

"""The attention's weights that are read out of an alignment are those of its equations."""

import pytest
import torch

from iart_plugin.ops import ImplicitAlignment
from iart_plugin.ops.alignment_forms import encode, split_position
from iart_plugin.study.attention import attention_weights


@pytest.mark.parametrize("window_size", [2, 3])
@pytest.mark.parametrize("padding_mode", ["border", "zeros"])
def test_weights_are_the_softmax_of_queries_and_keys(window_size, padding_mode):
    torch.manual_seed(0)
    op = ImplicitAlignment(
        8, num_heads=2, window_size=window_size, position_channels=4, padding_mode=padding_mode
    )
    reference, current = torch.randn(2, 1, 8, 9, 11)
    flow = torch.rand(1, 2, 9, 11) * 2 - 1
    weights = attention_weights(op, reference, current, flow)
    assert weights.shape == (1, 2, window_size, window_size, 9, 11)

    y, x = 4, 5
    base, decimal = split_position(flow)
    top, left = base[0, 1, y, x], base[0, 0, y, x]
    position = decimal[0, :, y, x].flip(0) / (window_size + 1e-6)
    token = torch.nn.functional.pad(current[0, :, y, x], (0, 4)) + encode(position, 8, 4)
    window = reference[0, :, top : top + window_size, left : left + window_size].flatten(1).t()
    window = torch.nn.functional.pad(window, (0, 4))
    keys = op.k(window + op.window_encoding(torch.device("cpu"), torch.float32))
    logits = torch.einsum("hc,khc->hk", op.q(token).view(2, 4), keys.view(-1, 2, 4)) / 4**0.5
    expected = logits.softmax(-1).view(2, window_size, window_size)
    torch.testing.assert_close(weights[0, :, :, :, y, x], expected, atol=1e-5, rtol=0)
    inner = weights[..., 2:-3, 2:-3].sum((2, 3))
    torch.testing.assert_close(inner, torch.ones_like(inner))

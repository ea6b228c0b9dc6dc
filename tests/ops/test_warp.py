import pytest
import torch

from iart_plugin.ops import pixel_grid, sinusoidal_encoding, warp

SIZES = [(1, 1), (1, 6), (5, 1), (5, 7)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_zero_flow_is_the_identity(size, mode, padding):
    x = torch.rand(2, 3, *size)
    out = warp(x, torch.zeros(2, 2, *size), mode=mode, padding=padding)
    torch.testing.assert_close(out, x, atol=2e-6, rtol=0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_integer_flow_moves_pixels(size, mode):
    h, w = size
    x = torch.rand(1, 2, h, w)
    flow = torch.empty(1, 2, h, w)
    flow[:, 0], flow[:, 1] = 2.0, -1.0
    out = warp(x, flow, mode=mode)
    expected = torch.zeros_like(x)
    if h > 1 and w > 2:
        expected[..., 1:, : w - 2] = x[..., : h - 1, 2:]
    torch.testing.assert_close(out, expected, atol=2e-6, rtol=0)


def test_border_padding_repeats_the_edge():
    x = torch.rand(1, 1, 4, 4)
    flow = torch.full((1, 2, 4, 4), 100.0)
    expected = x[..., -1:, -1:].expand_as(x)
    torch.testing.assert_close(warp(x, flow, padding="border"), expected)
    assert not warp(x, flow).any()


def test_bilinear_is_the_weighted_mean_of_four():
    x = torch.rand(1, 1, 3, 3, dtype=torch.float64)
    flow = torch.tensor([0.25, 0.5], dtype=torch.float64).view(1, 2, 1, 1).expand(1, 2, 3, 3)
    out = warp(x, flow)[0, 0, 0, 0]
    top = 0.75 * x[0, 0, 0, 0] + 0.25 * x[0, 0, 0, 1]
    bottom = 0.75 * x[0, 0, 1, 0] + 0.25 * x[0, 0, 1, 1]
    torch.testing.assert_close(out, 0.5 * top + 0.5 * bottom)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_gradcheck(mode):
    x = torch.rand(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    flow = 0.2 + 0.6 * torch.rand(1, 2, 4, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda a, b: warp(a, b, mode=mode, padding="zeros"), (x, flow.requires_grad_())
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_float32_positions(dtype):
    x = torch.rand(1, 1, 2, 400)
    flow = torch.full((1, 2, 2, 400), 0.3)
    out = warp(x.to(dtype), flow)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), warp(x, flow), atol=0.01, rtol=0.01)


def test_bad_input():
    x, flow = torch.rand(1, 1, 4, 4), torch.zeros(1, 2, 4, 4)
    with pytest.raises(ValueError, match="'cubic'"):
        warp(x, flow, mode="cubic")
    with pytest.raises(ValueError, match="'reflect'"):
        warp(x, flow, padding="reflect")
    with pytest.raises(ValueError, match="does not match"):
        warp(x, flow[..., :-1])
    with pytest.raises(ValueError, match="expected"):
        warp(x, flow[:, :1])


def test_pixel_grid_is_x_then_y():
    grid = pixel_grid(2, 3, device=torch.device("cpu"), dtype=torch.float32)
    assert grid[:, 1, 2].tolist() == [2, 1]


def test_encoding_of_the_origin_and_odd_channels():
    encoding = sinusoidal_encoding(torch.zeros(2), 8)
    assert encoding.tolist() == [0, 1, 0, 1, 0, 1, 0, 1]
    with pytest.raises(ValueError, match="even"):
        sinusoidal_encoding(torch.zeros(2), 7)


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_nan_in_the_flow_is_passed_on(mode, padding):
    """No memory is indexed by NaN, in either pass: the pixel is NaN, and the others are right."""
    x = torch.rand(1, 3, 16, 16, requires_grad=True)
    flow = torch.rand(1, 2, 16, 16)
    wanted = warp(x, flow, mode=mode, padding=padding)
    flow[0, 1, 5, 6] = torch.nan
    flow.requires_grad_()
    out = warp(x, flow, mode=mode, padding=padding)
    assert out[..., 5, 6].isnan().all()
    known = torch.ones(16, 16, dtype=torch.bool)
    known[5, 6] = False
    assert torch.equal(out[..., known], wanted[..., known])
    out[..., known].sum().backward()
    assert x.grad.isfinite().all()
    warp(x, torch.full_like(flow, torch.nan), mode=mode, padding=padding).sum().backward()

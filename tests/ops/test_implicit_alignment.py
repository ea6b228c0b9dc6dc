import numpy as np
import pytest
import torch

from iart_plugin.fused import fused
from iart_plugin.ops import ImplicitAlignment
from tests.ops.plain_alignment import plain_alignment
from tests.parity import assert_recorded, cases, filled


def inputs(n=2, c=16, h=7, w=9, *, scale=3.0, dtype=torch.float32):
    return (
        torch.randn(n, c, h, w, dtype=dtype),
        torch.randn(n, c, h, w, dtype=dtype),
        torch.randn(n, 2, h, w, dtype=dtype) * scale,
    )


@pytest.mark.parametrize("case", cases("implicit_alignment"), ids=lambda case: case["name"])
def test_recorded_figures(case):
    op = ImplicitAlignment(
        case["dim"],
        num_heads=case["num_heads"],
        window_size=case["window_size"],
        encode_window=case["pe_on_window"],
        encode_decimal=case["pe_on_decimal"],
    )
    op.load_state_dict({k: filled(k, s, case["salt"]) for k, s in case["params"].items()})
    state = np.random.RandomState(case["input_seed"])
    n, c, h, w = (case[name] for name in ("n", "dim", "h", "w"))
    reference = state.standard_normal((n, c, h, w))
    current = state.standard_normal((n, c, h, w))
    flow = (state.standard_normal((n, h, w, 2)) * case["flow_scale"]).transpose(0, 3, 1, 2)
    tensors = [torch.from_numpy(a.astype(np.float32)) for a in (reference, current, flow)]
    assert_recorded(op(*tensors), case, 2e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (7, 9), (16, 16)])
@pytest.mark.parametrize("window_size", [1, 2, 3, 4])
@pytest.mark.parametrize("encodings", [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("scale", [0.5, 30.0])
def test_equals_the_equations(size, window_size, encodings, scale):
    op = ImplicitAlignment(
        8,
        num_heads=2,
        window_size=window_size,
        encode_window=encodings[0],
        encode_decimal=encodings[1],
    ).double()
    tensors = inputs(c=8, h=size[0], w=size[1], scale=scale, dtype=torch.float64)
    torch.testing.assert_close(op(*tensors), plain_alignment(op, *tensors))


@pytest.mark.parametrize("window_size", [2, 3])
def test_position_channels_are_encodings_beside_the_features(window_size):
    op = ImplicitAlignment(8, num_heads=2, window_size=window_size, position_channels=12).double()
    assert op.q.weight.shape == (8, 20)
    tensors = inputs(c=8, dtype=torch.float64)
    torch.testing.assert_close(op(*tensors), plain_alignment(op, *tensors))


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (7, 9)])
@pytest.mark.parametrize("window_size", [1, 2, 3])
def test_zeros_outside_the_frame(size, window_size):
    op = ImplicitAlignment(8, num_heads=2, window_size=window_size, padding_mode="zeros").double()
    tensors = inputs(c=8, h=size[0], w=size[1], dtype=torch.float64)
    out = op(*tensors)
    torch.testing.assert_close(out, plain_alignment(op, *tensors))
    with fused(False):
        torch.testing.assert_close(op(*tensors), out)


def test_position_channels_of_weight_zero_are_the_papers_form():
    paper, op = (ImplicitAlignment(8, num_heads=2, position_channels=extra) for extra in (0, 12))
    with torch.no_grad():
        for layer, wider in zip(paper.children(), op.children(), strict=True):
            wider.weight.copy_(torch.nn.functional.pad(layer.weight, (0, 12)))
            wider.bias.copy_(layer.bias)
    tensors = inputs(c=8)
    torch.testing.assert_close(op(*tensors), paper(*tensors))


def test_without_encodings_position_channels_hold_nothing():
    op = ImplicitAlignment(
        8, num_heads=2, encode_window=False, encode_decimal=False, position_channels=12
    )
    tensors = inputs(c=8)
    expected = op(*tensors)
    with torch.no_grad():
        for layer in op.children():
            layer.weight[:, 8:] = 7
    torch.testing.assert_close(op(*tensors), expected)


def test_integer_flow_equals_the_equations():
    op = ImplicitAlignment(8, num_heads=2).double()
    reference, current, flow = inputs(c=8, dtype=torch.float64)
    flow = flow.round()
    expected = plain_alignment(op, reference, current, flow)
    torch.testing.assert_close(op(reference, current, flow), expected)


@pytest.mark.parametrize(
    "options", [{"window_size": 2}, {"window_size": 3}, {"position_channels": 4}]
)
def test_gradcheck(options):
    op = ImplicitAlignment(4, num_heads=2, **options).double()
    # Decimals kept off 0 and 1, where the window jumps and nothing is differentiable.
    base = torch.randint(-2, 3, (1, 2, 3, 4)).double()
    flow = base + 0.2 + 0.6 * torch.rand(1, 2, 3, 4, dtype=torch.float64)
    reference, current, _ = inputs(1, 4, 3, 4, dtype=torch.float64)
    parameters = tuple(p.requires_grad_() for p in (reference, current, flow))
    assert torch.autograd.gradcheck(op, parameters)

    names = list(dict(op.named_parameters()))
    values = tuple(p.detach().clone().requires_grad_() for p in op.parameters())

    def of_weights(*weights):
        return torch.func.functional_call(op, dict(zip(names, weights, strict=True)), parameters)

    assert torch.autograd.gradcheck(of_weights, values)


def test_projection_is_reusable():
    op = ImplicitAlignment(16, num_heads=4)
    reference, current, flow = inputs()
    projected = op.project_reference(reference)
    for shift in (0.0, 1.3):
        torch.testing.assert_close(
            op.align(projected, current, flow + shift), op(reference, current, flow + shift)
        )


@pytest.mark.parametrize("pixels", [1, 20, 60])
@pytest.mark.parametrize("padding_mode", ["border", "zeros"])
def test_strips_change_nothing(monkeypatch, pixels, padding_mode):
    op = ImplicitAlignment(16, num_heads=4, padding_mode=padding_mode)
    tensors = inputs()
    with torch.no_grad():
        expected = op(*tensors)
        monkeypatch.setattr("iart_plugin.ops.alignment_forms.STRIP_PIXELS", pixels)
        torch.testing.assert_close(op(*tensors), expected)
    assert op(*tensors).requires_grad


def test_decimal_is_taken_from_the_position():
    """frac(flow) differs from frac(position + flow) by float32 rounding far from the origin."""
    op = ImplicitAlignment(8, num_heads=2)
    reference, current, flow = inputs(1, 8, 2, 400)
    position_x = torch.arange(400.0) + flow[:, 0]
    expected_flow = torch.stack((position_x - torch.arange(400.0), flow[:, 1]), 1)
    exact = plain_alignment(op, reference, current, flow.clone())
    torch.testing.assert_close(op(reference, current, flow), exact, atol=2e-5, rtol=1e-4)
    assert not torch.equal(expected_flow, flow)  # the case does exercise the rounding


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e30, -1e30])
def test_wild_flow_never_crashes_and_stays_local(value):
    op = ImplicitAlignment(8, num_heads=2)
    reference, current, flow = inputs(1, 8, 5, 6, scale=0.5)
    wild = flow.clone()
    wild[0, 0, 2, 3] = value
    out, expected = op(reference, current, wild), op(reference, current, flow)
    others = torch.ones(5, 6, dtype=torch.bool)
    others[2, 3] = False
    assert torch.equal(out[..., others], expected[..., others])
    assert out.shape == expected.shape


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_opt_in_check_names_the_problem(value):
    op = ImplicitAlignment(8, num_heads=2, check_finite=True)
    reference, current, flow = inputs(1, 8, 5, 6)
    op(reference, current, flow)
    flow[0, 1, 0, 0] = value
    with pytest.raises(ValueError, match="flow has 1 NaN or infinite values of 60"):
        op(reference, current, flow)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.01), (torch.bfloat16, 0.06)])
def test_half_precision_features(dtype, tolerance):
    """Features and weights in half precision, positions in float32."""
    op = ImplicitAlignment(16, num_heads=4)
    reference, current, flow = inputs(h=12, w=40)
    expected = op(reference, current, flow)
    out = op.to(dtype)(reference.to(dtype), current.to(dtype), flow)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), expected, atol=tolerance, rtol=tolerance)


def test_autocast_keeps_positions_in_float32():
    """A position of 300.3 in bfloat16 is 300: the output would be that of another pixel."""
    op = ImplicitAlignment(16, num_heads=4)
    reference, current, flow = inputs(1, 16, 4, 320)
    expected = op(reference, current, flow)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = op(reference, current, flow)
    assert (out.float() - expected).square().mean().sqrt() < 0.01 * expected.std()


def test_compiles_without_graph_breaks():
    op = ImplicitAlignment(8, num_heads=2)
    tensors = inputs(1, 8, 6, 7)
    compiled = torch.compile(op, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*tensors), op(*tensors))


def test_exports_with_dynamic_sizes():
    op = ImplicitAlignment(8, num_heads=2).eval()
    h, w = torch.export.Dim("h", min=2, max=4096), torch.export.Dim("w", min=2, max=4096)
    sizes = {2: h, 3: w}
    exported = torch.export.export(
        op, inputs(1, 8, 6, 7), dynamic_shapes={"reference": sizes, "current": sizes, "flow": sizes}
    ).module()
    tensors = inputs(1, 8, 9, 11)
    torch.testing.assert_close(exported(*tensors), op(*tensors))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 7, "num_heads": 1}, "even"),
        ({"channels": 8, "num_heads": 3}, "divisible"),
        ({"channels": 8, "num_heads": 2, "window_size": 0}, "window_size"),
        ({"channels": 8, "num_heads": 2, "position_channels": 6}, "multiple of 4"),
        ({"channels": 8, "num_heads": 2, "position_channels": -4}, "multiple of 4"),
        ({"channels": 8, "num_heads": 2, "padding_mode": "reflection"}, "padding_mode"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ImplicitAlignment(**arguments)


def test_bad_shapes():
    op = ImplicitAlignment(8, num_heads=2)
    reference, current, flow = inputs(1, 8, 5, 6)
    with pytest.raises(ValueError, match="flow"):
        op(reference, current, flow[..., :-1])
    with pytest.raises(ValueError, match=r"\(n, 8, h, w\)"):
        op(reference[:, :4], current, flow)
    with pytest.raises(ValueError, match="do not match"):
        op(reference[..., :-1], current, flow)


def test_follows_its_device_and_has_only_three_layers():
    op = ImplicitAlignment(120, num_heads=6)
    assert sum(p.numel() for p in op.parameters()) == 3 * (120 * 120 + 120)
    assert set(op.state_dict()) == {f"{n}.{k}" for n in "qkv" for k in ("weight", "bias")}
    meta = op.to("meta")
    out = meta(*(t.to("meta") for t in inputs(1, 120, 5, 6)))
    assert out.device.type == "meta"


@pytest.mark.parametrize(
    "options", [{}, {"window_size": 3}, {"encode_window": False}, {"position_channels": 12}]
)
def test_switched_off_it_gives_the_same(options):
    torch.manual_seed(0)
    op = ImplicitAlignment(8, num_heads=2, **options).double()
    reference, current = torch.randn(2, 2, 8, 5, 7, dtype=torch.float64)
    flow = torch.randn(2, 2, 5, 7, dtype=torch.float64) * 3
    expected = op(reference, current, flow)
    with fused(False):
        torch.testing.assert_close(op(reference, current, flow), expected)

"""The implicit alignment's kernel against the equations, in values and gradients."""

import pytest
import torch

from iart_plugin.fused import fused
from iart_plugin.kernels import availability
from iart_plugin.kernels import implicit_alignment as kernels
from iart_plugin.kernels.availability import KernelWarning, failures
from iart_plugin.ops import ImplicitAlignment
from iart_plugin.ops.alignment_operator import implicit_alignment
from tests.kernels.harness import (
    DEVICE,
    DTYPES,
    assert_agrees,
    assert_kernels_run,
    gradients,
)

OPTIONS = [
    {},
    {"window_size": 1},
    {"window_size": 3},
    {"window_size": 4},
    {"encode_window": False},
    {"encode_decimal": False},
    {"encode_window": False, "encode_decimal": False},
    {"position_channels": 12},
    {"padding_mode": "zeros"},
    {"padding_mode": "zeros", "position_channels": 4, "window_size": 3},
]


@pytest.fixture(autouse=True)
def _kernels_run():
    """What is compared with the reference is the kernel, from the first test to the last."""
    assert_kernels_run()
    yield
    assert not failures()


def inputs(n=2, c=16, h=7, w=9, *, scale=3.0, dtype=torch.float32):
    """Reference, current and flow; decimals kept off 0 and 1, where the window jumps."""
    flow = (torch.randn(n, 2, h, w) * scale).floor() + 0.1 + 0.8 * torch.rand(n, 2, h, w)
    features = (torch.randn(n, c, h, w).to(DEVICE, dtype) for _ in range(2))
    return (*features, flow.to(DEVICE))


def operator(channels=16, num_heads=2, **options):
    return ImplicitAlignment(channels, num_heads=num_heads, **options).to(DEVICE)


def all_gradients(op, tensors):
    """Output and gradients of inputs and weights; of the keys' bias, which has none, not."""
    names = [name for name, _ in op.named_parameters() if name != "k.bias"]
    weights = [dict(op.named_parameters())[name] for name in names]

    def compute(reference, current, flow, *weights):
        named = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(op, named, (reference, current, flow))

    return gradients(compute, (*tensors, *weights))


def assert_equals_the_equations(op, tensors):
    actual = all_gradients(op, tensors)
    with fused(False):
        expected = all_gradients(op, tensors)
    for ours, theirs in zip(actual, expected, strict=True):
        assert_agrees(ours, theirs)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options(options):
    op = operator(**options)
    tensors = inputs()
    if op.encode_decimal:
        assert_equals_the_equations(op, tensors)
        return
    # Then the flow has no gradient.
    flow = tensors[2]
    actual = gradients(lambda *features: op(*features, flow), tensors[:2])
    with fused(False):
        expected = gradients(lambda *features: op(*features, flow), tensors[:2])
    for ours, theirs in zip(actual, expected, strict=True):
        assert_agrees(ours, theirs)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (6, 1), (3, 25), (8, 9)])
def test_sizes(size):
    assert_equals_the_equations(operator(), inputs(h=size[0], w=size[1]))


@pytest.mark.parametrize(
    ("channels", "num_heads"), [(120, 6), (64, 8), (60, 6), (12, 12), (40, 1), (8, 2), (2, 1)]
)
def test_widths(channels, num_heads):
    assert_equals_the_equations(operator(channels, num_heads), inputs(1, channels, 4, 9))


def test_other_layouts_of_memory():
    op = operator()
    reference, current, flow = inputs()
    last = current.to(memory_format=torch.channels_last)
    strided = torch.randn(2, 16, 7, 18, device=DEVICE)[..., ::2].copy_(current)
    apart = torch.randn(2, 16, 14, 9, device=DEVICE)[:, :, ::2].copy_(current)
    flipped = flow.flip(1).contiguous().flip(1)
    for same in (last, strided, apart):
        assert_equals_the_equations(op, (reference, same, flipped))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e30, -1e30, 77.5])
@pytest.mark.parametrize("padding_mode", ["border", "zeros"])
def test_wild_flow(value, padding_mode):
    op = operator(padding_mode=padding_mode)
    reference, current, flow = inputs(1)
    flow[0, 0, 2, 3] = value
    flow[0, 1, 4, 5] = value
    out = op(reference, current, flow)
    with fused(False):
        expected = op(reference, current, flow)
    assert torch.equal(out.isnan(), expected.isnan())
    assert_agrees(out, expected)


def test_far_flow_and_its_gradients():
    assert_equals_the_equations(operator(padding_mode="zeros"), inputs(scale=300.0))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes(dtype):
    op, tensors = operator(), inputs(dtype=dtype)
    with fused(False):
        expected = all_gradients(op.float(), [x.float() for x in tensors])
    actual = all_gradients(op.to(dtype), tensors)
    assert actual[0].dtype == dtype
    for ours, theirs in zip(actual, expected, strict=True):
        assert_agrees(ours, theirs, dtype)


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_autocast_keeps_positions_in_float32(dtype):
    op = operator()
    tensors = inputs(1, 16, 4, 320)
    with fused(False):
        expected = all_gradients(op, tensors)
    with torch.autocast(DEVICE, dtype=dtype):
        actual = all_gradients(op, tensors)
    assert actual[0].dtype == dtype
    for ours, theirs in zip(actual, expected, strict=True):
        assert_agrees(ours, theirs, dtype)


def test_one_projection_serves_two_alignments():
    op = operator()
    reference, current, flow = inputs()

    def compute(reference, current, flow):
        projected = op.project_reference(reference)
        return op.align(projected, current, flow) * op.align(projected, current, -flow)

    with fused(False):
        expected = gradients(compute, (reference, current, flow))
    for ours, theirs in zip(gradients(compute, (reference, current, flow)), expected, strict=True):
        assert_agrees(ours, theirs)


def arguments(c=8, extra=4, heads=2, window=2):
    new = torch.randn
    tensors = (
        new(2, 4 * 5, 2 * c),
        new(2, c, 4, 5),
        3 * new(2, 2, 4, 5),
        new(c, c + extra),
        new(c),
        new(window**2, 2 * c),
        new(2 * c),
    )
    tensors = [x.to(DEVICE).requires_grad_() for x in tensors]
    return (*tensors, torch.rand(c + extra, device=DEVICE) + 0.5, heads, window)


def test_it_is_a_sound_operator():
    """PyTorch's own checks: schema, fake implementation, gradients under tracing."""
    torch.library.opcheck(implicit_alignment, arguments(), raise_exception=True)
    torch.library.opcheck(
        implicit_alignment, (*arguments()[:5], None, None, None, 2, 2), raise_exception=True
    )


def test_compiles_without_graph_breaks():
    op, tensors = operator(), inputs(1, 16, 6, 7)
    compiled = torch.compile(op, fullgraph=True, backend="aot_eager")
    for ours, theirs in zip(gradients(compiled, tensors), gradients(op, tensors), strict=True):
        assert_agrees(ours, theirs)


def test_exports():
    op, tensors = operator().eval(), inputs(1, 16, 6, 7)
    program = torch.export.export(op, tensors)
    assert any("implicit_alignment" in str(node.target) for node in program.graph.nodes)
    assert_agrees(program.module()(*tensors), op(*tensors))


def test_activation_checkpointing():
    op, tensors = operator(), inputs(1, 16, 6, 7)

    def again(*tensors):
        return torch.utils.checkpoint.checkpoint(op, *tensors, use_reentrant=False)

    for ours, theirs in zip(gradients(again, tensors), gradients(op, tensors), strict=True):
        assert_agrees(ours, theirs)


def test_where_the_kernels_fail_the_equations_compute(monkeypatch):
    def broken(*_):
        raise RuntimeError("no such instruction")

    op, tensors = operator(), inputs()
    expected = gradients(op, tensors)
    monkeypatch.setattr(availability, "_failures", {})
    availability._warn_once.cache_clear()
    for name in ("align", "align_backward"):
        monkeypatch.setattr(f"iart_plugin.kernels.implicit_alignment.{name}", broken)
    with pytest.warns(KernelWarning, match="no such instruction") as caught:
        actual = gradients(op, tensors)
    assert len(caught) == len(failures()) == 2
    for ours, theirs in zip(actual, expected, strict=True):
        assert_agrees(ours, theirs)
    monkeypatch.undo()


def test_a_flow_at_rest_gets_no_gradient(monkeypatch):
    """SPyNet's weights rest at first; the other gradients stay the same."""
    op, (reference, current, flow) = operator(), inputs(1, 16, 4, 5)
    *expected, _ = gradients(op, (reference, current, flow))
    asked, launch = [], kernels.align_backward
    monkeypatch.setattr(kernels, "align_backward", lambda *x: asked.append(x[-1]) or launch(*x))
    actual = gradients(lambda *features: op(*features, flow), (reference, current))
    assert asked == [False]
    for ours, theirs in zip(actual, expected, strict=True):
        assert_agrees(ours, theirs)


def test_deterministic_algorithms_get_the_equations_gradients(monkeypatch):
    op, tensors = operator(), inputs(1, 16, 4, 5)
    expected = gradients(op, tensors)
    monkeypatch.setattr(kernels, "align_backward", None)
    availability._warn_once.cache_clear()
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.warns(KernelWarning, match="deterministic") as caught:
            actual = gradients(op, tensors)
            gradients(op, tensors)
    finally:
        torch.use_deterministic_algorithms(False)
    assert len(caught) == 1
    for ours, theirs in zip(actual, expected, strict=True):
        assert_agrees(ours, theirs)


@pytest.mark.filterwarnings("ignore::iart_plugin.kernels.availability.KernelWarning")
def test_a_flow_in_float64_is_aligned_by_the_equations(monkeypatch):
    monkeypatch.setattr(kernels, "align", None)
    op, (reference, current, flow) = operator(), inputs(1, 16, 4, 5)
    out = op(reference, current, flow.double())
    with fused(False):
        assert torch.equal(out, op(reference, current, flow.double()))

"""The block's kernels against the reference form, in values and gradients."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from iart_plugin.archs.mfsab import MFSABBackbone
from iart_plugin.fused import fused
from iart_plugin.kernels import availability, mfsab
from iart_plugin.kernels.availability import KernelWarning, failures
from iart_plugin.kernels.mfsab_sizes import BlockWeights, pack
from iart_plugin.ops.mfsab import Windows, reference_block
from iart_plugin.ops.mfsab_operator import kernel_block
from tests.blocks import random_block
from tests.kernels.harness import DEVICE, DTYPES, assert_agrees, assert_kernels_run, gradients

CASES = {
    "whole windows": {"size": (1, 2, 8, 8), "shift": False},
    "rolled, padded, two clips": {"size": (2, 2, 5, 9), "shift": True, "scaled": True},
    "one frame wanted": {"size": (2, 3, 5, 4), "shift": True, "frame": 1, "scaled": True},
    "the first frame wanted": {"size": (1, 2, 4, 5), "shift": False, "frame": 0},
    "one pixel": {"size": (1, 1, 1, 1), "shift": True},
    "odd widths": {"size": (1, 1, 4, 7), "shift": True, "window": (3, 5), "channels": 10},
    "the released window": {"size": (1, 3, 8, 7), "shift": True, "window": (8, 8), "frame": 1},
}


@pytest.fixture(autouse=True)
def _kernels_run():
    """What is compared with the reference is the kernel, from the first test to the last."""
    assert_kernels_run()
    yield
    assert not failures()


def block(size, *, shift, frame=None, scaled=False, window=(4, 4), channels=12, heads=2):
    """The tensors of a block, and what else its forms take."""
    x, weights, scales = random_block(
        *size, channels=channels, heads=heads, window=window, device=DEVICE
    )
    return [x, *weights], (Windows(window, shift), frame, scales if scaled else None)


def compute(form, options):
    """A form as a function of tensors; the kernels' weights are packed as networks do it."""

    def run(x, *weights):
        weights = BlockWeights(*weights)
        if form is kernel_block:
            weights = pack(weights, weights.bias.dtype)
        return form(x, weights, *options)

    return run


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_equals_the_reference(case):
    tensors, options = block(**case)
    expected = gradients(compute(reference_block, options), tensors)
    for ours, wanted in zip(
        gradients(compute(kernel_block, options), tensors), expected, strict=True
    ):
        assert_agrees(ours, wanted)


@pytest.mark.parametrize("stream", ["full", "half"])
@pytest.mark.parametrize("dtype", [d for d in DTYPES if d != torch.float32])
def test_half_precision(dtype, stream):
    tensors, options = block((1, 2, 5, 4), shift=True, scaled=True)
    expected = gradients(compute(reference_block, options), tensors)
    half = [x.to(dtype) if x.dim() in (2, 3) or stream == "half" else x for x in tensors]
    found = gradients(compute(kernel_block, options), half)
    assert found[0].dtype == half[0].dtype
    for ours, wanted in zip(found, expected, strict=True):
        assert_agrees(ours, wanted, dtype)


def test_autocast_does_not_reach_the_gradients():
    tensors, options = block((1, 1, 3, 4), shift=False)
    expected = gradients(compute(kernel_block, options), tensors)
    with torch.autocast(DEVICE, dtype=torch.float16):
        found = gradients(compute(kernel_block, options), tensors)
    for ours, wanted in zip(found, expected, strict=True):
        assert torch.equal(ours, wanted)


def test_padding_may_hold_anything_but_reach_no_one():
    """Large biases make the padding's keys loud; they still count as the reference counts them."""
    tensors, options = block((1, 1, 3, 3), shift=False)
    tensors[8] = tensors[8] * 20  # of queries, keys and values
    out = compute(kernel_block, options)(*tensors)
    assert_agrees(out, compute(reference_block, options)(*tensors))


def test_results_repeat_exactly():
    tensors, options = block((1, 1, 5, 4), shift=True)
    first, second = (gradients(compute(kernel_block, options), tensors) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_backbone_uses_them():
    """Compiled, checkpointed and in half precision as well."""
    torch.manual_seed(0)
    options = {"depths": (2, 1), "num_heads": (2, 1), "window_size": (2, 4, 4)}
    network = MFSABBackbone(8, **options, use_checkpoint=True).to(DEVICE).eval()
    x = torch.randn(1, 2, 8, 5, 4, device=DEVICE)
    weight = network.layers[0].residual_group.blocks[1].attn.relative_position_bias_table
    found = []
    for is_fused in (False, True):
        with fused(is_fused):
            out = network(x)
            found.append((out.detach(), *torch.autograd.grad(out.square().mean(), weight)))
    assert not torch.equal(found[0][0], found[1][0])  # another form did compute
    for ours, wanted in zip(*reversed(found), strict=True):
        assert_agrees(ours, wanted)
    with torch.no_grad():
        compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
        assert_agrees(compiled(x), found[0][0])
        with torch.autocast(DEVICE, dtype=torch.float16):
            half = network(x)
    assert half.dtype == torch.float32
    assert_agrees(half, found[0][0], torch.float16)


def test_it_is_a_sound_operator():
    """PyTorch's own checks: schema, fake implementation, gradients under tracing."""
    (x, *weights), (windows, *_) = block((1, 1, 3, 4), shift=True)
    matrices, vectors, *sizes = pack(BlockWeights(*weights), x.dtype)
    tensors = [tensor.detach().requires_grad_() for tensor in (x, matrices, vectors)]
    operator = torch.ops.iart_plugin.mfsab_block.default
    arguments = (*tensors, None, *sizes, list(windows.size), windows.shift, -1)
    torch.library.opcheck(operator, arguments, raise_exception=True)


def test_compilers_and_checkpoints_pass_through():
    tensors, options = block((1, 1, 3, 4), shift=True)
    form = compute(kernel_block, options)
    expected = gradients(form, tensors)
    compiled = torch.compile(form, fullgraph=True, backend="aot_eager")
    again = [compiled, lambda *parts: checkpoint(form, *parts, use_reentrant=False)]
    for other in again:
        for ours, wanted in zip(gradients(other, tensors), expected, strict=True):
            assert_agrees(ours, wanted)


@pytest.mark.parametrize("broken", ["forward", "backward"])
def test_the_reference_takes_a_failing_kernels_place(broken, monkeypatch):
    monkeypatch.setattr(availability, "_failures", {})
    availability._warn_once.cache_clear()
    tensors, options = block((1, 2, 3, 4), shift=True, frame=1)
    expected = gradients(compute(reference_block, options), tensors)

    def fail(*_):
        raise RuntimeError("PassManager::run failed")

    with monkeypatch.context() as patch, pytest.warns(KernelWarning, match="PassManager") as caught:
        patch.setattr(mfsab, broken, fail)
        found = gradients(compute(kernel_block, options), tensors)
        gradients(compute(kernel_block, options), tensors)
    assert len(caught) == 1
    for ours, wanted in zip(found, expected, strict=True):
        assert_agrees(ours, wanted)
    monkeypatch.setattr(availability, "_failures", {})


def test_a_backbone_is_exported_with_them():
    torch.manual_seed(0)
    options = {"depths": (2,), "num_heads": (2,), "window_size": (2, 4, 4)}
    network = MFSABBackbone(8, **options).to(DEVICE).eval()
    x = torch.randn(1, 2, 8, 5, 4, device=DEVICE)
    with torch.no_grad():
        program = torch.export.export(network, (x,))
        assert sum("mfsab_block" in str(node.target) for node in program.graph.nodes) == 2
        assert_agrees(program.module()(x), network(x))

"""What the tests of every kernel share: where they run, and how they compare with a reference."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from iart_plugin.kernels.availability import is_interpreted, reason_against

DEVICE = "cuda" if torch.cuda.is_available() else "cpu" if is_interpreted() else None
"""Where kernels can run in this process; None where they cannot."""

TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
"""The largest error for each dtype, relative to the largest value of the result."""

DTYPES = tuple(dtype for dtype in TOLERANCE if DEVICE == "cuda" or dtype != torch.bfloat16)
"""What kernels are tested in; in Triton's interpreter, ``tl.dot`` multiplies bfloat16's bits."""


def assert_kernels_run() -> None:
    """Fails where the tests would compare the reference form with itself."""
    for dtype in DTYPES:
        assert reason_against(torch.device(DEVICE), dtype) is None


def assert_agrees(actual: Tensor, expected: Tensor, dtype: torch.dtype = torch.float32) -> None:
    """Compares values with a reference computed in float32 or wider; NaN equals NaN.

    Args:
        actual: what a kernel gave.
        expected: what the reference gave.
        dtype: what the kernel computed in, which decides the tolerance.
    """
    assert actual.shape == expected.shape
    expected = expected.to(actual.dtype if actual.dtype == torch.float64 else torch.float32)
    largest = expected.nan_to_num(0, 0, 0).abs().amax().item() if expected.numel() else 0.0
    torch.testing.assert_close(
        actual.to(expected.dtype),
        expected,
        rtol=0,
        atol=TOLERANCE[dtype] * max(largest, 1e-3),
        equal_nan=True,
    )


def gradients(compute: Callable[..., Tensor], inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Returns the output and the gradients of all inputs, for one and the same output gradient."""
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    output = compute(*inputs)
    generator = torch.Generator().manual_seed(1)
    grad = torch.randn(output.shape, generator=generator).to(output)
    return (output.detach(), *torch.autograd.grad(output, inputs, grad))

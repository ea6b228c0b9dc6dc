"""Runs the fused forms beside the reference forms on this machine and compares them.

Each case builds an operation or a network with random weights from a fixed seed. The case is
computed by the reference forms in float32 and by the fused forms. The fused forms include the GPU
kernels if there is a GPU that supports them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from iart_plugin.archs import IACNN, IART
from iart_plugin.fused import fused
from iart_plugin.ops import ImplicitAlignment

TOLERANCE = {torch.float32: 2e-3, torch.float16: 2e-2, torch.bfloat16: 6e-2}
"""The largest allowed error, relative to the largest value; float32 may be TF32 on GPUs."""


@dataclass(frozen=True)
class Case:
    """One comparison of the fused forms with the reference forms.

    Attributes:
        name: The name that is printed.
        module: A function that builds the module.
        inputs: A function that makes the module's inputs.
        backward: Whether to compare the gradients of inputs and weights instead of the outputs.
    """

    name: str
    module: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Tensor, ...]]
    backward: bool = False


@dataclass(frozen=True)
class Result:
    """The result of a case in one precision.

    Attributes:
        name: The case's name.
        dtype: Precision of the fused forms.
        error: Largest difference over the largest value; infinite if anything is not finite.
        seconds: Seconds that the fused forms took.
        reference_seconds: Seconds that the reference forms took, in float32.
        failure: The error that the fused forms raised, in one line; None if they ran.
    """

    name: str
    dtype: torch.dtype
    error: float
    seconds: float
    reference_seconds: float
    failure: str | None = None

    @property
    def agrees(self) -> bool:
        """Whether both forms computed the same values, except for rounding."""
        return self.failure is None and self.error <= TOLERANCE[self.dtype]


def _alignment_inputs() -> tuple[Tensor, ...]:
    features = torch.randn(2, 1, 64, 45, 80).unbind()
    return (*features, torch.randn(1, 2, 45, 80) * 4)


def _clip() -> tuple[Tensor, ...]:
    return (torch.rand(1, 2, 3, 20, 36),)


LOSS_SCALE = 2.0**14
"""What the loss is multiplied by before its gradients are taken, and they are divided by."""

CASES = (
    *(
        Case(
            f"implicit alignment, window {size}{', backward' if backward else ''}",
            lambda size=size: ImplicitAlignment(64, num_heads=8, window_size=size),
            _alignment_inputs,
            backward,
        )
        for size in (2, 3)
        for backward in (False, True)
    ),
    *(
        Case(
            f"IA-RT, 2 blocks a branch{', backward' if backward else ''}",
            lambda: IART(depths=(2,), num_heads=(6,)),
            _clip,
            backward,
        )
        for backward in (False, True)
    ),
    Case("IA-CNN, 4 residual blocks a branch", lambda: IACNN(num_block=4), _clip),
)
"""The cases of the doctor. Odd sizes make windows need padding; forward and backward are tried."""


def run_checks(device: torch.device, cases: tuple[Case, ...] = CASES) -> Iterator[Result]:
    """Compare every case in every precision that is used on the device.

    Args:
        device: The device to compute on.
        cases: The cases to compare.
    """
    dtypes = [torch.float32]
    if device.type == "cuda":
        dtypes += [torch.float16, torch.bfloat16]
    for case in cases:
        yield from _check(case, device, dtypes)


def _check(case: Case, device: torch.device, dtypes: list[torch.dtype]) -> Iterator[Result]:
    torch.manual_seed(0)
    module = case.module().to(device).eval()
    inputs = tuple(x.to(device) for x in case.inputs())
    with fused(False):
        expected, reference_seconds = _compute(case, module, inputs, torch.float32)
    for dtype in dtypes:
        try:
            with fused(True):
                found, seconds = _compute(case, module, inputs, dtype)
        except Exception as error:  # a compiler or a driver may raise anything; the doctor says so
            line = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            yield Result(case.name, dtype, math.inf, 0.0, reference_seconds, line)
            continue
        error = _largest_error(found, expected)
        yield Result(case.name, dtype, error, seconds, reference_seconds)


def _compute(
    case: Case, module: nn.Module, inputs: tuple[Tensor, ...], dtype: torch.dtype
) -> tuple[list[Tensor], float]:
    """The outputs or gradients, and the time of a second pass, because the first one compiles."""
    device = inputs[0].device
    half = dtype is not torch.float32
    run = _gradients if case.backward else _outputs
    for _ in range(2):
        started = time.perf_counter()
        with torch.autocast(device.type, dtype=dtype) if half else nullcontext():
            results = run(module, inputs)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - started
    return results, seconds


def _outputs(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    with torch.no_grad():
        return [module(*inputs)]


def _gradients(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """The gradients of the mean of the squared outputs, which depends on every output's value.

    The loss is scaled as in training with mixed precision: a mean over so many values has gradients
    that are too small for float16.
    """
    leaves = [x.detach().requires_grad_() for x in inputs]
    wanted = [*leaves, *(p for p in module.parameters() if p.requires_grad)]
    loss = LOSS_SCALE * module(*leaves).float().square().mean()
    found = torch.autograd.grad(loss, wanted, allow_unused=True)
    return [gradient.float() / LOSS_SCALE for gradient in found if gradient is not None]


def _largest_error(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest error of any tensor relative to its largest value.

    Some gradients are zero except for rounding, such as the gradient of the keys' bias before a
    softmax. So each error is divided by at least a thousandth of the largest value in all tensors.
    """
    peaks = [x.double().abs().max().item() for x in expected]
    floor = max(1e-3 * max(peaks), 1e-12)
    differences = (
        (a.double() - b.double()).abs().max().item() for a, b in zip(found, expected, strict=True)
    )
    errors = [
        difference / max(peak, floor) for difference, peak in zip(differences, peaks, strict=True)
    ]
    return max(errors) if all(map(math.isfinite, errors)) else math.inf

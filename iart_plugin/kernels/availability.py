"""Decides whether the fused kernels can be used, and replaces those that fail.

A network calls :func:`uses_kernel` with the device and dtypes that a kernel would get. If the
answer is no, it uses another form. Each operator runs its kernel through :func:`attempt`. If Triton
cannot compile or launch a kernel, the reference form replaces it, with one warning.
"""

import importlib.util
import os
import re
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from iart_plugin.fused import VARIABLE, is_fused
from iart_plugin.out_of_memory import is_out_of_memory

T = TypeVar("T")

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
"""The dtypes that the kernels are written for."""

CAPABILITY = (8, 0)
"""The oldest NVIDIA architecture that the kernels are written for: Ampere."""

TRITON = (3, 3)
"""The oldest Triton that compiles every kernel, which comes with PyTorch 2.7. Version 3.2 ends the
whole process when it compiles a backward kernel, so this cannot be left to :func:`attempt`."""


class Kernel(NamedTuple):
    """A kernel as it is compiled for a dtype and a width; each may fail by itself."""

    name: str
    dtype: torch.dtype
    channels: int

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.name} in {dtype} with {self.channels} channels"


_failures: dict[Kernel, str] = {}
"""What went wrong, for each kernel that failed in this process."""


class KernelWarning(UserWarning):
    """The warning that says why a reference form is used instead of a fused kernel."""


def uses_kernel(device: torch.device, *dtypes: torch.dtype) -> bool:
    """Whether a fused kernel computes on tensors there; on a GPU, warns once if none can.

    Args:
        device: where the tensors are that the kernel would get.
        *dtypes: the dtypes in which it would get them.
    """
    return is_fused() and all(_is_usable(device, dtype) for dtype in dtypes)


def reason_against(device: torch.device, dtype: torch.dtype = torch.float32) -> str | None:
    """Says why no fused kernel computes on tensors of this device and dtype; None if one does."""
    if not is_fused():
        return f"the fused forms are switched off, by {VARIABLE}=0 or set_fused(False)"
    return _obstacle(device, dtype)


def failures() -> dict[str, str]:
    """Returns the kernels that failed in this process, each with the first line of its error."""
    return {str(kernel): failure for kernel, failure in _failures.items()}


def is_interpreted() -> bool:
    """Whether Triton interprets kernels on the CPU, which is slow and meant for tests."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "y", "yes")


def _is_usable(device: torch.device, dtype: torch.dtype) -> bool:
    obstacle = _obstacle(device, dtype)
    if obstacle is not None and device.type == "cuda":
        _warn_once(f"The fused kernels are not used: {obstacle}. The reference form is used.")
    return obstacle is None


# What torch.compiler.assume_constant_result does, without importing the compiler for seconds.
_is_usable._dynamo_marked_constant = True


@cache
def _obstacle(device: torch.device, dtype: torch.dtype) -> str | None:
    """The part of :func:`reason_against` that does not change during a process."""
    if device.type == "cpu" and not is_interpreted():
        return "the fused kernels are for NVIDIA GPUs, and the device is a CPU"
    if device.type not in ("cuda", "cpu") or torch.version.hip is not None:
        name = "an AMD GPU" if torch.version.hip is not None else device.type
        return f"the fused kernels are for NVIDIA GPUs, and the device is {name}"
    if device.type == "cuda" and (found := torch.cuda.get_device_capability(device)) < CAPABILITY:
        name = torch.cuda.get_device_name(device)
        found, wanted = (f"{major}.{minor}" for major, minor in (found, CAPABILITY))
        return f"{name} has compute capability {found}, and the fused kernels need {wanted}"
    if dtype not in DTYPES:
        names = ", ".join(str(known).removeprefix("torch.") for known in DTYPES)
        return f"the fused kernels compute in {names}, not in {str(dtype).removeprefix('torch.')}"
    return _obstacle_of_triton()


def _obstacle_of_triton() -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed (on Windows: pip install triton-windows)"
    try:
        import triton
    except Exception as error:  # a broken installation may raise anything
        return f"Triton cannot be imported: {_first_line(error)}"
    found = tuple(int(part) for part in re.findall(r"\d+", triton.__version__)[:2])
    if found < TRITON:
        oldest = ".".join(map(str, TRITON))
        return (
            f"Triton {triton.__version__} is too old for the fused kernels, which need {oldest}; "
            "update PyTorch to 2.7 or newer"
        )
    return None


def attempt(kernel: Kernel, launch: Callable[[], T], reference: Callable[[], T]) -> T:
    """Runs a kernel; if it fails, uses the reference form for this call and all later ones.

    Other dtypes and widths of the kernel are not affected.

    Args:
        kernel: what is run, for the warning and for :func:`failures`.
        launch: starts the kernel and returns its results.
        reference: computes the same results without it.

    Raises:
        Exception: the error of ``launch``, if it says that memory ran out.
    """
    if kernel in _failures:
        return reference()
    try:
        return launch()
    except Exception as error:  # Triton, its compiler and its driver raise all kinds
        if is_out_of_memory(error):
            raise
        _failures[kernel] = _first_line(error)
    _warn_once(
        f"The fused kernel '{kernel}' failed, and the reference form is used from now on: "
        f"{_failures[kernel]}. {VARIABLE}=0 turns all fused forms off."
    )
    return reference()


def reference_gradients(
    reference: Callable[..., Tensor], inputs: Sequence[Tensor | None], grad: Tensor
) -> list[Tensor | None]:
    """Computes with autograd the gradients that a kernel's backward pass would return.

    Args:
        reference: computes the operator's output from ``inputs``.
        inputs: the operator's tensors; None for one that is not given.
        grad: the gradient of the output.

    Returns:
        The gradient of each input; None for those that have no gradient.
    """
    with torch.enable_grad():
        leaves = [
            x.detach().requires_grad_() if x is not None and x.is_floating_point() else x
            for x in inputs
        ]
        output = reference(*leaves)
    wanted = [x for x in leaves if x is not None and x.requires_grad]
    found = iter(torch.autograd.grad(output, wanted, grad, allow_unused=True))
    return [next(found) if x is not None and x.requires_grad else None for x in leaves]


def avoids_atomics(kernel: Kernel) -> bool:
    """Whether sums must not be added up in any order, as a kernel with atomics does; warns once.

    ``torch.use_deterministic_algorithms`` asks for this.
    """
    if not torch.are_deterministic_algorithms_enabled():
        return False
    _warn_once(
        f"The fused kernel '{kernel}' is not used: it adds in any order, and deterministic "
        f"algorithms are asked for. The reference form is used."
    )
    return True


@cache
def _warn_once(message: str) -> None:
    warnings.warn(message, KernelWarning, stacklevel=2)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:200]}" if text else repr(error)

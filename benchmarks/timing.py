"""Times work on a GPU in both forms, with its peak memory."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor, nn

from iart_plugin.fused import fused
from iart_plugin.out_of_memory import is_out_of_memory

REPEATS = 3
LOOPS = 20
"""How often in a row a piece of work is done that takes less than a millisecond."""


class Row(NamedTuple):
    """A row of the table: milliseconds and peak GiB of both forms; NaN where memory ran out."""

    name: str
    goal: str
    reference_ms: float
    ms: float
    reference_gib: float
    gib: float
    note: str = ""


def median_ms(
    work: Callable[[], object], device: torch.device, loops: int = 1
) -> tuple[float, float]:
    """Measures the milliseconds that ``work`` takes, and its additional peak memory in GiB.

    Both are NaN if memory runs out.

    Args:
        work: what is measured.
        device: where it works.
        loops: how often it is done in a row, which hides the time until a GPU starts and ends.
    """
    try:
        return _median_ms(work, device, loops)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    if device.type == "cuda":  # not in the except block: there the traceback keeps tensors alive
        torch.cuda.empty_cache()
    return math.nan, math.nan


def _median_ms(work: Callable[[], object], device: torch.device, loops: int) -> tuple[float, float]:
    work()
    is_gpu = device.type == "cuda"
    if is_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        for _ in range(loops):
            work()
        if is_gpu:
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - started) / loops)
    peak = (torch.cuda.max_memory_allocated() - before) / 2**30 if is_gpu else math.nan
    return median(times), peak


def both(
    name: str,
    goal: str,
    work: Callable[[], object],
    device: torch.device,
    *,
    units: int = 1,
    loops: int = 1,
) -> Row:
    """Measures ``work`` in both forms; times are divided by ``units``, such as its frames."""
    with fused(False):
        reference, reference_gib = median_ms(work, device, loops)
    ms, gib = median_ms(work, device, loops)
    return Row(name, goal, reference / units, ms / units, reference_gib, gib)


@contextmanager
def precision(kind: str, device: torch.device) -> Iterator[None]:
    """The context in which work is done in 'float32', 'TF32', 'float16' or 'bfloat16'.

    Beside half precision, what stays in float32 has PyTorch's defaults: convolutions take TF32, and
    matrix products do not.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32, cudnn.allow_tf32 = kind == "TF32", kind != "float32"
    half = {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(kind)
    try:
        with torch.autocast(device.type, half) if half else nullcontext():
            yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def prepared(network: nn.Module, device: torch.device) -> nn.Module:
    """Moves a network to the device, in evaluation mode and with channels-last weights."""
    return network.eval().to(device).to(memory_format=torch.channels_last)


def noise(*shape: int, device: torch.device) -> Tensor:
    """Returns the same random numbers in [0, 1) every time."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)).to(device)

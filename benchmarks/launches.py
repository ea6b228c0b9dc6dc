"""Counts what a GPU would be asked to do, on a machine without one.

    python -m benchmarks.launches [--only TEXT]

Every network runs with tensors that have sizes and the device 'cuda', but no data. This counts the
operations that start a kernel, the bytes that they read and write, and the peak of the bytes in use
beside the weights. An operation for which PyTorch starts several kernels counts once, and memory
that a library allocates while it works is not counted. A training step is counted with the device
'cpu' and a GPU's forms, because PyTorch's engine for backward passes needs a driver. Prints a table
of the fast and the reference forms, with numbers per frame.
"""

import argparse
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from iart_plugin.archs import IACNN, IART
from iart_plugin.flow import SPyNet, clip_flows
from iart_plugin.fused import fused
from iart_plugin.kernels import availability
from iart_plugin.ops import ImplicitAlignment, constants

NOTHING = ("aten.empty", "aten.new_empty", "aten.lift_fresh")
"""Operations that give new tensors and start no kernel."""


class Count(NamedTuple):
    """Kernel launches, bytes moved, the peak of bytes in use, and launches by operation."""

    launches: int
    moved: int
    peak: int
    names: Counter

    def line(self, frames: int) -> str:
        """Returns a table's cells: launches and GB moved per frame, and the peak in GiB."""
        moved = f"{self.moved / frames / 1e9:.2f}"
        return f"{self.launches / frames:.0f} | {moved} | {self.peak / 2**30:.2f}"


class Counting(TorchDispatchMode):
    """Counts operations, except for views and for allocations, which start nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter = Counter()
        self.moved = self.alive = self.peak = 0
        self._storages: set[int] = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None) -> Any:
        out = operation(*args, **(kwargs or {}))
        given, made = (_tensors(x) for x in ((args, kwargs), out))
        fresh = [x for x in made if self._is_new(x)]
        is_mutating = operation._schema.is_mutable
        if (fresh or is_mutating) and not str(operation).startswith(NOTHING):
            self.names[str(operation)] += 1
            touched = {id(x): x.nbytes for x in (*given, *(made if is_mutating else fresh))}
            self.moved += sum(touched.values())
        return out

    def _is_new(self, x: Tensor) -> bool:
        """Whether a tensor's memory was not there before; follows it until it is freed."""
        storage = x.untyped_storage()
        key = storage._cdata
        if key in self._storages:
            return False
        self._storages.add(key)
        size = storage.nbytes()
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._freed, key, size)
        return True

    def _freed(self, key: int, size: int) -> None:
        self._storages.discard(key)
        self.alive -= size


def _tensors(x: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(x) if isinstance(leaf, Tensor)]


def count(
    build: Callable[[], nn.Module],
    work: Callable[[nn.Module], object],
    half: bool,
    device: str = "cuda",
) -> Count:
    """Counts ``work(build())`` on a GPU that does not exist, under float16's autocast if ``half``.

    The work is done once before, so that constants are there.
    """
    network = build().to(memory_format=torch.channels_last)
    is_usable = mock.patch.object(
        availability, "_is_usable", lambda device, dtype: dtype in availability.DTYPES
    )
    has_autocast = mock.patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    no_mirror = mock.patch("iart_plugin.flow.spynet.mirror_check", lambda clip: lambda: False)
    # On a GPU, warping does not look for NaN in the flow.
    no_search = mock.patch("iart_plugin.ops.warp.is_traced", lambda x: True)
    no_cudnn = torch.backends.cudnn.flags(enabled=False)  # its grid_sample has no shapes to give
    keeps = mock.patch.multiple(constants, _kept={}, Tensor=FakeTensor)
    with (
        keeps,
        FakeTensorMode(),
        torch.device(device),
        is_usable,
        has_autocast,
        no_mirror,
        no_search,
        no_cudnn,
    ):
        _empty(network)
        for _ in range(2):
            with Counting() as counting, torch.autocast(device, torch.float16, enabled=half):
                work(network)
    names = counting.names
    return Count(names.total(), counting.moved, counting.peak, names)


def _empty(network: nn.Module) -> None:
    """Replaces a network's tensors by tensors without data, on the default device."""
    for module in network.modules():
        for name, x in module._parameters.items():
            if x is not None:
                module._parameters[name] = nn.Parameter(_like(x))
        for name, x in module._buffers.items():
            if x is not None:
                module._buffers[name] = _like(x)


def _like(x: Tensor) -> Tensor:
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype)


def frames_of(network: nn.Module, lqs: Tensor) -> None:
    """Upscales a clip frame by frame and keeps none of the results."""
    with torch.no_grad():
        for _frame in network.forward_iter(lqs):
            pass


def train(network: nn.Module, lqs: Tensor) -> None:
    """Makes a training step without the optimiser's part."""
    network.train().zero_grad(set_to_none=True)
    network(lqs).float().square().mean().backward()


def flows_of(network: nn.Module, lqs: Tensor) -> None:
    """Estimates the flows of a clip, forwards and backwards."""
    with torch.no_grad():
        clip_flows(network, lqs)


def aligned(op: nn.Module, size: tuple[int, int]) -> None:
    """Aligns one frame of ``size``, (height, width)."""
    with torch.no_grad():
        op(torch.rand(1, op.channels, *size), torch.rand(1, op.channels, *size), flow(size))


def flow(size: tuple[int, int]) -> Tensor:
    """Makes a flow, (1, 2, height, width); under ``FakeTensorMode`` it has no data."""
    return torch.rand(1, 2, *size)


class Work(NamedTuple):
    """A row of the table: what is built, what it does, and for how many frames."""

    build: Callable[[], nn.Module]
    work: Callable[[nn.Module], object]
    frames: int
    device: str = "cuda"


SIZE = (180, 320)
ROWS = {
    "IA-CNN, 10 frames of 180x320": Work(
        IACNN, lambda network: frames_of(network, torch.rand(1, 10, 3, *SIZE)), 10
    ),
    "BasicVSR, 10 frames of 180x320": Work(
        lambda: IACNN(alignment="flow_warp", extractor=False),
        lambda network: frames_of(network, torch.rand(1, 10, 3, *SIZE)),
        10,
    ),
    "SPyNet, a pair of 180x320 in a clip of 10": Work(
        SPyNet, lambda network: flows_of(network, torch.rand(1, 10, 3, *SIZE)), 18
    ),
    "implicit alignment, 120 channels, 180x320": Work(
        lambda: ImplicitAlignment(120, num_heads=6), lambda op: aligned(op, SIZE), 1
    ),
    "IA-RT, 5 frames of 180x320": Work(
        IART, lambda network: frames_of(network, torch.rand(1, 5, 3, *SIZE)), 5
    ),
    "IA-RT, a training step, 6 frames of 64x64": Work(
        IART, lambda network: train(network, torch.rand(1, 6, 3, 64, 64)), 1, "cpu"
    ),
}


def main() -> None:
    """Prints the table of all rows, or of those that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="rows whose name has this text in it")
    parser.add_argument("--names", type=int, default=0, help="print so many frequent operations")
    args = parser.parse_args()
    print("| what | in | form | launches | GB moved | peak GiB |\n|---|---|---|---|---|---|")
    for name, (build, work, frames, device) in ROWS.items():
        if args.only not in name:
            continue
        for kind, half in (("float32", False), ("float16", True)):
            for form in ("reference", "fast"):
                with fused(form == "fast"):
                    counted = count(build, work, half, device)
                print(f"| {name} | {kind} | {form} | {counted.line(frames)} |", flush=True)
                for operation, times in counted.names.most_common(args.names):
                    print(f"    {times / frames:8.1f} {operation}")


if __name__ == "__main__":
    main()

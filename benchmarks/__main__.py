"""Speed, memory and work against a straightforward implementation, as ratios in one run.

    python -m benchmarks [--only NAME ...] [--threads N] [--device cpu|cuda] [--repeats N] [--long]

Every row alternates its two sides and takes the median of their times; memory is the growth of a
fresh process's peak. Writes results/benchmarks.json, a list of {name, ratio, goal, unit, detail}.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from iart_plugin.archs import IACNN, IART
from iart_plugin.fused import fused
from iart_plugin.ops import ImplicitAlignment

ROOT = Path(__file__).resolve().parents[1]


T = TypeVar("T")


class Row(NamedTuple):
    """A measured row: ``ratio`` is the other side over ours, so more is better."""

    name: str
    ratio: float
    goal: float
    unit: str
    detail: str


class Settings(NamedTuple):
    """How to measure."""

    device: torch.device
    repeats: int


def clip(frames: int, height: int, width: int, device: torch.device) -> Tensor:
    torch.manual_seed(0)
    return torch.rand(1, frames, 3, height, width, device=device)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """How long ``work`` takes; by events on a GPU."""
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / 1000
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def compare(
    other: Callable[[], object], ours: Callable[[], object], settings: Settings
) -> tuple[float, str]:
    """Alternates two pieces of work after a warm-up: the ratio of medians, and the medians."""
    times: tuple[list[float], list[float]] = ([], [])
    other(), ours()
    for _ in range(settings.repeats):
        for work, found in zip((other, ours), times, strict=True):
            found.append(seconds(work, settings.device))
    theirs, mine = median(times[0]), median(times[1])
    return theirs / mine, f"{theirs:.2f} s against {mine:.2f} s"


def iart(settings: Settings) -> nn.Module:
    torch.manual_seed(0)
    return IART().eval().to(settings.device)


def plainly(work: Callable[[], T]) -> Callable[[], T]:
    """The same work by the plain forms."""

    def plain() -> T:
        with fused(False):
            return work()

    return plain


def iart_forward(size: tuple[int, int, int], dtype: torch.dtype) -> Callable[[Settings], Row]:
    frames, height, width = size

    def measure(settings: Settings) -> Row:
        network = iart(settings)
        lqs = clip(*size, settings.device)
        half = dtype is not torch.float32

        def ours() -> Tensor:
            with torch.autocast(settings.device.type, dtype=dtype, enabled=half):
                return network(lqs)

        plain = plainly(lambda: network(lqs))
        with torch.no_grad():
            difference = (ours().float() - plain()).abs().max().item()
            ratio, detail = compare(plain, ours, settings)
        name = f"IART forward, {frames} frames of {height}x{width}, {str(dtype)[6:]}"
        goal = 6.0 if half else 3.5
        return Row(name, ratio, goal, "x faster", f"{detail}; outputs differ by {difference:.1e}")

    return measure


def training_step(settings: Settings) -> Row:
    """Forward and backward; stochastic depth off so that both compute the same."""
    network = iart(settings)
    lqs = clip(6, 64, 64, settings.device)

    def step() -> list[Tensor]:
        network.zero_grad(set_to_none=True)
        network(lqs).square().mean().backward()
        return [p.grad for p in network.parameters()]

    plain = plainly(step)
    pairs = zip(plain(), step(), strict=True)
    worst = max(((p - f).norm() / p.norm()).item() for p, f in pairs)
    ratio, detail = compare(plain, step, settings)
    detail += f"; gradients differ by {worst:.1e} of their norm"
    return Row("IART training step, 6 frames of 64x64", ratio, 2.5, "x faster", detail)


def against_basicvsr(settings: Settings) -> Row:
    """IA-CNN without its extractor's share against BasicSR's BasicVSR of the same trunks."""
    import iart_plugin.basicsr  # noqa: F401  isort: skip  mends BasicSR's import
    from basicsr.archs.basicvsr_arch import BasicVSR

    basicvsr = BasicVSR(64, 30).eval().to(settings.device)
    ours = IACNN(alignment="flow_warp", extractor=False).eval().to(settings.device)
    ours.load_state_dict(basicvsr.state_dict())
    lqs = clip(5, 64, 64, settings.device)
    with torch.no_grad():
        ratio, detail = compare(lambda: basicvsr(lqs), lambda: ours(lqs), settings)
    name = "BasicVSR's trunks and upsampler here, against BasicSR's, 5 frames of 64x64"
    return Row(name, ratio, 1.0, "x faster", detail)


def alignment_flops(settings: Settings) -> Row:
    """A second-order step: two alignments of one current frame, the older reference projected."""
    op = ImplicitAlignment(120, num_heads=6)
    features, flow = torch.rand(1, 120, 180, 320), torch.zeros(1, 2, 180, 320)
    older = op.project_reference(features)

    def ours() -> None:
        op.align(op.project_reference(features), features, flow)
        op.align(older, features, flow)

    @plainly
    def paper() -> None:
        op(features, features, flow)
        op(features, features, flow)

    def gflops(work: Callable[[], None]) -> float:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            work()
        return counter.get_total_flops() / 1e9

    theirs, mine = gflops(paper), gflops(ours)
    detail = f"{theirs:.2f} GFLOPs against {mine:.2f} (2 x MAC; matrix products)"
    return Row("Implicit alignment, second-order step at 180x320", theirs / mine, 4.46, "x", detail)


PEAK = """
import resource, sys, torch
import iart_plugin
from iart_plugin.archs import IART
kind, frames, height, width, train, threads = sys.argv[1], *map(int, sys.argv[2:])
torch.set_num_threads(threads)
torch.manual_seed(0)
network = IART().eval()
iart_plugin.set_fused(kind == "fast")
lqs = torch.rand(1, frames, 3, height, width)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if train:
    network(lqs).square().mean().backward()
else:
    with torch.no_grad():
        for frame in network.forward_iter(lqs):
            pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def peak_memory(size: tuple[int, int, int], goal: float, train: bool) -> Callable[[Settings], Row]:
    def measure(settings: Settings) -> Row:
        peaks = []
        for kind in ("plain", "fast"):
            arguments = [kind, *map(str, size), str(int(train)), str(torch.get_num_threads())]
            done = subprocess.run(
                [sys.executable, "-c", PEAK, *arguments],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                check=True,
            )
            peaks.append(int(done.stdout) / 2**20)
        what = "training step" if train else "forward"
        name = f"IART peak memory, {what}, {size[0]} frames of {size[1]}x{size[2]}"
        detail = f"{peaks[0]:.2f} GiB against {peaks[1]:.2f} GiB above the weights"
        return Row(name, peaks[0] / peaks[1], goal, "x less", detail)

    return measure


ROWS: dict[str, Callable[[Settings], Row]] = {
    "iart-64": iart_forward((5, 64, 64), torch.float32),
    "iart-144": iart_forward((3, 144, 180), torch.float32),
    "iart-64-bf16": iart_forward((5, 64, 64), torch.bfloat16),
    "iart-144-bf16": iart_forward((3, 144, 180), torch.bfloat16),
    "train": training_step,
    "train-memory": peak_memory((6, 64, 64), 2.0, True),
    "memory-144": peak_memory((3, 144, 180), 3.0, False),
    "basicvsr": against_basicvsr,
    "alignment": alignment_flops,
}
LONG = {"memory-180": peak_memory((10, 180, 320), 3.0, False)}
"""Rows that take the better part of an hour on a CPU."""


def machine(device: torch.device) -> str:
    preload = os.environ.get("LD_PRELOAD", "")
    allocator = "tcmalloc" if "tcmalloc" in preload else f"{platform.libc_ver()[0]}'s allocator"
    where = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    return (
        f"{where}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}, "
        f"Python {platform.python_version()}, {allocator}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=[*ROWS, *LONG], help="these rows")
    parser.add_argument("--threads", type=int, help="PyTorch's threads")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--long", action="store_true", help="also what takes an hour")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "benchmarks.json")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    settings = Settings(torch.device(args.device), args.repeats)
    known = ROWS | LONG
    names = args.only or [*ROWS, *(LONG if args.long else [])]
    rows = [known[name](settings) for name in tqdm(names, unit="row")]
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps([row._asdict() for row in rows], indent=1) + "\n")
    print(f"\n{machine(settings.device)}\n\n| what | ratio | goal | measured |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row.name} | {row.ratio:.2f} {row.unit} | {row.goal:g} | {row.detail} |")


if __name__ == "__main__":
    main()

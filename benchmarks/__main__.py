"""Measures speed, memory and work against the plain forms, as ratios in one run.

    python -m benchmarks [--only NAME ...] [--threads N] [--device cpu|cuda] [--repeats N] [--long]

The plain forms are those of ``iart_plugin.set_fused(False)``. Every row runs the two things that it
compares in turn and takes the median of their times. Memory is the growth of a fresh process's
peak. The command writes results/benchmarks.json, a list of {name, ratio, goal, unit, detail}, in
which each row replaces an older one of the same name. It also plots cost against size in
results/benchmarks.png.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import gpu
from benchmarks.results import allocator, keep, machine
from iart_plugin.archs import IACNN, IART
from iart_plugin.fused import fused
from iart_plugin.ops import ImplicitAlignment

ROOT = Path(__file__).resolve().parents[1]


T = TypeVar("T")


class Row(NamedTuple):
    """A measured row of the table.

    ``ratio`` is the cost of the plain form divided by the cost of the fast form, so that more is
    better, unless the unit says otherwise. ``goal`` is the ratio that is aimed at.
    """

    name: str
    ratio: float
    goal: float
    unit: str
    detail: str


class Settings(NamedTuple):
    """On which device to measure, how often, and where to write the plot."""

    device: torch.device
    repeats: int
    plot: Path


Measure = Callable[[Settings], list[Row]]


def clip(frames: int, height: int, width: int, device: torch.device) -> Tensor:
    """Makes the same clip of random frames each time: (1, t, 3, h, w) in [0, 1]."""
    torch.manual_seed(0)
    return torch.rand(1, frames, 3, height, width, device=device)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Returns how many seconds ``work`` takes; on a GPU, events measure them."""
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


def compare(settings: Settings, *works: Callable[[], object]) -> tuple[list[float], list]:
    """Runs pieces of work in turn; returns their median times and the results of the warm-up."""
    results = [work() for work in works]
    times = [[seconds(work, settings.device) for work in works] for _ in range(settings.repeats)]
    return [median(column) for column in zip(*times, strict=True)], results


def iart(settings: Settings, **options) -> nn.Module:
    """Builds an IART with the same random weights each time."""
    torch.manual_seed(0)
    return IART(**options).eval().to(settings.device)


def plainly(work: Callable[[], T]) -> Callable[[], T]:
    """Returns a function that does the same work with the plain forms."""

    def plain() -> T:
        with fused(False):
            return work()

    return plain


def iart_forward(frames: int, height: int, width: int) -> Measure:
    """Returns a function that measures IART's forward pass in float32 and in bf16."""

    def measure(settings: Settings) -> list[Row]:
        network = iart(settings)
        lqs = clip(frames, height, width, settings.device)

        def half() -> Tensor:
            with torch.autocast(settings.device.type, dtype=torch.bfloat16):
                return network(lqs)

        full = partial(network, lqs)
        with torch.no_grad():
            times, results = compare(settings, plainly(full), full, half)
        rows = []
        goals = (1.8, 3.0) if "tcmalloc" in allocator() else (3.5, 6.0)
        kinds = ("float32", "bf16")
        for kind, goal, ours, out in zip(kinds, goals, times[1:], results[1:], strict=True):
            difference = (out.float() - results[0]).abs().max().item()
            name = f"IART forward, {frames} frames of {height}x{width}, {kind}"
            detail = f"{times[0]:.1f} s against {ours:.1f} s; outputs differ by {difference:.1e}"
            rows.append(Row(name, times[0] / ours, goal, "x faster", detail))
        return rows

    return measure


def training_step(settings: Settings) -> list[Row]:
    """Measures forward and backward; stochastic depth is off so that both compute the same."""
    network = iart(settings, **TRAINED_NETWORK)
    lqs = clip(*TRAINED, settings.device)

    def step() -> list[Tensor]:
        network.zero_grad(set_to_none=True)
        network(lqs).square().mean().backward()
        return [p.grad for p in network.parameters()]

    (theirs, ours), results = compare(settings, plainly(step), step)
    # All together, because the gradient of the alignment's key bias is zero except for rounding.
    plain, fast = (torch.cat([p.flatten() for p in gradients]) for gradients in results)
    difference = ((plain - fast).norm() / plain.norm()).item()
    detail = f"{theirs:.1f} s against {ours:.1f} s; gradients differ by {difference:.1e}"
    name = "IART training step, 4 blocks a branch, {} frames of {}x{}".format(*TRAINED)
    return [Row(name, theirs / ours, 2.5, "x faster", detail)]


def against_basicvsr(settings: Settings) -> list[Row]:
    """Compares this package's BasicVSR with BasicSR's."""
    import iart_plugin.basicsr  # noqa: F401  isort: skip  mends BasicSR's import
    from basicsr.archs.basicvsr_arch import BasicVSR

    basicvsr = BasicVSR(64, 30).eval().to(settings.device)
    ours = IACNN(alignment="flow_warp", extractor=False).eval().to(settings.device)
    ours.load_state_dict(basicvsr.state_dict())
    lqs = clip(5, 64, 64, settings.device)
    with torch.no_grad():
        (theirs, mine), _ = compare(settings, partial(basicvsr, lqs), partial(ours, lqs))
    name = "BasicVSR's trunks and upsampler here, against BasicSR's, 5 frames of 64x64"
    return [Row(name, theirs / mine, 1.0, "x faster", f"{theirs:.2f} s against {mine:.2f} s")]


def alignment_flops(settings: Settings) -> list[Row]:
    """Counts the FLOPs of a second-order step: two alignments to one current frame.

    The older reference is projected already. The paper counts, for each alignment, a query's
    projection and those of keys and values of four gathered pixels: nine products of every pixel
    with a matrix of channels by channels.
    """
    channels, height, width = 120, 180, 320
    op = ImplicitAlignment(channels, num_heads=6)
    features, flow = torch.rand(1, channels, height, width), torch.zeros(1, 2, height, width)
    older = op.project_reference(features)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        op.align(op.project_reference(features), features, flow)
        op.align(older, features, flow)
    theirs = 2 * 9 * 2 * height * width * channels**2 / 1e9
    mine = counter.get_total_flops() / 1e9
    detail = f"{theirs:.2f} GFLOPs in the paper against {mine:.2f} (2 x MAC; matrix products)"
    name = "Implicit alignment, second-order step at 180x320"
    return [Row(name, theirs / mine, 4.46, "x less work", detail)]


PEAK = """
import json, sys, torch
import iart_plugin
from iart_plugin.archs import IACNN, IART
from iart_plugin.study.complexity import peak_bytes
what = json.loads(sys.argv[1])
torch.set_num_threads(what["threads"])
torch.manual_seed(0)
network = {"IART": IART, "IACNN": IACNN}[what["network"]](**what["options"]).eval()
network = network.to(what["device"])
iart_plugin.set_fused(what["fused"])
lqs = torch.rand(1, what["size"][0], 3, *what["size"][1:], device=what["device"])
peak_bytes(what["device"], reset=True)
before = peak_bytes(what["device"])
if what["train"]:
    network(lqs).square().mean().backward()
else:
    with torch.no_grad():
        for frame in network.forward_iter(lqs):
            pass
print(peak_bytes(what["device"]) - before)
"""


def peak(
    settings: Settings,
    size: Sequence[int],
    network: str = "IART",
    options: dict | None = None,
    **what,
) -> float:
    """Returns by how many GiB the peak memory of a fresh process grows."""
    what = {
        "size": size,
        "network": network,
        "options": options or {},
        "train": False,
        "fused": True,
        "threads": torch.get_num_threads(),
        "device": settings.device.type,
        **what,
    }
    done = subprocess.run(
        [sys.executable, "-c", PEAK, json.dumps(what)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return int(done.stdout) / 2**30


def peak_memory(size: tuple[int, int, int], goal: float, *, train: bool = False) -> Measure:
    """Returns a measurement of the peak memory of the plain form, and of the fast form's median.

    The fast form is measured several times, as holes in the heap make its peak vary by a third.
    """

    def measure(settings: Settings) -> list[Row]:
        options = TRAINED_NETWORK if train else {}
        run = partial(peak, settings, size, options=options, train=train)
        plain = run(fused=False)
        peaks = [run(fused=True) for _ in range(settings.repeats)]
        fast = median(peaks)
        what = "training step, 4 blocks a branch" if train else "forward"
        name = f"IART peak memory, {what}, {size[0]} frames of {size[1]}x{size[2]}"
        spread = f" ({min(peaks):.2f} to {max(peaks):.2f})" if len(peaks) > 1 else ""
        detail = f"{plain:.2f} GiB against {fast:.2f} GiB{spread} above the weights and the clip"
        return [Row(name, plain / fast, goal, "x less", detail)]

    return measure


def long_clips(settings: Settings) -> list[Row]:
    """Compares the peaks of a long and a short clip, with features stored on disk.

    The clip's flow, 16 bytes per pixel, has to be in memory and is subtracted. Medians are taken,
    because holes in the heap make peaks differ by a third between measurements.
    """
    rows = []
    side = 32
    for network, options in (("IACNN", {}), ("IART", {"depths": [1], "num_heads": [6]})):
        options = {**options, "cache": "disk"}
        lengths = (200, 1000)
        runs = [
            [
                peak(settings, (t, side, side), network, options) - t * side**2 * 16 / 2**30
                for t in lengths
            ]
            for _ in range(settings.repeats)
        ]
        peaks = [median(column) for column in zip(*runs, strict=True)]
        detail = f"{peaks[0] * 1024:.0f} MiB against {peaks[1] * 1024:.0f} MiB, features on disk"
        name = f"{network} peak memory, 200 frames of {side}x{side} against 1,000"
        rows.append(Row(name, peaks[1] / peaks[0], 1.1, "x, at most", detail))
    return rows


def cost(settings: Settings) -> list[Row]:
    """Plots time against frames and pixels; the rows say how far it is from proportional."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    rows = []
    sweeps = {
        "frames": [(t, 32, 32) for t in (2, 4, 8, 16)],
        "pixels": [(2, side, side) for side in (32, 64, 96, 128)],
    }
    for axis, (unit, sizes) in zip(axes, sweeps.items(), strict=True):
        for make in (IART, IACNN):
            network = make().eval().to(settings.device)
            clips = [clip(*size, settings.device) for size in sizes]
            with torch.no_grad():
                times, _ = compare(settings, *(partial(network, lqs) for lqs in clips))
            amounts = [t if unit == "frames" else h * w for t, h, w in sizes]
            axis.plot(amounts, times, marker="o", label=make.__name__)
            ratio = times[-1] / amounts[-1] / (times[1] / amounts[1])
            name = f"{make.__name__} time a {unit[:-1]}, {amounts[-1]} {unit} against {amounts[1]}"
            detail = ", ".join(f"{a}: {t:.2f} s" for a, t in zip(amounts, times, strict=True))
            rows.append(Row(name, ratio, 1.1, "x, at most", detail))
        axis.set(xlabel=f"{unit} of a " + ("32x32 clip" if unit == "frames" else "2-frame clip"))
        axis.set(ylabel="seconds", xlim=(0, None), ylim=(0, None))
        axis.locator_params("x", nbins=6)
        axis.legend()
    settings.plot.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(settings.plot, dpi=120)
    return rows


def half_precision(settings: Settings) -> list[Row]:
    """Measures on Big Buck Bunny what bf16 loses, with BasicVSR's weights in an IA-CNN."""
    from benchmarks.seams import psnr, read
    from iart_plugin.archs import load_ia_cnn
    from iart_plugin.data.degradation import bicubic_downsample
    from iart_plugin.data.packaged import basicvsr_weights
    from iart_plugin.inference import upscale

    truth = read(6, np.s_[200:584, 300:1068])
    low = [bicubic_downsample(frame, 4) for frame in truth]
    network = load_ia_cnn("warm-start", basicvsr_weights()).eval()
    found = [
        psnr(list(upscale(low, network, device=settings.device, precision=kind, tile=0)), truth)
        for kind in ("fp32", "bf16")
    ]
    name = "IACNN in bf16, PSNR lost on 6 frames of 96x192"
    detail = f"{found[0]:.3f} dB in float32, {found[1]:.3f} dB in bf16"
    return [Row(name, abs(found[0] - found[1]), 0.02, "dB, at most", detail)]


TRAINED = (3, 64, 64)
TRAINED_NETWORK = {"depths": [2, 2], "num_heads": [6, 6]}
"""The clip and network of the training step. At 64x64 the plain form keeps 250 MB of attention
weights per block; with all 18 blocks of 4 branches, this would be more than most machines have."""

ROWS: dict[str, Measure] = {
    "iart-64": iart_forward(5, 64, 64),
    "iart-144": iart_forward(3, 144, 180),
    "train": training_step,
    "train-memory": peak_memory(TRAINED, 2.0, train=True),
    "memory-144": peak_memory((3, 144, 180), 3.0),
    "basicvsr": against_basicvsr,
    "alignment": alignment_flops,
    "half-precision": half_precision,
    "cost": cost,
}
LONG: dict[str, Measure] = {
    "memory-180": peak_memory((10, 180, 320), 3.0),
    "long-clips": long_clips,
}
"""Rows that take the better part of an hour on a CPU."""


def main() -> None:
    """Runs the rows that the command line names; prints and keeps each when it is measured."""
    device = argparse.ArgumentParser(add_help=False)
    device.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    if device.parse_known_args()[0].device == "cuda":
        gpu.main()
        return
    from tqdm import tqdm

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], parents=[device])
    parser.add_argument("--only", nargs="+", choices=[*ROWS, *LONG], help="these rows")
    parser.add_argument("--threads", type=int, help="PyTorch's threads")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--long", action="store_true", help="also what takes an hour")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "benchmarks.json")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    plot = args.output.with_suffix(".png")
    settings = Settings(torch.device(args.device), args.repeats, plot)
    known = ROWS | LONG
    names = args.only or [*ROWS, *(LONG if args.long else [])]
    args.output.parent.mkdir(parents=True, exist_ok=True)
    print(f"{machine(settings.device)}\n\n| what | ratio | goal | measured |\n|---|---|---|---|")
    for name in tqdm(names, unit="row"):
        for row in known[name](settings):
            keep(row._asdict(), args.output)
            line = f"| {row.name} | {row.ratio:.2f} {row.unit} | {row.goal:g} | {row.detail} |"
            tqdm.write(line, file=sys.stdout)


if __name__ == "__main__":
    main()

"""Measures speed and memory on a GPU: every fast form against the reference forms, in one run.

    python -m benchmarks --device cuda [--only TEXT ...] [--tiny]
    python -m benchmarks.gpu --docs      # draws benchmarks/results/ into docs/speed.md

Needs only PyTorch and this source tree. A warm-up, which also compiles the kernels, is followed by
a few repeats, and the median is taken. The results are kept with the card and versions in
benchmarks/results/. The time that each kernel took is printed.
"""

import argparse
import json
import math
import platform
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.timing import LOOPS, Row, both, median_ms, noise, precision, prepared
from iart_plugin.archs import IACNN, IART
from iart_plugin.files import write_atomically
from iart_plugin.flow import SPyNet, clip_flows
from iart_plugin.fused import fused
from iart_plugin.kernels.availability import failures
from iart_plugin.ops import ImplicitAlignment
from iart_plugin.ops.processor import device_name

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "speed.md"
BEGIN, END = "<!-- GPU: begin -->", "<!-- GPU: end -->"


class Size(NamedTuple):
    """The sizes, in pixels, frames and blocks, of everything that is measured."""

    height: int = 180
    width: int = 320
    frames: int = 5
    long: int = 10
    side: int = 64
    film: int = 48
    reference_film: int = 8
    depth: int | None = None
    num_block: int = 30

    @property
    def options(self) -> dict[str, Any]:
        """The options of IART: none for the whole network, or one layer of ``depth`` blocks."""
        return {"depths": [self.depth], "num_heads": [6]} if self.depth else {}


TINY = Size(16, 24, 2, 3, 16, 4, 2, 1, 1)
"""The sizes for a test of this file on a CPU."""


def networks(size: Size, device: torch.device) -> Iterator[Row]:
    """Times a frame of both networks, and measures how far each precision is from float32."""
    goals = {
        "IA-RT": {"float16": "45 ms", "TF32": "90 ms"},
        "IA-CNN": {"float16": "7 ms, 0.5 GiB"},
    }
    cases = {
        "IA-RT": (partial(IART, **size.options), size.frames),
        "IA-CNN": (partial(IACNN, num_block=size.num_block), size.long),
    }
    for name, (make, frames) in cases.items():
        torch.manual_seed(0)
        network = prepared(make(), device)
        lqs = noise(1, frames, 3, size.height, size.width, device=device)
        exact = None
        for kind in ("float32", "TF32", "float16", "bfloat16"):

            def work(network=network, lqs=lqs) -> None:
                for _frame in network.forward_iter(lqs):
                    pass

            with torch.no_grad(), precision(kind, device):
                row = both(
                    f"{name}, {frames} frames of {size.height}x{size.width}, {kind}, a frame",
                    goals[name].get(kind, ""),
                    work,
                    device,
                    units=frames,
                )
                out = network(lqs).float()
            exact = out if exact is None else exact
            error = (out - exact).abs().max().item()
            psnr = -10 * math.log10(max((out - exact).square().mean().item(), 1e-20))
            note = f"differs from float32 by {error:.1e}, PSNR {psnr:.1f} dB"
            yield row._replace(note=note if kind != "float32" else "")


def training(size: Size, device: torch.device) -> Iterator[Row]:
    """Measures a training step of IA-RT."""
    network = prepared(IART(**size.options), device).train()
    lqs = noise(1, 6, 3, size.side, size.side, device=device)
    for kind, goal in (("float16", "450 ms, 10 GiB"), ("float32", "")):

        def work() -> None:
            network.zero_grad(set_to_none=True)
            with precision(kind, device):  # noqa: B023
                out = network(lqs)
            out.float().square().mean().backward()

        name = f"IA-RT, a training step, 6 frames of {size.side}x{size.side}, {kind}"
        yield both(name, goal, work, device)


def parts(size: Size, device: torch.device) -> Iterator[Row]:
    """Measures implicit alignment, forward and with its gradients, and the flow of a pair."""
    op = ImplicitAlignment(120, num_heads=6).to(device)
    flow = 6 * noise(1, 2, size.height, size.width, device=device) - 3
    for kind in ("float16", "float32"):
        dtype = getattr(torch, kind)
        reference, current = noise(2, 1, 120, size.height, size.width, device=device).to(dtype)

        def forward(reference=reference, current=current) -> Tensor:
            return op(reference, current, flow)

        def backward(reference=reference, current=current) -> None:
            inputs = [x.detach().requires_grad_() for x in (reference, current, flow)]
            out = op(*inputs)
            torch.autograd.grad(out.sum(), [*inputs, *op.parameters()])

        name = f"implicit alignment, 120 channels, {size.height}x{size.width}, {kind}"
        with precision(kind, device):
            with torch.no_grad():
                goal = "0.4 ms" if kind == "float16" else ""
                yield both(name, goal, forward, device, loops=LOOPS)
            goal = "1.2 ms" if kind == "float16" else ""
            yield both(f"{name}, forward and backward", goal, backward, device, loops=LOOPS)
    spynet = prepared(SPyNet(), device)
    lqs = noise(1, size.long, 3, size.height, size.width, device=device)
    pairs = 2 * (size.long - 1)
    for kind in ("float32", "TF32"):
        with torch.no_grad(), precision(kind, device):
            name = f"SPyNet, a pair of {size.height}x{size.width} in a clip of {size.long}, {kind}"
            goal = "1.5 ms" if kind == "TF32" else ""
            yield both(name, goal, partial(clip_flows, spynet, lqs), device, units=pairs)


def films(size: Size, device: torch.device) -> Iterator[Row]:
    """Measures ``inference.upscale`` from arrays to arrays: nothing is decoded or encoded."""
    try:
        from iart_plugin.inference import upscale
    except ImportError as error:
        print(f"| upscale | | not measured: {error} | | | |")
        return
    pixels = noise(size.film, size.height, size.width, 3, device=torch.device("cpu")).numpy()
    frames = list((255 * pixels).astype(np.uint8))
    kind = "fp16" if device.type == "cuda" else "bf16"
    cases = {
        "IA-CNN": (partial(IACNN, num_block=size.num_block), "80 frames/s with files"),
        "IA-RT": (partial(IART, **size.options), "18 frames/s with files"),
    }
    for name, (make, goal) in cases.items():
        network = make().eval()

        def work(count: int, network=network) -> None:
            for _frame in upscale(frames[:count], network, device=device, precision=kind):
                pass

        short = size.reference_film
        with fused(False):  # fewer frames, because this takes long
            reference, reference_gib = median_ms(partial(work, short), device)
        ms, gib = median_ms(partial(work, size.film), device)
        label = f"upscale by {name}, {size.film} frames of {size.width}x{size.height}, a frame"
        note = f"{1000 * size.film / ms:.1f} frames/s; the reference {short} frames"
        yield Row(label, goal, reference / short, ms / size.film, reference_gib, gib, note)


def rivals(size: Size, device: torch.device) -> Iterator[Row]:
    """Measures BasicSR's BasicVSR, if BasicSR is installed, beside the same network here."""
    try:
        import iart_plugin.basicsr  # noqa: F401  isort: skip  mends BasicSR's import
        from basicsr.archs.basicvsr_arch import BasicVSR
    except ImportError as error:
        print(f"| BasicSR's BasicVSR | | not measured: {error} | | | |")
        return
    ours = IACNN(num_block=size.num_block, alignment="flow_warp", extractor=False)
    ours, theirs = (prepared(x, device) for x in (ours, BasicVSR(num_block=size.num_block)))
    lqs = noise(1, size.long, 3, max(size.height, 64), max(size.width, 64), device=device)
    height, width = lqs.shape[-2:]
    for kind in ("float32", "TF32", "float16"):
        with torch.no_grad(), precision(kind, device):
            other, other_gib = median_ms(partial(theirs, lqs), device)
            ms, gib = median_ms(partial(ours, lqs), device)
        label = f"BasicVSR, {size.long} frames of {height}x{width}, {kind}, a frame"
        note = "the reference is BasicSR's BasicVSR"
        yield Row(label, "", other / size.long, ms / size.long, other_gib, gib, note)


MEASURES = {
    "parts": parts,
    "networks": networks,
    "training": training,
    "films": films,
    "rivals": rivals,
}


def profiled(size: Size, device: torch.device) -> str:
    """Returns tables of the time that each kernel takes in forward passes of IA-RT and IA-CNN."""
    from torch.profiler import ProfilerActivity, profile

    activity = ProfilerActivity.CUDA if device.type == "cuda" else ProfilerActivity.CPU
    tables = []
    for make in (partial(IART, **size.options), partial(IACNN, num_block=size.num_block)):
        network = prepared(make(), device)
        lqs = noise(1, size.frames, 3, size.height, size.width, device=device)
        kind = "float16" if device.type == "cuda" else "bfloat16"
        with torch.no_grad(), precision(kind, device):
            network(lqs)
            with profile(activities=[activity]) as profiler:
                network(lqs)
        key = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
        averages = profiler.key_averages()
        tables.append(averages.table(sort_by=key, row_limit=20, max_name_column_width=60))
    return "\n".join(tables)


def table(rows: list[Row]) -> str:
    """Returns the rows as a Markdown table."""
    lines = ["| what | goal | reference | fast | peak | |", "|---|---|---|---|---|---|"]
    for row in rows:
        peak = "" if math.isnan(row.gib) else f"{row.reference_gib:.2f}; {row.gib:.2f} GiB"
        lines.append(
            f"| {row.name} | {row.goal} | {_ms(row.reference_ms)} | {_ms(row.ms)} | {peak} "
            f"| {row.note} |"
        )
    return "\n".join(lines)


def _ms(milliseconds: float) -> str:
    return "out of memory" if math.isnan(milliseconds) else f"{milliseconds:.2f} ms"


def machine(device: torch.device) -> str:
    """Returns the names of the card and of the versions that the measurements ran with."""
    versions = [f"PyTorch {torch.__version__}", f"Python {platform.python_version()}"]
    try:
        import triton

        versions.append(f"Triton {triton.__version__}")
    except ImportError:
        versions.append("no Triton")
    return f"{device_name(device)}, {', '.join(versions)}, {time.strftime('%Y-%m-%d')}"


def run(device: torch.device, only: list[str], size: Size, folder: Path) -> Path:
    """Measures, prints and keeps the rows.

    Returns:
        The file of results, which always holds every row that is finished.
    """
    heading, rows = machine(device), []
    print(heading, flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{device_name(device).replace(' ', '-').replace('/', '-')}.json"

    def keep(profile: str = "") -> None:
        kept = {
            "machine": heading,
            "rows": [row._asdict() for row in rows],
            "failed kernels": failures(),
            "profile": profile,
        }
        write_atomically(file, json.dumps(kept, indent=1) + "\n")

    for name, measure in MEASURES.items():
        if only and name not in only:
            continue
        for row in measure(size, device):
            rows.append(row)
            print(table([row]).splitlines()[-1], flush=True)
            keep()
    profile = profiled(size, device)
    print(profile)
    keep(profile)
    return file


def draw(page: Path = PAGE, folder: Path = RESULTS) -> None:
    """Writes the kept results between two marks of a page."""
    parts = []
    for file in sorted(folder.glob("*.json")):
        kept = json.loads(file.read_text(encoding="utf-8"))
        rows = [Row(**row) for row in kept["rows"]]
        parts.append(f"{table(rows)}\n\n*`python -m benchmarks --device cuda`: {kept['machine']}.*")
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    middle = "\n\n".join(parts) or "The kernels are not measured yet."
    page.write_text(f"{before}{BEGIN}\n{middle}\n{END}{after}", encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """Measures on a GPU, or draws what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=[], help="these rows")
    parser.add_argument("--tiny", action="store_true", help="small sizes, to try this file")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the folder of results")
    parser.add_argument("--docs", action="store_true", help="draw the results into docs/speed.md")
    args = parser.parse_args(arguments)
    if args.docs:
        draw()
        return
    size = TINY if args.tiny else Size()
    print(f"kept in {run(torch.device(args.device), args.only, size, args.output)}")
    if failures():  # their rows are another form's
        raise SystemExit(f"these kernels failed and were replaced: {failures()}")


if __name__ == "__main__":
    main()

"""Parameters, FLOPs, time and memory of every network and aligner (Tab. 1, 5, Sec. B.3).

PyTorch's own counter counts the FLOPs: two for each multiply-accumulate of a matrix product or
convolution, and none for other operations. The tensors hold no data while FLOPs are counted, so
that counting is quick at any size. Time and memory are measured, each case in its own process.
"""

import json
import multiprocessing
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from tabulate import tabulate
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from iart_plugin import archs
from iart_plugin.alignment import ALIGNMENTS, build_alignment
from iart_plugin.alignment.offsets import groups_of

PAPER_SIZE = (180, 320)  # the low-resolution frames of REDS
PAPER_IA_GFLOPS = 14.93
PAPER_CHANNELS = 120
PAPER_HEADS = 6


def _networks() -> dict[str, Callable[[], nn.Module]]:
    """Every network in the table of architectures, by the name that reports use."""
    networks: dict[str, Callable[[], nn.Module]] = {}
    for row in archs.ARCHITECTURES.values():
        if row.network is None:
            continue
        name, build = row.network.__name__, partial(row.network, **row.variant)
        if not row.own_flow:  # the study's network is listed once for each aligner
            networks |= {f"{name}, {a}": partial(build, alignment=a) for a in ALIGNMENTS}
        elif row.variant:
            networks[f"{name}, {row.variant['alignment']} ({row.title})"] = build
        else:
            networks[name] = build
    return networks


NETWORKS = _networks()


@dataclass(frozen=True, kw_only=True)
class Case:
    """What to measure, in plain values that can be sent to another process.

    Attributes:
        kind: 'network' or 'aligner'.
        name: A key of :data:`NETWORKS`, or the name of an aligner.
        height: Height of a low-resolution frame, in pixels.
        width: Width of a low-resolution frame, in pixels.
        frames: Frames of a clip, for networks.
        channels: Channels of features, for aligners.
        train: Whether to measure the backward pass too.
        threads: Number of threads for PyTorch; 0 keeps PyTorch's choice.
        repeats: Number of passes; the fastest one counts.
    """

    kind: str
    name: str
    height: int
    width: int
    frames: int = 5
    channels: int = PAPER_CHANNELS
    train: bool = False
    threads: int = 0
    repeats: int = 2

    def build(self) -> nn.Module:
        """The network or aligner."""
        if self.kind == "network":
            return NETWORKS[self.name]()
        options = {}
        if self.name == "implicit":  # the paper's number of heads, or the next lower one that fits
            options["num_heads"] = groups_of(self.channels, None, PAPER_HEADS)
        return build_alignment(self.name, self.channels, **options)

    def inputs(self, device: str) -> list:
        """Random inputs; on the 'meta' device they have shapes but no data."""
        h, w = self.height, self.width
        if self.kind == "network":
            clip = torch.rand(1, self.frames, 3, h, w, device=device)
            if self.name.startswith("AlignmentStudyNet"):
                return [clip, torch.randn(1, self.frames - 1, 2, h, w, device=device)]
            return [clip]
        features = torch.randn(2, 1, self.channels, h, w, device=device)
        return [features[0], features[1], torch.randn(1, 2, h, w, device=device)]


def cases(**options) -> list[Case]:
    """A case for every aligner and every network, all with the same options."""
    aligners = [Case(kind="aligner", name=name, **options) for name in ALIGNMENTS]
    return [*aligners, *(Case(kind="network", name=n, **options) for n in NETWORKS)]


def select(every: list[Case], names: Sequence[str] | None) -> list[Case]:
    """Select cases by how their names begin; upper case, spaces and hyphens do not matter.

    Args:
        every: Cases to choose from.
        names: Beginnings of names, such as 'IA-CNN' or 'deformable'; all cases if empty or None.

    Raises:
        ValueError: If no case has a name that begins with one of ``names``.
    """
    if not names:
        return every
    starts = {name: _plain(name) for name in names}
    for name, start in starts.items():
        if not start or not any(_plain(case.name).startswith(start) for case in every):
            known = ", ".join(dict.fromkeys(case.name for case in every))
            raise ValueError(f"no network or aligner is called {name!r}; there are: {known}")
    return [case for case in every if _plain(case.name).startswith(tuple(starts.values()))]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def gathered_flops(height: int, width: int, channels: int) -> int:
    """FLOPs of the linear layers of implicit alignment as the paper counts them (Sec. B.3).

    The paper projects keys and values after it has gathered the 2 x 2 window. For each pixel that
    makes one projection of the query, four of keys and four of values: nine products with a square
    matrix, at two FLOPs for each multiply-accumulate (MAC).
    """
    return 2 * 9 * height * width * channels**2


def count(case: Case) -> dict[str, int]:
    """Count the parameters, and the FLOPs (2 x MAC) of one forward pass.

    A network's FLOPs are given per frame. Its number of frames is made odd here: a network compares
    the two halves of an even clip, which cannot be done with tensors that hold no data.
    """
    if case.kind == "network" and case.frames % 2 == 0:
        case = Case(**{**asdict(case), "frames": case.frames + 1})
    module, inputs = case.build().eval().to("meta"), case.inputs("meta")
    counter = FlopCounterMode(display=False, custom_mapping=_extra_formulas())
    with counter, torch.no_grad():
        module(*inputs)
    per = case.frames if case.kind == "network" else 1
    return {
        "parameters": sum(p.numel() for p in module.parameters()),
        "flops": counter.get_total_flops() // per,
    }


def measure(case: Case, *, device: str = "cpu") -> dict[str, float]:
    """Measure the time and peak memory of one pass in a fresh process.

    Returns:
        ``seconds``, the elapsed time, for a network per frame; ``cpu_seconds``, the processor time
        of all threads, which hardly changes when the machine is busy; and ``memory_mib``, the peak
        memory beyond the weights and inputs. On a GPU this is the peak of PyTorch's allocations, on
        a CPU the peak of the process's resident memory.
    """
    # The process is spawned, because a forked one would inherit the parent's memory peak.
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_measure_here, (case, device))


def _measure_here(case: Case, device: str) -> dict[str, float]:
    if case.threads:
        torch.set_num_threads(case.threads)
    torch.manual_seed(0)
    module = case.build().to(device).train(case.train)
    inputs = [tensor.to(device) for tensor in case.inputs("cpu")]
    before = peak_bytes(device, reset=True)
    wall, busy = [], []
    for _ in range(case.repeats):
        started, started_busy = time.perf_counter(), time.process_time()
        with torch.set_grad_enabled(case.train):
            out = module(*inputs)
            if case.train and out.requires_grad:
                out.mean().backward()
        if device == "cuda":
            torch.cuda.synchronize()
        wall.append(time.perf_counter() - started)
        busy.append(time.process_time() - started_busy)
        del out
    per = case.frames if case.kind == "network" else 1
    return {
        "seconds": min(wall) / per,
        "cpu_seconds": min(busy) / per,
        "memory_mib": (peak_bytes(device) - before) / 2**20,
    }


def peak_bytes(device: str, *, reset: bool = False) -> int:
    """Peak memory so far, in bytes. ``reset`` sets the peak to the memory that is in use now."""
    if device == "cuda":
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():
        if reset:  # importing PyTorch takes more memory than a small pass does
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return 1024 * int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1])
    try:
        import resource
    except ModuleNotFoundError:  # on Windows, Python cannot read a peak
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _extra_formulas() -> dict:
    """The FLOP formula of torchvision's deformable convolution, which PyTorch's counter lacks."""
    import torchvision  # noqa: F401  defines the operator

    def deform_conv2d(x_shape, weight_shape, offset_shape, *_, **__) -> int:
        n, _, out_h, out_w = offset_shape
        c_out, c_in, kernel_h, kernel_w = weight_shape
        return 2 * n * out_h * out_w * c_out * c_in * kernel_h * kernel_w

    return {torch.ops.torchvision.deform_conv2d: deform_conv2d}


def table(rows: list[dict], style: str = "text") -> str:
    """Format results as aligned text, Markdown or JSON.

    Args:
        rows: Dicts with ``kind``, ``name``, ``parameters``, ``flops`` and, if time and memory were
            measured, the entries that :func:`measure` returns.
        style: 'text', 'markdown' or 'json'.
    """
    if style == "json":
        return json.dumps(rows, indent=2)
    header = ["", "parameters", "GFLOPs (2 x MAC)", "ms", "CPU ms", "peak MiB"]
    cells = [
        [
            row["name"],
            f"{row['parameters']:,}",
            f"{row['flops'] / 1e9:.2f}",
            *(
                f"{scale * row[key]:.0f}" if key in row else "-"
                for key, scale in (("seconds", 1e3), ("cpu_seconds", 1e3), ("memory_mib", 1))
            ),
        ]
        for row in rows
    ]
    return tabulate(
        cells,
        header,
        tablefmt="pipe" if style == "markdown" else "plain",
        colalign=["left", *["right"] * (len(header) - 1)],
        disable_numparse=True,
    )

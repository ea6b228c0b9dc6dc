"""Count the parameters and FLOPs of every network and aligner, and measure time and memory.

    iart-plugin complexity                       # a table; time and memory at 64x64
    iart-plugin complexity --count-only --size 180 320
    iart-plugin complexity --train --only IART   # one training step, before you start one
    iart-plugin complexity --docs docs           # write docs/complexity.md

FLOPs are twice the multiply-accumulates of a forward pass; a network's are per output frame.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from iart_plugin.commands.console import command_parser, one_line_errors
from iart_plugin.ops.processor import device_name
from iart_plugin.study.complexity import (
    PAPER_CHANNELS,
    PAPER_IA_GFLOPS,
    PAPER_SIZE,
    Case,
    cases,
    count,
    gathered_flops,
    measure,
    select,
    table,
)


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    args = _parser().parse_args(argv)
    chosen = select(
        cases(
            height=args.size[0],
            width=args.size[1],
            frames=args.frames,
            channels=args.channels,
            train=args.train,
            threads=args.threads,
        ),
        args.only,
    )
    rows = []
    for case in tqdm(chosen, unit="case"):
        measured = {} if args.count_only else measure(case, device=args.device)
        rows.append({"kind": case.kind, "name": case.name, **count(case), **measured})
    print(table(rows, args.style))
    if args.docs:
        args.docs.mkdir(parents=True, exist_ok=True)
        page = args.docs / "complexity.md"
        page.write_text(_page(rows, args), encoding="utf-8")
        print(f"wrote {page}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("complexity", __doc__)
    parser.add_argument("--size", type=int, nargs=2, default=(64, 64), metavar=("H", "W"))
    parser.add_argument("--frames", type=int, default=5, help="frames of a clip")
    parser.add_argument("--channels", type=int, default=PAPER_CHANNELS, help="of aligners")
    parser.add_argument("--only", nargs="+", help="names that start with one of these")
    parser.add_argument("--train", action="store_true", help="time forward and backward")
    parser.add_argument("--count-only", action="store_true", help="measure nothing")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=0, help="PyTorch's threads")
    parser.add_argument("--style", default="text", choices=("text", "markdown", "json"))
    parser.add_argument("--docs", type=Path, help="folder to write complexity.md to")
    return parser


def _page(rows: list[dict], args: argparse.Namespace) -> str:
    height, width = args.size
    what = "a training step" if args.train else "a forward pass"
    threads = args.threads or torch.get_num_threads()
    device = torch.device(args.device)
    on_gpu = device.type == "cuda"
    memory = "the peak of what PyTorch holds" if on_gpu else "the growth of the process's peak"
    sizes = {"height": PAPER_SIZE[0], "width": PAPER_SIZE[1]}
    gathered = gathered_flops(*PAPER_SIZE, PAPER_CHANNELS) / 1e9
    ours = count(Case(kind="aligner", name="implicit", **sizes))["flops"] / 1e9
    network = count(Case(kind="network", name="IART", **sizes))["flops"] / 1e12
    return f"""\
# Complexity

<!-- Written by iart-plugin complexity --docs docs. Do not edit: run it again. -->

Low-resolution frames of {height}x{width}, clips of {args.frames} frames, aligners on
{args.channels} channels. FLOPs are those of a forward pass, counted by PyTorch's
counter: two for each multiply-accumulate of matrix products and convolutions. Time and memory are
those of {what}. A
network's FLOPs and time are those of an output frame. Memory is {memory}.
Measured on {args.device} ({device_name(device)}, {threads} threads, PyTorch {torch.__version__}),
the faster of two runs.
"ms" is time on the clock and depends on what else the machine does; "CPU ms" is processor time.

{table(rows, "markdown")}

## The paper's figures

At {PAPER_SIZE[0]}x{PAPER_SIZE[1]} and {PAPER_CHANNELS} channels the paper counts {PAPER_IA_GFLOPS}
GFLOPs for one implicit alignment (Sec. B.3). Projecting keys and values after the four neighbours
were gathered, as the paper counts, takes **{gathered:.2f} GFLOPs**. Projecting the reference once
and gathering afterwards gives the same numbers for **{ours:.2f} GFLOPs**. IART as a whole takes
{network:.2f} TFLOPs a frame here, by the same count of 2 x MAC. The paper has 1.62 (Tab. 5) and
does not say how it was counted.
"""

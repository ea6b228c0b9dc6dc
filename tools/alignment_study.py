"""Run the paper's alignment study (Sec. 5) at CPU scale and write docs/alignment_study.md.

    python tools/alignment_study.py                # every aligner, ground-truth flow, one seed
    python tools/alignment_study.py --full --spynet weights/spynet.pth

A stopped run goes on where it was; ``--report-only`` writes the page from what there is.
"""

import argparse
import shlex
import sys
from dataclasses import fields
from pathlib import Path

import torch

from iart_plugin.study.report import write_report
from iart_plugin.study.rows import ROWS
from iart_plugin.study.run import DEFAULT_ROWS, Study, run
from iart_plugin.study.training import Scale


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("results/alignment_study"))
    parser.add_argument("--full", action="store_true", help="all flows, tables and three seeds")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), help="instead of the default")
    parser.add_argument("--flows", nargs="+", choices=("gt", "noise", "spynet", "raft"))
    parser.add_argument("--spynet", help="SPyNet's weights, for its flow")
    parser.add_argument("--raft", help="weights of torchvision's raft_large, for its flow")
    parser.add_argument("--seeds", type=int, nargs="+")
    for item in fields(Scale):
        if item.type is int:
            name = item.name.replace("_", "-")
            parser.add_argument(f"--{name}", type=int, default=item.default)
    parser.add_argument("--threads", type=int, help="PyTorch's threads")
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--report-only", action="store_true")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    weights = {name: getattr(args, name) for name in ("spynet", "raft") if getattr(args, name)}
    scale = {f.name: getattr(args, f.name) for f in fields(Scale) if f.type is int}
    study = Study(
        folder=args.folder,
        scale=Scale(**scale),
        rows=args.rows or (tuple(ROWS) if args.full else DEFAULT_ROWS),
        flows=args.flows or ("gt", *(("noise",) if args.full else ()), *weights),
        seeds=args.seeds or ((0, 1, 2) if args.full else (0,)),
        flow_weights=weights,
    )
    if not args.report_only:
        run(study, report=lambda line: print(line, flush=True))
    words = [word for word in sys.argv[1:] if word != "--report-only"]
    command = shlex.join(["python", "tools/alignment_study.py", *words])
    print(f"wrote {write_report(study, args.docs, command=command)}")


if __name__ == "__main__":
    main()

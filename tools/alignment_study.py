"""Run the paper's alignment study (Sec. 5) at CPU scale and write docs/alignment_study.md.

    python tools/alignment_study.py                # every aligner, ground-truth flow, one seed
    python tools/alignment_study.py --full --spynet weights/spynet.pth    # about 7 hours

All aligners read zeros outside the frame, only pixels that have a match count, and each row has the
best of three learning rates by validation clips, or that of implicit alignment if it is a variant
of it. ``--full`` adds seeds, flows, Tables 3 and 4, and rows at other settings. A run that was
stopped is resumed by the same command. ``--report-only`` writes the page from the results in the
folder, at the scale that they were made at. It includes every row, flow and seed that has a result,
unless the options choose some.

    python tools/alignment_study.py --print-commands                # for BasicSR and MMagic
    python tools/alignment_study.py --print-commands mmagic --full  # every row under every flow

``--print-commands`` runs nothing. It prints the commands that train the same rows in the
frameworks, at the paper's scale or, with ``--cpu-scale``, at this one.
"""

import argparse
import shlex
import sys
from dataclasses import fields, replace
from pathlib import Path

import torch

from iart_plugin.study.overrides import command_lines
from iart_plugin.study.report import write_report
from iart_plugin.study.rows import FLOWS, ROWS
from iart_plugin.study.run import (
    DEFAULT_ROWS,
    ESTIMATED_FLOWS,
    RUN_FLOWS,
    SETTINGS,
    Study,
    recorded,
    run,
)
from iart_plugin.study.scale import PADDINGS, Scale

FRAMEWORKS = ("basicsr", "mmagic")


def main() -> None:
    """Runs the study that the arguments ask for and writes its report, or prints its commands."""
    args = _arguments()
    rows = args.rows or (tuple(ROWS) if args.full else DEFAULT_ROWS)
    if args.print_commands is not None:
        _print_commands(args, rows)
        return
    if args.threads:
        torch.set_num_threads(args.threads)
    weights = {name: getattr(args, name) for name in ESTIMATED_FLOWS if getattr(args, name)}
    scale = {f.name: getattr(args, f.name) for f in fields(Scale) if f.type is int}
    scale |= {"padding": args.padding, "matched_only": not args.all_pixels}
    study = asked = Study(
        folder=args.folder,
        scale=Scale(**scale),
        rows=rows,
        flows=args.flows or ("gt", *(("noise",) if args.full else ()), *weights),
        seeds=args.seeds or ((0, 1, 2) if args.full else (0,)),
        settings=tuple(SETTINGS) if args.full else (),
        flow_weights=weights,
    )
    if args.report_only:
        study = _of_folder(asked, args)
    else:
        run(study, report=lambda line: print(line, flush=True))
    words = [word for word in sys.argv[1:] if word != "--report-only"]
    command = shlex.join(["python", "tools/alignment_study.py", *words])
    if study.scale != asked.scale or _result_files(study) != _result_files(asked):
        command = ""  # it would run another study than the page is about
    print(f"wrote {write_report(study, args.docs, command=command)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("results/alignment_study"))
    parser.add_argument(
        "--full",
        action="store_true",
        help="all rows, flows and settings, and three seeds: about 7 hours of one core",
    )
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), help="instead of the default")
    parser.add_argument("--flows", nargs="+", choices=RUN_FLOWS)
    parser.add_argument("--spynet", help="SPyNet's weights, for its flow")
    parser.add_argument("--raft", help="weights of torchvision's raft_large, for its flow")
    parser.add_argument("--seeds", type=int, nargs="+")
    for item in fields(Scale):
        if item.type is int:
            name = item.name.replace("_", "-")
            parser.add_argument(f"--{name}", type=int, default=item.default)
    parser.add_argument(
        "--padding", choices=PADDINGS, default="zeros", help="of IA: as the others' or its own"
    )
    parser.add_argument(
        "--all-pixels", action="store_true", help="train on pixels without a match too"
    )
    parser.add_argument("--threads", type=int, help="PyTorch's threads")
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument(
        "--report-only", action="store_true", help="run nothing, and take the scale from --folder"
    )
    parser.add_argument(
        "--print-commands",
        nargs="*",
        choices=FRAMEWORKS,
        help="run nothing, and print the commands that train the rows in these frameworks",
    )
    parser.add_argument("--cpu-scale", action="store_true", help="with --print-commands")
    return parser.parse_args()


def _print_commands(args: argparse.Namespace, rows: tuple[str, ...]) -> None:
    lines = command_lines(
        [ROWS[key] for key in rows],
        args.flows or (FLOWS if args.full else ("gt",)),
        frameworks=args.print_commands or FRAMEWORKS,
        scale="cpu" if args.cpu_scale else "paper",
    )
    print("\n".join(lines))


def _of_folder(asked: Study, args: argparse.Namespace) -> Study:
    """Reads a study's results: the rows, flows and seeds that were asked for, or all of them."""
    found = recorded(args.folder)
    lists = {}
    for name in ("rows", "flows", "seeds"):
        here, wanted = getattr(found, name), getattr(asked, name)
        if getattr(args, name):
            lists[name] = wanted
        elif args.full:  # name what is missing as not run
            lists[name] = list(dict.fromkeys((*here, *wanted)))
    if args.full:
        lists["settings"] = asked.settings
    return replace(found, **lists)


def _result_files(study: Study) -> set[Path]:
    return {study.result_file(job) for job in study.jobs()}


if __name__ == "__main__":
    main()

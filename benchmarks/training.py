"""Runs long checks of training under BasicSR, on data made from one video.

    python -m benchmarks.training [--network small|full] [--only options kills]
        [--files NAME ...] [--processes 1 2] [--output FILE]

``options`` trains with every shipped REDS and Vimeo-90K option file, which have the fields of the
released ones, for 12 iterations with ``fix_flow: 4``, in one process and in two. Only paths,
``num_gpu``, ``total_iter`` and logging are changed. The flow network must not change for four
iterations, and must change after them. ``kills`` kills a training 30 times at random moments; it
must end with the same weights as an uninterrupted one. ``full`` takes the networks as they are,
which takes hours on a CPU; ``small`` makes them narrower. Each row is written as soon as it is
known, and replaces an older one of the same name.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.results import keep

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs" / "basicsr" / "train"
FILES = (
    "IART_REDS_N16_600K",
    "IART_REDS_N6_300K",
    "IART_Vimeo90K_N14_300K",
    "IACNN_REDS_N15_300K",
    "IACNN_Vimeo90K_N14_300K",
)
SMALL = {
    "IART": {"mid_channels": 8, "embed_dim": 12, "depths": [1, 1], "num_heads": [2, 2]},
    "IACNN": {"num_feat": 8, "num_block": 1, "num_heads": 2},
}
ITERATIONS, FIX_FLOW, KILLS = 12, 4, 30
GPUS = torch.cuda.device_count()


def run(command: list[str], folder: Path) -> str:
    """Run a command of this checkout in ``folder`` and return what it printed.

    Raises:
        RuntimeError: if the command fails; the message has the end of what it printed.
    """
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-3000:]}")
    return done.stdout


def make_data(folder: Path, size: int) -> None:
    """Make a set like REDS in ``folder``/tiny, and one like Vimeo-90K that links to its frames."""
    tool = str(ROOT / "tools" / "make_tiny_dataset.py")
    run([tool, "--output", str(folder / "tiny"), "--size", str(size)], folder)
    lines = []
    for clip in range(1, 9):
        for root in ("GT", "BIx4"):
            target = folder / "vimeo" / root / "00001" / f"{clip:04d}"
            target.mkdir(parents=True)
            for frame in range(1, 8):
                source = folder / "tiny" / "train" / root / "001" / f"{7 * clip + frame:08d}.png"
                (target / f"im{frame}.png").symlink_to(source)
        lines.append(f"00001/{clip:04d} 7 ({size},{size},3)\n")
    (folder / "vimeo" / "meta_info.txt").write_text("".join(lines))


def shipped_options(name: str, data: Path, network: str, processes: int) -> dict[str, Any]:
    """Return the content of a shipped option file with the paths and numbers of this check."""
    text = (CONFIGS / f"{name}.yml").read_text()
    plugin = "!!python/name:iart_plugin.basicsr.PLUGIN"
    opt = yaml.safe_load(text.replace(plugin, "iart_plugin.basicsr"))
    train = opt["datasets"]["train"]
    reds = train["type"].startswith("REDS")
    root = data / "tiny" / "train" if reds else data / "vimeo"
    meta = data / "tiny" / "meta_info_GT.txt" if reds else data / "vimeo" / "meta_info.txt"
    train.update(dataroot_gt=str(root / "GT"), dataroot_lq=str(root / "BIx4"))
    train.update(meta_info_file=str(meta))
    del opt["val"], opt["datasets"]["val"]
    opt["network_g"]["spynet_path"] = opt["path"]["pretrain_network_g"] = None
    if network == "small":
        opt["network_g"].update(SMALL[opt["network_g"]["type"]])
        train["gt_size"] = 64
    opt["num_gpu"] = min(GPUS, processes)
    if not GPUS:  # workers would take the processors from the training
        train["num_worker_per_gpu"] = 1
    opt["train"].update(total_iter=ITERATIONS, fix_flow=FIX_FLOW)
    opt["logger"].update(print_freq=1, save_checkpoint_freq=1, use_tb_logger=False)
    return opt


def check_options(
    folder: Path, data: Path, network: str, names: Sequence[str], counts: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Run shipped option files with each number of processes."""
    for name in names:
        for processes in counts:
            here = folder / f"{name}_{processes}"
            here.mkdir()
            opt = shipped_options(name, data, network, processes)
            (here / "train.yml").write_text(yaml.safe_dump(opt))
            launch = []
            if processes > 1:
                launch = ["-m", "torch.distributed.run", "--standalone"]
                launch += [f"--nproc_per_node={processes}"]
            command = [*launch, str(ROOT / "tools" / "basicsr_train.py"), "-opt", "train.yml"]
            printed = run(command + (["--launcher", "pytorch"] if launch else []), here)
            times = iteration_times(printed)
            pace = (times[-1] - times[FIX_FLOW - 1]) / (len(times) - FIX_FLOW)
            models = here / "experiments" / name / "models"
            flow = [spynet(models / f"net_g_{i}.pth") for i in (1, FIX_FLOW, FIX_FLOW + 1)]
            yield {
                "name": f"{name}, {network} network, {processes} processes",
                "processes": processes,
                "iterations": len(times),
                "seconds an iteration": round(pace, 3),
                "clips a second": round(processes / pace, 3),
                "flow rests": torch.equal(flow[0], flow[1]),
                "flow moves after": not torch.equal(flow[1], flow[2]),
            }


def iteration_times(printed: str) -> list[float]:
    """Return when each iteration was logged, in seconds since 1970, from what BasicSR printed."""
    stamps = re.findall(r"^([\d-]+ [\d:]+),(\d+) INFO: \[.*iter: *[\d,]+, lr", printed, re.M)
    return [datetime.fromisoformat(s).timestamp() + int(ms) / 1000 for s, ms in stamps]


def spynet(path: Path) -> torch.Tensor:
    """Return all weights of a checkpoint's flow network in one vector."""
    weights = torch.load(path, weights_only=True)["params"]
    return torch.cat([v.flatten() for k, v in sorted(weights.items()) if k.startswith("spynet")])


def check_kills(folder: Path, data: Path) -> Iterator[dict[str, Any]]:
    """Kill a small run ``KILLS`` times; compare with one that was left alone."""
    found = []
    for kills in (0, KILLS):
        here = folder / f"kills_{kills}"
        here.mkdir()
        opt = shipped_options("IART_REDS_N6_300K", data, "small", 1)
        opt.update(name="run")
        opt["train"].update(total_iter=4 * KILLS, fix_flow=KILLS)
        opt["datasets"]["train"].update(num_worker_per_gpu=2, dataset_enlarge_ratio=1, num_frame=2)
        (here / "train.yml").write_text(yaml.safe_dump(opt))
        script = str(ROOT / "tests" / "basicsr" / "kill_and_resume.py")
        run([script, "train.yml", str(kills), "1"], here)
        path = here / "experiments" / "run" / "models" / "net_g_latest.pth"
        found.append(torch.load(path, weights_only=True))
    same = all(
        torch.equal(value, found[1][entry][key])
        for entry in ("params", "params_ema")
        for key, value in found[0][entry].items()
    )
    yield {"name": f"{KILLS} kills", "iterations": 4 * KILLS, "same weights": same}


def main() -> int:
    """Runs the checks that the command line names; returns 1 if one of them fails, else 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=["small", "full"], default="small")
    parser.add_argument("--only", nargs="+", choices=["options", "kills"], default=None)
    parser.add_argument("--files", nargs="+", choices=FILES, default=FILES, metavar="NAME")
    counts = [1] if GPUS == 1 else [1, 2]
    parser.add_argument("--processes", nargs="+", type=int, choices=counts, default=counts)
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks/training.json"))
    args = parser.parse_args()
    chosen = args.only or ["options", "kills"]
    args.output.parent.mkdir(parents=True, exist_ok=True)
    failed = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data(folder, 256)
        checks = []
        if "options" in chosen:
            checks.append(check_options(folder, folder, args.network, args.files, args.processes))
        if "kills" in chosen:
            checks.append(check_kills(folder, folder))
        for row in itertools.chain(*checks):
            print(json.dumps(row), flush=True)
            keep(row, args.output)
            failed |= any(value is False for value in row.values())
    print(args.output)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

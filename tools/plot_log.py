"""Plot a run from its log: losses, learning rates and validation figures over iterations.

    python tools/plot_log.py RUN [--output plot.png] [--smooth 20]

RUN is a BasicSR log or run folder (experiments/NAME), or an MMagic scalars.json or work folder. A
run that was resumed has several logs. All of them are read; where two have the same iteration, the
later log counts.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

BASICSR_STEP = re.compile(r"\[epoch:\s*\d+, iter:\s*([\d,]+), lr:\(([^)]*)\)\]")
BASICSR_START = re.compile(r"Start training from epoch: \d+, iter: (\d+)")
BASICSR_VALUE = re.compile(r"(\w+): (nan|[-+]?inf|[-+]?\d\.\d+e[-+]\d+)")
BASICSR_METRIC = re.compile(r"^\t # (\w+): ([-+.\w]+)")
MMENGINE_OTHERS = {"iter", "step", "epoch", "time", "data_time", "memory"}
PANELS = {"loss": "loss", "learning rate": "lr"}


class Record(NamedTuple):
    """One logged value; ``panel`` is 'loss', 'lr' or 'validation'."""

    panel: str
    name: str
    iteration: int
    value: float


def read_basicsr(path: Path) -> Iterator[Record]:
    """Yields the records of one BasicSR log.

    A validation belongs to the last iteration logged before it. If a resumed run has logged none
    yet, it belongs to the iteration at which the run was resumed.
    """
    iteration, dataset = 0, ""
    for line in path.read_text(errors="replace").splitlines():
        if step := BASICSR_STEP.search(line):
            iteration = int(step[1].replace(",", ""))
            for index, rate in enumerate(filter(None, step[2].split(","))):
                yield Record("lr", f"group {index}", iteration, float(rate))
            for name, value in BASICSR_VALUE.findall(line[step.end() :]):
                if name.startswith("l_"):
                    yield Record("loss", name, iteration, float(value))
        elif start := BASICSR_START.search(line):
            iteration = int(start[1])
        elif "INFO: Validation " in line:
            dataset = line.rsplit("Validation ", 1)[1].strip()
        elif metric := BASICSR_METRIC.match(line):
            yield Record("validation", f"{dataset} {metric[1]}", iteration, float(metric[2]))


def read_mmengine(path: Path) -> Iterator[Record]:
    """Yields the records of one scalars.json.

    If MMEngine counts epochs, a validation's step is 0. It then belongs to the last iteration
    logged before it, and is left out if there is none.
    """
    iteration = 0
    for line in path.read_text().splitlines():
        values = json.loads(line)
        training = "iter" in values
        iteration = values["iter"] if training else max(iteration, values.get("step", 0))
        if not iteration:
            continue
        for name, value in values.items():
            if name in MMENGINE_OTHERS or not isinstance(value, (int, float)):
                continue
            if not training:
                yield Record("validation", name, iteration, value)
            elif name.endswith("lr"):
                yield Record("lr", name, iteration, value)
            elif "loss" in name:
                yield Record("loss", name, iteration, value)


def find_logs(run: Path) -> list[Path]:
    """Returns the logs of a run in the order in which they were written.

    Raises:
        ValueError: if there is none.
    """
    if run.is_file():
        return [run]
    found = sorted(run.glob("**/vis_data/scalars.json")) or sorted(run.glob("**/train_*.log"))
    if not found:
        raise ValueError(f"{run} holds neither a train_*.log nor a vis_data/scalars.json")
    return found


def read_run(run: Path) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Reads all logs of a run; where two have the same iteration, the later log counts.

    Returns:
        For each panel, its curves by name, each a list of (iteration, value), sorted.

    Raises:
        ValueError: if nothing can be read.
    """
    curves: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    logs = find_logs(run)
    for path in logs:
        records = list((read_mmengine if path.suffix == ".json" else read_basicsr)(path))
        # A validation replaces one of the same iteration, but not that iteration's other values.
        repeated = (r.iteration + (r.panel == "validation") for r in records)
        first = min(repeated, default=math.inf)
        for panel in curves.values():
            for name, points in panel.items():
                # A resumed run repeats what came after its checkpoint.
                panel[name] = {i: v for i, v in points.items() if i < first}
        for record in records:
            curves[record.panel][record.name][record.iteration] = record.value
    if not curves:
        raise ValueError(f"{', '.join(map(str, logs))}: no iteration or validation is logged there")
    return {
        panel: {name: sorted(points.items()) for name, points in named.items() if points}
        for panel, named in curves.items()
    }


def smoothed(values: list[float], width: int) -> list[float]:
    """Replaces each value by the mean of the finite ones among the last ``width`` values."""
    result = []
    for end in range(1, len(values) + 1):
        window = [v for v in values[max(0, end - width) : end] if math.isfinite(v)]
        result.append(sum(window) / len(window) if window else math.nan)
    return result


def plot(run: Path, output: Path, smooth: int) -> None:
    """Draw one panel for each kind of value that the run has logged."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    curves = read_run(run)
    panels = [(title, curves[key]) for title, key in PANELS.items() if curves.get(key)]
    # Figures of several kinds (dB, SSIM) get a panel each.
    for name, points in curves.get("validation", {}).items():
        panels.append((name, {name: points}))
    figure, axes = pyplot.subplots(len(panels), 1, squeeze=False, figsize=(8, 2.6 * len(panels)))
    for axis, (title, named) in zip(axes[:, 0], panels, strict=True):
        for name, points in named.items():
            iterations, values = zip(*points, strict=True)
            if title == "loss" and smooth > 1:
                axis.plot(iterations, values, alpha=0.25)
                values = smoothed(list(values), smooth)
            axis.plot(iterations, values, label=name, marker="." if len(values) < 50 else None)
        axis.set_ylabel(title)
        if title in PANELS:
            axis.set_yscale("log")
            axis.legend()
        axis.grid(alpha=0.3)
    axes[-1, 0].set_xlabel("iteration")
    figure.suptitle(run.name)
    figure.tight_layout()
    figure.savefig(output, dpi=120)


def main(argv: list[str] | None = None) -> None:
    """Reads the logs of a run and writes the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--output", type=Path, default=None, help="default: plot.png in the run")
    parser.add_argument("--smooth", type=int, default=20, help="logged losses in one mean")
    args = parser.parse_args(argv)
    folder = args.run if args.run.is_dir() else args.run.parent
    output = args.output or folder / "plot.png"
    try:
        plot(args.run, output, args.smooth)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(output)


if __name__ == "__main__":
    main()

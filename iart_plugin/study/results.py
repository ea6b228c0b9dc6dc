"""Reads the study's results, and compares them over seeds and clips."""

import json
from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from scipy.stats import wilcoxon
from tabulate import tabulate

from .rows import FLOW_LABELS, ROWS
from .run import Study

Results = dict[tuple[str, str, str], list[dict]]
"""The results by row, flow and setting, one entry for each seed."""


def collect(study: Study) -> Results:
    """Read the results by row, flow and setting, one for each seed, in the order of the jobs."""
    results = defaultdict(list)
    for job in study.jobs():
        path = study.result_file(job)
        if path.exists():
            result = json.loads(path.read_text(encoding="utf-8"))
            results[job.row.key, job.flow, job.setting].append(result)
    return dict(results)


def paired_test(first: list[dict], second: list[dict]) -> tuple[float, float]:
    """Compare two rows clip by clip, using the seeds that both have.

    Args:
        first: One row's results, one entry for each seed.
        second: The other row's results, one entry for each seed.

    Returns:
        The mean over clips of the first row's PSNR minus the second's, in dB on matched pixels, and
        the two-sided p-value of Wilcoxon's signed-rank test on the clips' differences.
    """
    by_seed = [{entry["seed"]: entry for entry in entries} for entries in (first, second)]
    seeds = sorted(by_seed[0].keys() & by_seed[1].keys())
    clips = [key for key in first[0] if key.startswith("psnr_matched/")]
    differences = np.array(
        [np.mean([by_seed[0][s][clip] - by_seed[1][s][clip] for s in seeds]) for clip in clips]
    )
    if not seeds or not differences.any():
        return 0.0, 1.0
    return float(differences.mean()), float(wilcoxon(differences).pvalue)


def flow_label(flow: str) -> str:
    """The name of a flow in tables."""
    return {"noise": "GT + noise", **FLOW_LABELS}[flow]


def flows_of(results: Results) -> list[str]:
    """The flows that have results, the study's first flow first."""
    return list(dict.fromkeys(flow for _, flow, _ in results))


def keys_of(results: Results) -> list[str]:
    """The keys of the rows that have results, in the order of the table of rows."""
    return [key for key in ROWS if any(key == k for k, _, _ in results)]


def mean(entries: list[dict], figure: str = "psnr_matched") -> float:
    """The mean over seeds."""
    return float(np.mean([entry[figure] for entry in entries]))


def spread(entries: list[dict], figure: str = "psnr_matched") -> float:
    """The standard deviation over seeds; NaN for one seed."""
    values = [entry[figure] for entry in entries]
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def markdown_table(header: list[str], rows: Iterable[list[str]]) -> str:
    """A table in Markdown, whose cells are left as they are."""
    return tabulate(list(rows), header, tablefmt="pipe", disable_numparse=True)

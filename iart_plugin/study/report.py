"""Writes ``docs/alignment_study.md`` from the study's results: tables, a plot and their meaning."""

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr, wilcoxon
from tabulate import tabulate

from .rows import FLOW_LABELS, ROWS
from .run import COMPARED_ROWS, SETTINGS, Job, Study

PAGE, PLOT = "alignment_study.md", "alignment_study.png"
Results = dict[tuple[str, str, str], list[dict]]
"""The results by row, flow and setting, one entry for each seed."""


def write_report(study: Study, folder: Path, *, command: str = "") -> Path:
    """Write the page, and its plot if Matplotlib is installed.

    Args:
        study: The study that was run; the page lists the results that are missing.
        folder: The folder to write to.
        command: The command line that writes the report, which the page quotes.

    Returns:
        The page's path.

    Raises:
        ValueError: If the study has no result yet.
    """
    results = collect(study)
    if not results:
        raise ValueError(f"{study.folder / 'results'} holds no result yet: run the study first")
    folder.mkdir(parents=True, exist_ok=True)
    plotted = _plot(results, folder / PLOT)
    missing = [_label(job) for job in study.jobs() if not study.result_file(job).exists()]
    parts = [
        "# Alignment study at CPU scale",
        "<!-- Written by tools/alignment_study.py. Do not edit: run it again. -->",
        _setting(study, results),
        f"By `{command}`." if command else "",
        _table(results),
        f"![PSNR by aligner and flow]({PLOT})" if plotted else "",
        _pairs(results),
        _settings(study, results),
        _comparison(results),
        _baselines(results),
        _caveats(study, results),
        "Not run: " + ", ".join(missing) + "." if missing else "",
    ]
    page = folder / PAGE
    page.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    return page


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


def _label(job: Job) -> str:
    details = (_flow_label(job.flow), f"seed {job.seed}", job.setting)
    return f"{job.row.label} ({', '.join(filter(None, details))})"


def _flow_label(flow: str) -> str:
    return {"noise": "GT + noise", **FLOW_LABELS}[flow]


def _flows(results: Results) -> list[str]:
    return list(dict.fromkeys(flow for _, flow, _ in results))


def _keys(results: Results) -> list[str]:
    return [key for key in ROWS if any(key == k for k, _, _ in results)]


def _mean(entries: list[dict], figure: str = "psnr_matched") -> float:
    return float(np.mean([entry[figure] for entry in entries]))


def _level(first: list[dict] | None, entries: list[dict] | None) -> float:
    """The first flow's mean plus the change to another flow, over the seeds that both have."""
    if not entries:
        return float("nan")
    seeds = {entry["seed"] for entry in entries} & {entry["seed"] for entry in first or ()}
    if not seeds:
        return _mean(entries)
    both = [[entry for entry in flow if entry["seed"] in seeds] for flow in (first, entries)]
    return _mean(first) + _mean(both[1]) - _mean(both[0])


def _spread(entries: list[dict], figure: str = "psnr_matched") -> float:
    """The standard deviation over seeds; NaN for one seed."""
    values = [entry[figure] for entry in entries]
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def _cell(entries: list[dict] | None, figure: str = "psnr_matched") -> str:
    if not entries:
        return ""
    text = f"{_mean(entries, figure):.3f}"
    if len(entries) > 1:
        text += f" ± {_spread(entries, figure):.3f} ({len(entries)} seeds)"
    return text


def _markdown(header: list[str], rows: Iterable[list[str]]) -> str:
    return tabulate(list(rows), header, tablefmt="pipe", disable_numparse=True)


def _setting(study: Study, results: Results) -> str:
    scale, data = study.scale, study.data
    hours = sum(entry["seconds"] for entries in results.values() for entry in entries) / 3600
    loss = (
        "The loss counts the pixels whose match lies inside the crop."
        if scale.matched_only
        else "The loss counts all pixels."
    )
    rate = f"{scale.learning_rate:g}"
    if scale.search_iterations:
        rates = ", ".join(f"{rate:g}" for rate in scale.searched_rates)
        rate = (
            f"the best of {rates} by validation clips after {scale.search_iterations} steps, "
            "chosen for each row under the first flow"
        )
    padding = (
        "all aligners read zeros outside the frame"
        if scale.padding == "zeros"
        else "IA repeats the border outside the frame, the other aligners read zeros"
    )
    return (
        f"Synthetic clips with exact flow ({data['num_train']} for training, {data['num_test']} "
        f"from other photographs for testing, {data['num_frames']} frames of "
        f"{data['height']}x{data['width']}), x4 bicubic. Every row: {scale.iterations} steps of "
        f"{scale.batch_size} crops of {scale.num_frames} frames of "
        f"{scale.crop_size}x{scale.crop_size} low-resolution pixels, {scale.embed_dim} "
        f"channels ({scale.hr_channels} at the high resolution), depths {list(scale.depths)}, "
        f"on a cosine from a learning rate that is {rate}; "
        f"the same data in the same order and the same first weights outside the aligner; "
        f"{padding}. {loss} PSNR is that of RGB, without each clip's last frame, which has nothing "
        f"to align; it counts the pixels that have a match, and \"all pixels\" counts all. "
        f"{hours:.1f} hours of processor time for the results."
    )  # fmt: skip


def _table(results: Results) -> str:
    flows = _flows(results)
    errors = {flow: entries[0]["flow_error"] for (_, flow, _), entries in results.items()}
    header = ["row", "parameters", "rate"]
    header += [f"{_flow_label(flow)} (EPE {errors[flow]:.2f} px)" for flow in flows]
    header += [f"{_flow_label(flows[0])}, all pixels", "paper, GT"]
    lines = []
    for key in _keys(results):
        found = [results.get((key, flow, "")) for flow in flows]
        some = next((entries for entries in found if entries), None)
        if some is None:
            continue
        paper = ROWS[key].paper.get("gt")
        lines.append(
            [
                ROWS[key].label,
                f"{some[0]['parameters']:,}",
                f"{some[0]['learning_rate']:g}",
                *map(_cell, found),
                _cell(found[0], "psnr"),
                f"{paper:.2f}" if paper else "",
            ]
        )
    return _markdown(header, lines)


def _pairs(results: Results) -> str:
    """The table that compares implicit alignment with every other row, clip by clip."""
    flow = _flows(results)[0]
    own = results.get(("implicit", flow, ""))
    lines = []
    for key in _keys(results):
        other = results.get((key, flow, ""))
        if own and other and key != "implicit":
            difference, p = paired_test(own, other)
            lines.append([ROWS[key].label, f"{difference:+.3f}", f"{p:.2g}"])
    if not lines:
        return ""
    count = sum(key.startswith("psnr_matched/") for key in own[0])
    return (
        "## Clip by clip\n\n"
        f"IA's PSNR less another row's under {_flow_label(flow)} flow, the mean of the {count} "
        "test clips, and the p-value of Wilcoxon's signed-rank test on the clips. The clips share "
        "a few photographs, so they are not wholly independent. By Bonferroni's rule for "
        f"{len(lines)} tests, p has to be below {0.05 / len(lines):.1g} for a level of 0.05.\n\n"
        + _markdown(["IA less", "dB", "p"], lines)
    )


def _settings(study: Study, results: Results) -> str:
    """The table of what each setting changes if it alone differs from the scale."""
    flow = _flows(results)[0]
    lines = []
    for setting in SETTINGS:
        for key in COMPARED_ROWS[setting]:
            changed, usual = (results.get((key, flow, name)) for name in (setting, ""))
            if changed and usual:
                seed = changed[0]["seed"]
                same = next((entry for entry in usual if entry["seed"] == seed), None)
                if same:
                    gains = [changed[0][k] - same[k] for k in ("psnr_matched", "psnr")]
                    cells = [f"{changed[0]['psnr_matched']:.3f}", *(f"{g:+.3f}" for g in gains)]
                    lines.append([setting, ROWS[key].label, *cells])
    if not lines:
        return ""
    return (
        "## What the settings decide\n\n"
        "One setting is changed at a time, with the first seed: each aligner's own padding, a loss "
        "that counts all pixels, and four times the steps.\n\n"
        + _markdown(["setting", "row", "dB", "change", "change, all pixels"], lines)
    )


def _comparison(results: Results) -> str:
    """How the order of Table 1's rows compares with the paper's."""
    keys = [k for k in _keys(results) if "Table 1" in ROWS[k].tables and (k, "gt", "") in results]
    if len(keys) < 3:
        return ""
    ours = {key: _mean(results[key, "gt", ""]) for key in keys}
    paper = {key: ROWS[key].paper["gt"] for key in keys}
    correlation = spearmanr(list(ours.values()), list(paper.values())).statistic
    orders = [
        " > ".join(ROWS[key].label for key in sorted(keys, key=scores.get, reverse=True))
        for scores in (ours, paper)
    ]
    agree = "the same as" if orders[0] == orders[1] else "not"
    return (
        "## Against the paper\n\n"
        f"The order under ground-truth flow is {agree} the paper's (rank correlation "
        f"{correlation:.2f} over {len(keys)} rows).\n\n"
        f"* here: {orders[0]}\n* Table 1: {orders[1]}"
    )


def _baselines(results: Results) -> str:
    """The list that says how many aligned rows are above each of the two baselines."""
    aligned = [
        _mean(entries)
        for (key, flow, setting), entries in results.items()
        if flow == "gt" and not setting and ROWS[key].reads_flow
    ]
    lines = []
    for key in ("no_propagation", "no_alignment"):
        if (key, "gt", "") in results and aligned:
            score = _mean(results[key, "gt", ""])
            above = sum(value > score for value in aligned)
            lines.append(
                f"* {above} of {len(aligned)} aligned rows are above {ROWS[key].label} "
                f"({score:.3f} dB)."
            )
    if len(lines) == 2 and _mean(results["no_propagation", "gt", ""]) > max(aligned):
        lines.append(
            "* That no aligned row is above w/o Prop. is not the paper's finding. The fused frame, "
            "whose input also goes round the fusing backbone, is the aligned one, so a network "
            "must first learn to take from the current frame what alignment gets wrong; this run "
            "was too short for that."
        )
    return "\n".join(lines)


def _caveats(study: Study, results: Results) -> str:
    lines = [
        "Numbers compare with each other, not with Table 1: the clips, the network and the length "
        "of training are others.",
        "Ground-truth flow of these clips is exact and their motion rigid by layer, which favours "
        "sub-pixel resampling and disfavours patch alignment.",
    ]
    if study.scale.padding == "own":
        lines.append(
            "Outside the frame IA reads the nearest pixel of the border where the other aligners "
            "read zeros: a part of the differences on all pixels is padding."
        )
    alone = [len(entries) == 1 for (*_, setting), entries in results.items() if not setting]
    if any(alone):
        lines.append(
            f"One seed{'' if all(alone) else ' of some rows'}: without a spread, differences of a "
            "few hundredths of a dB say nothing."
        )
    if study.scale.iterations < 2000:
        lines.append(
            f"{study.scale.iterations} steps are far from convergence: aligners with weights of "
            "their own (IA, FGDC, FGDA) have had little time to learn to resample, those without "
            "need none."
        )
    counts = {len(entries) for (*_, setting), entries in results.items() if not setting}
    if len(counts) > 1:
        lines.append(
            "Cells have different numbers of seeds. One seed's figure is not to be compared with "
            "the mean of several: the plot and the tests on clips use the seeds that both have."
        )
    return "## What this does and does not show\n\n" + "\n".join(f"* {line}" for line in lines)


def _plot(results: Results, path: Path) -> bool:
    """Plot PSNR by flow as in Fig. 3, with the spread over seeds and image alignment dashed.

    If a flow has fewer seeds than the first flow, its point is the first flow's mean plus the
    change that the common seeds show. A line then shows the effect of the flow alone.

    Returns:
        Whether Matplotlib is installed and the plot was written.
    """
    try:
        import matplotlib
    except ModuleNotFoundError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    flows = sorted(_flows(results), key=lambda f: f != "gt")
    colours = iter(matplotlib.colormaps["tab20"].colors)
    for key in _keys(results):
        found = [results.get((key, flow, "")) for flow in flows]
        if not any(found) or (ROWS[key].tables and {*ROWS[key].tables} <= {"Table 3", "Table 4"}):
            continue
        values = [_level(found[0], entries) for entries in found]
        if not ROWS[key].reads_flow:
            level = np.nanmax(values)
            axes.axhline(level, color="0.6", linestyle=":", zorder=0)
            axes.annotate(ROWS[key].label, (len(flows) - 0.9, level), color="0.4", fontsize=8)
            continue
        spreads = [_spread(entries) if entries else np.nan for entries in found]
        style = "--" if ROWS[key].network.get("align") == "images" else "-"
        axes.errorbar(
            range(len(flows)),
            values,
            np.nan_to_num(spreads),
            fmt=f"o{style}",
            color=next(colours),
            capsize=3,
            label=ROWS[key].label,
        )
    axes.set_xticks(range(len(flows)), [_flow_label(f) for f in flows])
    axes.set_xlim(-0.4, len(flows) - 0.2)
    axes.set_ylabel("PSNR on matched pixels (dB)")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return True

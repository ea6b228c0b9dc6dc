"""Writes ``docs/alignment_study.md`` from the study's results: tables, a plot and their meaning."""

from pathlib import Path

import numpy as np

from .findings import (
    baselines_section,
    caveats_section,
    comparison_section,
    conclusion_section,
    pairs_section,
    settings_section,
)
from .results import (
    Results,
    collect,
    flow_label,
    flows_of,
    keys_of,
    markdown_table,
    mean,
    spread,
)
from .rows import ROWS
from .run import Job, Study

PAGE, PLOT = "alignment_study.md", "alignment_study.png"


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
        conclusion_section(results),
        pairs_section(results),
        settings_section(results),
        comparison_section(results),
        baselines_section(results),
        caveats_section(study, results),
        "Not run: " + ", ".join(missing) + "." if missing else "",
    ]
    page = folder / PAGE
    page.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    return page


def _label(job: Job) -> str:
    details = (flow_label(job.flow), f"seed {job.seed}", job.setting)
    return f"{job.row.label} ({', '.join(filter(None, details))})"


def _level(first: list[dict] | None, entries: list[dict] | None) -> float:
    """The first flow's mean plus the change to another flow, over the seeds that both have."""
    if not entries:
        return float("nan")
    seeds = {entry["seed"] for entry in entries} & {entry["seed"] for entry in first or ()}
    if not seeds:
        return mean(entries)
    both = [[entry for entry in flow if entry["seed"] in seeds] for flow in (first, entries)]
    return mean(first) + mean(both[1]) - mean(both[0])


def _cell(entries: list[dict] | None, figure: str = "psnr_matched") -> str:
    if not entries:
        return ""
    text = f"{mean(entries, figure):.3f}"
    if len(entries) > 1:
        text += f" ± {spread(entries, figure):.3f} ({len(entries)} seeds)"
    return text


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
            "chosen for each row under the first flow (for Tables 3 and 4, IA's)"
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
    flows = flows_of(results)
    errors = {flow: entries[0]["flow_error"] for (_, flow, _), entries in results.items()}
    header = ["row", "parameters", "rate"]
    header += [f"{flow_label(flow)} (EPE {errors[flow]:.2f} px)" for flow in flows]
    header += [f"{flow_label(flows[0])}, all pixels", "paper, GT"]
    lines = []
    for key in keys_of(results):
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
    return markdown_table(header, lines)


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
    flows = sorted(flows_of(results), key=lambda f: f != "gt")
    colours = iter(matplotlib.colormaps["tab20"].colors)
    for key in keys_of(results):
        found = [results.get((key, flow, "")) for flow in flows]
        if not any(found) or (ROWS[key].tables and {*ROWS[key].tables} <= {"Table 3", "Table 4"}):
            continue
        values = [_level(found[0], entries) for entries in found]
        if not ROWS[key].reads_flow:
            level = np.nanmax(values)
            axes.axhline(level, color="0.6", linestyle=":", zorder=0)
            axes.annotate(ROWS[key].label, (len(flows) - 0.9, level), color="0.4", fontsize=8)
            continue
        spreads = [spread(entries) if entries else np.nan for entries in found]
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
    axes.set_xticks(range(len(flows)), [flow_label(f) for f in flows])
    axes.set_xlim(-0.4, len(flows) - 0.2)
    axes.set_ylabel("PSNR on matched pixels (dB)")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return True

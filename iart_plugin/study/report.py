"""``docs/alignment_study.md`` from the results of a run: table, plot, and what they mean."""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from .rows import FLOW_LABELS, ROWS
from .run import Study

PAGE, PLOT = "alignment_study.md", "alignment_study.png"


def write_report(study: Study, folder: Path, *, command: str = "") -> Path:
    """Write the page, and its plot if Matplotlib is installed.

    Args:
        study: What was run; results that are missing are named as such.
        folder: Where to write.
        command: The command line that this is a part of, for the page to name.

    Returns:
        The page's path.

    Raises:
        ValueError: If there is no result at all.
    """
    results = collect(study)
    if not results:
        raise ValueError(f"{study.folder / 'results'} holds no result yet: run the study first")
    folder.mkdir(parents=True, exist_ok=True)
    plotted = _plot(results, folder / PLOT)
    missing = [
        f"{row.label} ({_flow_label(flow)}, seed {seed})"
        for row, flow, seed in study.jobs()
        if not study.result_file(row, flow, seed).exists()
    ]
    parts = [
        "# Alignment study at CPU scale",
        "<!-- Written by tools/alignment_study.py. Do not edit: run it again. -->",
        _setting(study, results),
        f"By `{command}`." if command else "",
        _table(results),
        f"![PSNR by aligner and flow]({PLOT})" if plotted else "",
        _comparison(results),
        _baselines(results),
        _caveats(study, results),
        "Not run: " + ", ".join(missing) + "." if missing else "",
    ]
    page = folder / PAGE
    page.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    return page


def collect(study: Study) -> dict[tuple[str, str], list[dict]]:
    """Results by row and flow, one entry a seed, in the order of the study's jobs."""
    results = defaultdict(list)
    for row, flow, seed in study.jobs():
        path = study.result_file(row, flow, seed)
        if path.exists():
            results[row.key, flow].append(json.loads(path.read_text(encoding="utf-8")))
    return dict(results)


def _flow_label(flow: str) -> str:
    return {"noise": "GT + noise", **FLOW_LABELS}[flow]


def _flows(results: dict) -> list[str]:
    return list(dict.fromkeys(flow for _, flow in results))


def _mean(entries: list[dict]) -> float:
    return float(np.mean([entry["psnr"] for entry in entries]))


def _setting(study: Study, results: dict) -> str:
    scale, data = study.scale.describe(), study.data
    seconds = sum(entry["seconds"] for entries in results.values() for entry in entries)
    return (
        f"Synthetic clips with exact flow ({data['num_train']} for training, {data['num_test']} "
        f"from other photographs for testing, {data['num_frames']} frames of "
        f"{data['height']}x{data['width']}), x4 bicubic. Every row: {scale['iterations']} steps of "
        f"{scale['batch_size']} crops of {scale['num_frames']} frames of "
        f"{scale['crop_size']}x{scale['crop_size']} low-resolution pixels, {scale['embed_dim']} "
        f"channels, depths {scale['depths']}, learning rate "
        f"{scale['learning_rate']:g} on a cosine; the same data in the same order and the same "
        f"first weights outside the aligner. PSNR of RGB, without each clip's last frame, which "
        f"has nothing to align. {seconds / 60:.0f} minutes of training in all."
    )


def _table(results: dict) -> str:
    flows = _flows(results)
    errors = {f: results[k][0]["flow_error"] for f in flows for k in results if k[1] == f}
    names = [f"{_flow_label(f)} (EPE {errors[f]:.2f} px)" for f in flows]
    lines = [
        "| row | parameters | " + " | ".join(names) + " | paper, GT |",
        "|---|---|" + "---|" * (len(flows) + 1),
    ]
    for key in dict.fromkeys(key for key, _ in results):
        cells = []
        for flow in flows:
            entries = results.get((key, flow))
            cells.append(_cell(entries) if entries else "")
        parameters = next(e for (k, _), e in results.items() if k == key)[0]["parameters"]
        paper = ROWS[key].paper.get("gt")
        cells.append(f"{paper:.2f}" if paper else "")
        lines.append(f"| {ROWS[key].label} | {parameters:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(entries: list[dict]) -> str:
    text = f"{_mean(entries):.3f}"
    if len(entries) > 1:
        spread = np.std([entry["psnr"] for entry in entries], ddof=1)
        text += f" +- {spread:.3f} ({len(entries)} seeds)"
    return text


def _comparison(results: dict) -> str:
    """How the order of Table 1's rows compares with the paper's."""
    keys = [k for k, flow in results if flow == "gt" and "Table 1" in ROWS[k].tables]
    if len(keys) < 3:
        return ""
    ours = {key: _mean(results[key, "gt"]) for key in keys}
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


def _baselines(results: dict) -> str:
    """How many aligned rows are above each of the two baselines."""
    aligned = [
        _mean(entries)
        for (key, flow), entries in results.items()
        if flow == "gt" and ROWS[key].reads_flow
    ]
    lines = []
    for key in ("no_propagation", "no_alignment"):
        if (key, "gt") in results and aligned:
            score = _mean(results[key, "gt"])
            above = sum(value > score for value in aligned)
            lines.append(
                f"* {above} of {len(aligned)} aligned rows are above {ROWS[key].label} "
                f"({score:.3f} dB)."
            )
    if len(lines) == 2 and _mean(results["no_propagation", "gt"]) > max(aligned):
        lines.append(
            "* That no aligned row is above w/o Prop. is not the paper's finding. The fused frame, "
            "whose input also goes round the fusing backbone, is the aligned one, so a network "
            "must first learn to take from the current frame what alignment gets wrong; this run "
            "was too short for that."
        )
    return "\n".join(lines)


def _caveats(study: Study, results: dict) -> str:
    lines = [
        "Numbers compare with each other, not with Table 1: the clips, the network and the length "
        "of training are others.",
        "Ground-truth flow of these clips is exact and their motion rigid by layer, which favours "
        "sub-pixel resampling and disfavours patch alignment.",
        "Outside the frame IA reads the nearest pixel of the border where the other aligners read "
        "zeros, and PSNR counts all pixels, also those without a match: a part of the differences "
        "is padding.",
    ]
    alone = [len(entries) == 1 for entries in results.values()]
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
    return "## What this does and does not show\n\n" + "\n".join(f"* {line}" for line in lines)


def _plot(results: dict, path: Path) -> bool:
    """Fig. 3's form: PSNR by flow, one line an aligner, image alignment dashed."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    flows = sorted(_flows(results), key=lambda f: f != "gt")
    for key in dict.fromkeys(key for key, _ in results):
        values = [_mean(results[key, f]) if (key, f) in results else np.nan for f in flows]
        if not ROWS[key].reads_flow:
            axes.axhline(values[0], color="0.6", linestyle=":", zorder=0)
            axes.annotate(ROWS[key].label, (len(flows) - 0.9, values[0]), color="0.4", fontsize=8)
            continue
        style = "--" if ROWS[key].network.get("align") == "images" else "-"
        axes.plot(range(len(flows)), values, style, marker="o", label=ROWS[key].label)
    axes.set_xticks(range(len(flows)), [_flow_label(f) for f in flows])
    axes.set_xlim(-0.4, len(flows) - 0.2)
    axes.set_ylabel("PSNR (dB)")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return True

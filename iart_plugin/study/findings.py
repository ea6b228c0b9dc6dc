"""Says what the study's results mean: the sections of the page below the table and the plot."""

from collections.abc import Iterator

from scipy.stats import spearmanr

from .results import Results, flow_label, flows_of, keys_of, markdown_table, mean, paired_test
from .rows import ROWS
from .run import COMPARED_ROWS, SETTINGS, WITHOUT_CURRENT, Study

LEVEL = 0.05  # of significance, for all tests of the page together
SETTING_TEXTS = {
    "own padding": "a repeated border outside the frame, where the other aligners read zeros",
    "current frame refined": "the current frame, not the aligned one, refined by the second half",
    "all pixels": "a loss that counts all pixels",
    "4x steps": "four times the steps",
    "current frame refined and 4x steps": "the current frame refined and four times the steps",
}


def conclusion_section(results: Results) -> str:
    """What the tests and the changed settings allow to say about implicit alignment."""
    flow, compared = flows_of(results)[0], _compared_with_own(results)
    if not compared:
        return ""
    sides = {"better than": [], "worse than": [], "not told apart from": []}
    for key, difference, p in compared:
        side = "better than" if difference > 0 else "worse than"
        is_clear = p < LEVEL / len(compared)
        sides[side if is_clear else "not told apart from"].append(ROWS[key].label)
    found = [f"{side} {', '.join(labels)}" for side, labels in sides.items() if labels]
    lines = [f"Under {flow_label(flow)} flow, IA is {'; '.join(found)}."]
    lines += [_with_setting(results, setting) for setting in SETTINGS]
    lines += [_against_no_propagation(results), _by_steps(results)]
    lines += [_with_flow(results, other) for other in flows_of(results)[1:]]
    return "## What can be concluded\n\n" + "\n".join(f"* {line}" for line in lines if line)


def _compared_with_own(results: Results) -> list[tuple[str, float, float]]:
    """Each other row under the first flow: its key, IA's lead in dB and the test's p-value."""
    flow = flows_of(results)[0]
    own = results.get(("implicit", flow, ""))
    others = [key for key in keys_of(results) if key != "implicit" and (key, flow, "") in results]
    return [(key, *paired_test(own, results[key, flow, ""])) for key in others] if own else []


def _with_setting(results: Results, setting: str) -> str:
    """IA's lead over each compared row with a changed setting, and without it in brackets."""
    changes = {key: pair for key, *pair in _changes(results, setting)}
    own = changes.pop("implicit", None)
    if not own:
        return ""
    leads = [
        f"{ROWS[key].label} {own[0]['psnr_matched'] - changed['psnr_matched']:+.3f} dB "
        f"({own[1]['psnr_matched'] - usual['psnr_matched']:+.3f})"
        for key, (changed, usual) in changes.items()
    ]
    if not leads:
        gain = own[0]["psnr_matched"] - own[1]["psnr_matched"]
        return f"With {SETTING_TEXTS[setting]}, IA gains {gain:+.3f} dB."
    return (
        f"With {SETTING_TEXTS[setting]} (in brackets: without, by the same seed), IA less other "
        f"rows is: {', '.join(leads)}."
    )


def _against_no_propagation(results: Results) -> str:
    """How far from w/o Prop. the rows are, depending on the frame that is refined."""
    found, is_telling = [], True
    for setting, without in WITHOUT_CURRENT.items():
        levels = _without_propagation(results, setting)
        leads = [
            [entry["psnr_matched"] - levels[entry["seed"]] for entry in entries]
            for _, *entries in _changes(results, setting, without)
            if entries[0]["seed"] in levels
        ]
        if leads:
            columns = [*zip(*leads, strict=True)]
            current, aligned = (f"{min(one):+.3f} to {max(one):+.3f} dB" for one in columns)
            found.append(
                f"With {SETTING_TEXTS[setting]}, rows are {current} from w/o Prop.; the same rows "
                f"with the aligned frame refined are {aligned}."
            )
            current, aligned = (max(map(abs, one)) for one in columns)
            is_telling &= current < aligned / 10
    if found and is_telling:
        found.append(
            "So a network of this size and training takes next to nothing from the next frame "
            "unless that is the frame which it refines."
        )
    return " ".join(found)


def _by_steps(results: Results) -> str:
    """Whether the length of training explains that IA is behind FGDC, if it is."""
    changes = {key: entries for key, *entries in _changes(results, "4x steps")}
    if not {"implicit", "fgdc"} <= changes.keys():
        return ""
    behind, behind_before = (
        other["psnr_matched"] - own["psnr_matched"]
        for own, other in zip(changes["implicit"], changes["fgdc"], strict=True)
    )
    if not behind < behind_before / 2:
        return ""
    return (
        f"IA is {behind_before:.3f} dB behind FGDC, and {behind:.3f} dB with four times the steps. "
        "So most of the distance comes from the length of training, not from the method."
    )


def _with_flow(results: Results, flow: str) -> str:
    """What every row of Table 1 loses with another flow, by the seeds that both flows have."""
    first = flows_of(results)[0]
    losses = {
        ROWS[key].label: paired_test(results[key, flow, ""], results[key, first, ""])[0]
        for key in keys_of(results)
        if "Table 1" in ROWS[key].tables and {(key, flow, ""), (key, first, "")} <= {*results}
    }
    changes = [f"{label} {losses[label]:+.3f} dB" for label in sorted(losses, key=losses.get)[::-1]]
    return f"{flow_label(flow)} flow changes {', '.join(changes)}." if changes else ""


def _changes(results: Results, setting: str, without: str = "") -> Iterator[tuple[str, dict, dict]]:
    """Each row that was trained with a setting: its key, and its results with and without it.

    If the setting changes several things, ``without`` can be one that changes some of them.
    """
    flow = flows_of(results)[0]
    for key in COMPARED_ROWS[setting]:
        for changed in results.get((key, flow, setting), ()):
            for usual in results.get((key, flow, without), ()):
                if usual["seed"] == changed["seed"]:
                    yield key, changed, usual


def _without_propagation(results: Results, setting: str) -> dict[int, float]:
    """The PSNR of w/o Prop. that a setting's rows compare with, by seed.

    A setting that leaves w/o Prop. as it is has no training of that row.
    """
    name = WITHOUT_CURRENT.get(setting, setting)
    if name and "no_propagation" not in COMPARED_ROWS[name]:
        name = ""
    entries = results.get(("no_propagation", flows_of(results)[0], name), ())
    return {entry["seed"]: entry["psnr_matched"] for entry in entries}


def pairs_section(results: Results) -> str:
    """The table that compares implicit alignment with every other row, clip by clip."""
    compared = _compared_with_own(results)
    if not compared:
        return ""
    flow = flows_of(results)[0]
    count = sum(key.startswith("psnr_matched/") for key in results["implicit", flow, ""][0])
    lines = [[ROWS[key].label, f"{lead:+.3f}", f"{p:.2g}"] for key, lead, p in compared]
    return (
        "## Clip by clip\n\n"
        f"IA's PSNR less another row's under {flow_label(flow)} flow, the mean of the {count} "
        "test clips, and the p-value of Wilcoxon's signed-rank test on the clips. The clips share "
        "a few photographs, so they are not wholly independent. By Bonferroni's rule for "
        f"{len(lines)} tests, p has to be below {LEVEL / len(lines):.1g} for a level of {LEVEL}.\n"
        "\n" + markdown_table(["IA less", "dB", "p"], lines)
    )


def settings_section(results: Results) -> str:
    """The table of what each setting changes if it alone differs from the scale."""
    lines = []
    for setting in SETTINGS:
        levels = _without_propagation(results, setting)
        for key, changed, usual in _changes(results, setting):
            score, seed = changed["psnr_matched"], changed["seed"]
            gains = [changed[figure] - usual[figure] for figure in ("psnr_matched", "psnr")]
            above = [score - levels[seed]] if seed in levels else []
            figures = [f"{figure:+.3f}" for figure in (*gains, *above)]
            lines.append([setting, ROWS[key].label, f"{score:.3f}", *figures])
    if not lines:
        return ""
    texts = [f"{setting}: {text}" for setting, text in SETTING_TEXTS.items()]
    header = ["setting", "row", "dB", "change", "change, all pixels", "less w/o Prop."]
    return (
        "## What the settings decide\n\n"
        f"One setting is changed at a time, with the first seed ({'; '.join(texts)}).\n\n"
        + markdown_table(header, lines)
    )


def comparison_section(results: Results) -> str:
    """How the order of Table 1's rows compares with the paper's."""
    keys = [k for k in keys_of(results) if "Table 1" in ROWS[k].tables and (k, "gt", "") in results]
    if len(keys) < 3:
        return ""
    ours = {key: mean(results[key, "gt", ""]) for key in keys}
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


def baselines_section(results: Results) -> str:
    """The list that says how many aligned rows are above each of the two baselines."""
    aligned = [
        mean(entries)
        for (key, flow, setting), entries in results.items()
        if flow == "gt" and not setting and ROWS[key].reads_flow
    ]
    lines = []
    for key in ("no_propagation", "no_alignment"):
        if (key, "gt", "") in results and aligned:
            score = mean(results[key, "gt", ""])
            above = sum(value > score for value in aligned)
            lines.append(
                f"* {above} of {len(aligned)} aligned rows are above {ROWS[key].label} "
                f"({score:.3f} dB)."
            )
    if len(lines) == 2 and mean(results["no_propagation", "gt", ""]) > max(aligned):
        lines.append(
            "* That no aligned row is above w/o Prop. is not the paper's finding. The fused frame, "
            "whose input also goes round the fusing backbone, is the aligned one, so a network "
            "must first learn to take from the current frame what alignment gets wrong."
        )
    return "\n".join(lines)


def caveats_section(study: Study, results: Results) -> str:
    """The list of what readers must not conclude."""
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

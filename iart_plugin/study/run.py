"""Runs the whole study at CPU scale: makes the data, trains what is missing, keeps the results."""

import json
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from iart_plugin.archs import AlignmentStudyNet
from iart_plugin.archs.warm_start import set_bilinear
from iart_plugin.data.estimated_flow import weights_of_flow
from iart_plugin.data.synthetic import write_dataset
from iart_plugin.files import write_atomically

from .clips import StudyClips
from .rows import ROWS, Row, rows_of
from .scale import Scale
from .training import evaluate, train

DEFAULT_ROWS = tuple(
    row.key for row in rows_of(("Table 1", "Fig. 3")) if not row.key.startswith("image_")
)
ESTIMATED_FLOWS = ("spynet", "raft")
RUN_FLOWS = ("gt", "noise", *ESTIMATED_FLOWS)
WEIGHTS = "flow_weights"  # the entry of scale.json with the digests of the flow networks' weights
DATA = {"num_train": 40, "num_test": 24, "num_frames": 5, "height": 128, "width": 128}

SETTINGS: dict[str, Callable[[Scale], dict[str, Any]]] = {
    "own padding": lambda scale: {"padding": "own"},
    "current frame refined": lambda scale: {"refined": "current"},
    "all pixels": lambda scale: {"matched_only": False},
    "4x steps": lambda scale: {"iterations": 4 * scale.iterations},
    "current frame refined and 4x steps": lambda scale: {
        "refined": "current",
        "iterations": 4 * scale.iterations,
    },
}
"""Changes to the scale, by name. Some rows are also trained with each, to measure its effect."""
COMPARED_ROWS = {
    "own padding": ("implicit",),
    "current frame refined": ("no_alignment", "bilinear", "fgdc", "implicit"),
    "all pixels": ("no_propagation", "bilinear", "fgdc", "implicit"),
    "4x steps": ("no_propagation", "bilinear", "fgdc", "implicit"),
    "current frame refined and 4x steps": ("bilinear", "implicit"),
}
WITHOUT_CURRENT = {"current frame refined": "", "current frame refined and 4x steps": "4x steps"}
"""For the settings that refine the current frame, those that do not but are the same otherwise.
W/o Prop. has the current frame in place of the aligned one, so it is trained with these alone."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training of a row, with a flow, a seed and at most one changed setting of the scale."""

    row: Row
    flow: str
    seed: int
    setting: str = ""

    @property
    def name(self) -> str:
        """The name of the job's files, without suffix."""
        parts = (self.row.key, self.flow, str(self.seed), self.setting.replace(" ", "_"))
        return "-".join(filter(None, parts))


@dataclass(frozen=True, kw_only=True)
class Study:
    """What a study trains, and where it keeps its files.

    Attributes:
        folder: Holds the data, the checkpoints and the results. A later run of the study in the
            same folder resumes it.
        scale: Steps and sizes, the same for all rows.
        rows: Keys of :data:`~iart_plugin.study.rows.ROWS`.
        flows: One or more of :data:`RUN_FLOWS`: 'gt', 'noise' (ground truth with noise), and
            'spynet' or 'raft', which need weights.
        seeds: A training is done for each seed. The main rows, which are those of Table 1 and
            Fig. 3 and those in no table, are trained with all seeds on the first flow. Everything
            else is trained with the first seed only, and rows in no table with no other flow.
        settings: Keys of :data:`SETTINGS`.
        flow_weights: Weights files of the flow networks, by the flow's name.
        data: Options of :func:`~iart_plugin.data.synthetic.write_dataset`.
    """

    folder: Path
    scale: Scale = field(default_factory=Scale)
    rows: Sequence[str] = DEFAULT_ROWS
    flows: Sequence[str] = ("gt",)
    seeds: Sequence[int] = (0,)
    settings: Sequence[str] = ()
    flow_weights: dict[str, str] = field(default_factory=dict)
    data: dict[str, int] = field(default_factory=lambda: dict(DATA))

    def jobs(self) -> list[Job]:
        """All trainings of the study, the most important ones first."""
        chosen = [ROWS[key] for key in self.rows]
        main = [row for row in chosen if not row.tables or {"Table 1", "Fig. 3"} & {*row.tables}]
        (flow, *other_flows), (seed, *other_seeds) = self.flows, self.seeds
        jobs = [Job(row=row, flow=flow, seed=seed) for row in main]
        for setting in self.settings:
            rows = [row for row in main if row.key in COMPARED_ROWS[setting]]
            jobs += [Job(row=row, flow=flow, seed=seed, setting=setting) for row in rows]
        jobs += [Job(row=row, flow=flow, seed=other) for other in other_seeds for row in main]
        jobs += [
            Job(row=row, flow=other, seed=seed)
            for other in other_flows
            for row in main
            if row.reads_flow and row.tables
        ]
        jobs += [
            Job(row=row, flow=other, seed=seed)
            for row in chosen
            if row not in main
            for other in self.flows
            if other == flow or other in row.flows
        ]
        return jobs

    def result_file(self, job: Job) -> Path:
        """The file that holds the result of a job."""
        return self.folder / "results" / f"{job.name}.json"

    def scale_of(self, setting: str) -> Scale:
        """The scale with a setting of :data:`SETTINGS` applied; '' changes nothing."""
        return replace(self.scale, **SETTINGS[setting](self.scale)) if setting else self.scale

    @property
    def scale_file(self) -> Path:
        """The file that records the scale of the results."""
        return self.folder / "scale.json"


def recorded(folder: Path) -> Study:
    """Read the study that a folder holds: its scale, and the rows, flows and so on with results.

    Raises:
        FileNotFoundError: If no study was run there.
        ValueError: If the study was run by an earlier version of this program.
    """
    path = Study(folder=folder).scale_file
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run the study there, or give its folder")
    found = json.loads(path.read_text(encoding="utf-8"))
    lacking = [item.name for item in fields(Scale) if item.name not in found]
    if lacking:
        raise ValueError(f"{path} is of an earlier version and has no {lacking[0]}: run it again")
    scale = {
        item.name: tuple(value) if isinstance(value := found[item.name], list) else value
        for item in fields(Scale)
    }
    results = [
        json.loads(result.read_text(encoding="utf-8")) for result in folder.glob("results/*.json")
    ]
    rows, flows, seeds, settings = (
        {result[key] for result in results} for key in ("row", "flow", "seed", "setting")
    )
    # Rows that read no flow have results for the study's first flow only, which tells which it was.
    first = {result["flow"] for result in results if not ROWS[result["row"]].reads_flow}
    return Study(
        folder=folder,
        scale=Scale(**scale),
        rows=[key for key in ROWS if key in rows],
        flows=sorted(flows, key=lambda flow: (flow not in first, RUN_FLOWS.index(flow))),
        seeds=sorted(seeds),
        settings=[setting for setting in SETTINGS if setting in settings],
        data=found["data"],
    )


def run(study: Study, *, report: Callable[[str], None] = print) -> list[dict]:
    """Run the jobs of a study that have no result yet.

    Args:
        study: The study.
        report: Called with a line of text for each clip made and each job done.

    Returns:
        The results of all jobs: row, flow, seed, setting, PSNR, learning rate and so on.

    Raises:
        ValueError: If the folder holds a study at another scale or with other flow weights.
    """
    _check_same_study(study)
    data = StudyClips(
        study.folder,
        study.scale,
        flow_weights=study.flow_weights,
        estimated=[flow for flow in study.flows if flow in ESTIMATED_FLOWS],
    )
    for name, is_new in write_dataset(data.root, **study.data):
        if is_new:
            report(f"made clip {name}")
    jobs, results = study.jobs(), []
    for number, job in enumerate(jobs, start=1):
        path = study.result_file(job)
        if not path.exists():
            rate = _learning_rate(study, job.row, data, report)
            _run_job(study, job, data, rate)
        result = json.loads(path.read_text(encoding="utf-8"))
        label = ", ".join(filter(None, (job.row.label, job.flow, f"seed {job.seed}", job.setting)))
        report(f"{number}/{len(jobs)} {label}: {result['psnr_matched']:.3f} dB")
        results.append(result)
    return results


def build_row(row: Row, scale: Scale, seed: int) -> AlignmentStudyNet:
    """The network of a row before training."""
    network = scale.build(row.network, seed)
    if row.bilinear_values:
        bilinear = deepcopy(network.alignment)
        with torch.no_grad():
            set_bilinear(bilinear)
        network.alignment.v.load_state_dict(bilinear.v.state_dict())
    return network


def _run_job(study: Study, job: Job, data: StudyClips, rate: float) -> None:
    scale = replace(study.scale_of(job.setting), learning_rate=rate)
    network = build_row(job.row, scale, job.seed)
    checkpoint = study.folder / "checkpoints" / f"{job.name}.pt"
    samples, clips, flow_error = data.load(job.flow)
    started = time.process_time()
    train(network, samples, scale, seed=job.seed, checkpoint=checkpoint)
    result = {
        "row": job.row.key,
        "flow": job.flow,
        "seed": job.seed,
        "setting": job.setting,
        "learning_rate": rate,
        "flow_error": flow_error,
        "parameters": sum(p.numel() for p in network.parameters()),
        # If the training was resumed, this counts only the time since then.
        "seconds": round(time.process_time() - started, 1),
        **evaluate(network, clips),
    }
    _write(study.result_file(job), result)


def _learning_rate(
    study: Study, row: Row, data: StudyClips, report: Callable[[str], None]
) -> float:
    """The learning rate with which a row, or the one it is a variant of, does best in validation.

    The search trains every row for a short time at each rate, with the first flow, and never looks
    at the test clips. If the scale has no search, its own learning rate is returned.
    """
    scale = study.scale
    if not scale.search_iterations:
        return scale.learning_rate
    row = ROWS[row.rate_of or row.key]
    scores = {}
    for rate in scale.searched_rates:
        name = f"{row.key}-{rate:g}"
        path = study.folder / "search" / f"{name}.json"
        if not path.exists():
            short = replace(scale, iterations=scale.search_iterations, learning_rate=rate)
            network = build_row(row, short, study.seeds[0])
            checkpoint = study.folder / "checkpoints" / f"search-{name}.pt"
            samples, _, _ = data.load(study.flows[0])
            train(network, samples, short, seed=study.seeds[0], checkpoint=checkpoint)
            score = evaluate(network, data.validation())["psnr_matched"]
            _write(path, {"row": row.key, "learning_rate": rate, "psnr_matched": score})
            report(f"searched {row.label}, rate {rate:g}: {score:.3f} dB on validation clips")
        scores[rate] = json.loads(path.read_text(encoding="utf-8"))["psnr_matched"]
    return max(scores, key=scores.__getitem__)


def _write(path: Path, values: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(values, indent=2) + "\n")


def _check_same_study(study: Study) -> None:
    path = study.scale_file
    scale = json.loads(json.dumps({**asdict(study.scale), "data": study.data}))
    weights = {
        flow: weights_of_flow(flow, study.flow_weights.get(flow))
        for flow in study.flows
        if flow in ESTIMATED_FLOWS
    }
    weights = {flow: digest for flow, digest in weights.items() if digest is not None}
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        known = found.pop(WEIGHTS, {})  # digests for the flows used so far; older files have none
        if found != scale:
            changed = {
                key: (found.get(key), scale.get(key))
                for key in {*found, *scale}
                if found.get(key) != scale.get(key)
            }
            raise ValueError(
                f"{study.folder} holds a study at another scale ({changed}); give another folder"
            )
        for flow, digest in weights.items():
            if known.get(flow, digest) != digest:
                raise ValueError(
                    f"{study.folder} holds a study of other {flow} weights than "
                    f"{study.flow_weights.get(flow, digest)}; give another folder"
                )
        weights = {**known, **weights}
    _write(path, {**scale, WEIGHTS: weights} if weights else scale)

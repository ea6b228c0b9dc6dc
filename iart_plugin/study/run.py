"""The whole study at CPU scale: makes the data, trains what is missing, keeps every result."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from iart_plugin.data import SintelFlowDataset
from iart_plugin.data.estimated_flow import weights_of_flow
from iart_plugin.data.synthetic import write_dataset
from iart_plugin.files import write_atomically

from .rows import ROWS, Row, rows_of
from .scale import Scale
from .training import add_flow_noise, evaluate, train

DEFAULT_ROWS = tuple(
    row.key for row in rows_of(("Table 1", "Fig. 3")) if not row.key.startswith("image_")
)
ESTIMATED_FLOWS = ("spynet", "raft")
RUN_FLOWS = ("gt", "noise", *ESTIMATED_FLOWS)
WEIGHTS = "flow_weights"  # the entry of the scale's file that tells estimated flows' weights apart
NOISE_SIGMA = 0.5  # low-resolution pixels, about SPyNet's own error on Sintel's harder clips
DATA = {"num_train": 24, "num_test": 6, "num_frames": 5, "height": 128, "width": 128}


@dataclass(frozen=True, kw_only=True)
class Study:
    """What to run.

    Attributes:
        folder: Holds the data, the checkpoints and the results; a second call goes on there.
        scale: Steps and sizes, the same for all rows.
        rows: Keys of :data:`~iart_plugin.study.rows.ROWS`.
        flows: Of :data:`RUN_FLOWS`: 'gt', 'noise' (ground truth with noise), and 'spynet' or 'raft'
            with weights.
        seeds: Each is a whole run.
        flow_weights: Weights of the flow networks by name.
        data: Options of :func:`~iart_plugin.data.synthetic.write_dataset`.
    """

    folder: Path
    scale: Scale = field(default_factory=Scale)
    rows: Sequence[str] = DEFAULT_ROWS
    flows: Sequence[str] = ("gt",)
    seeds: Sequence[int] = (0,)
    flow_weights: dict[str, str] = field(default_factory=dict)
    data: dict[str, int] = field(default_factory=lambda: dict(DATA))

    def jobs(self) -> list[tuple[Row, str, int]]:
        """Every (row, flow, seed); rows that read no flow run under the first only."""
        chosen = [ROWS[key] for key in self.rows]
        return [
            (row, flow, seed)
            for seed in self.seeds
            for flow in self.flows
            for row in chosen
            if flow == self.flows[0] or row.reads_flow
        ]

    def result_file(self, row: Row, flow: str, seed: int) -> Path:
        return self.folder / "results" / f"{row.key}-{flow}-{seed}.json"

    @property
    def scale_file(self) -> Path:
        return self.folder / "scale.json"


def recorded(folder: Path) -> Study:
    """The study that a folder holds: its scale, and every row, flow and seed with a result.

    Raises:
        FileNotFoundError: If no study was run there.
    """
    path = Study(folder=folder).scale_file
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run the study there, or give its folder")
    found = json.loads(path.read_text(encoding="utf-8"))
    scale = {item.name: found[item.name] for item in fields(Scale)}
    results = [
        json.loads(result.read_text(encoding="utf-8")) for result in folder.glob("results/*.json")
    ]
    rows, flows, seeds = ({result[key] for result in results} for key in ("row", "flow", "seed"))
    # Where a study has rows without flow, their results are under its first flow only.
    first = {result["flow"] for result in results if not ROWS[result["row"]].reads_flow}
    return Study(
        folder=folder,
        scale=Scale(**{**scale, "depths": tuple(scale["depths"])}),
        rows=[key for key in ROWS if key in rows],
        flows=sorted(flows, key=lambda flow: (flow not in first, RUN_FLOWS.index(flow))),
        seeds=sorted(seeds),
        data=found["data"],
    )


def run(study: Study, *, report: Callable[[str], None] = print) -> list[dict]:
    """Run what is not done yet.

    Args:
        study: What to run.
        report: Told one line for each clip made and job done.

    Returns:
        The results of all jobs: row, flow, seed, PSNR and how they were got.

    Raises:
        ValueError: If the folder holds a study at another scale, or of other flow weights.
    """
    _check_same_study(study)
    root = study.folder / "data"
    for name, is_new in write_dataset(root, **study.data):
        if is_new:
            report(f"made clip {name}")
    jobs, results, loaded = study.jobs(), [], {}
    for number, (row, flow, seed) in enumerate(jobs, start=1):
        path = study.result_file(row, flow, seed)
        if not path.exists():
            if flow not in loaded:
                loaded = {flow: _load(study, root, flow)}  # one flow's samples at a time
            _run_job(study, row, flow, seed, *loaded[flow])
        result = json.loads(path.read_text(encoding="utf-8"))
        report(f"{number}/{len(jobs)} {row.label}, {flow}, seed {seed}: {result['psnr']:.3f} dB")
        results.append(result)
    return results


def _run_job(
    study: Study, row: Row, flow: str, seed: int, samples: list, clips: list, flow_error: float
) -> None:
    network = study.scale.build(row.network, seed)
    checkpoint = study.folder / "checkpoints" / f"{row.key}-{flow}-{seed}.pt"
    started = time.perf_counter()
    train(network, samples, study.scale, seed=seed, checkpoint=checkpoint)
    result = {
        "row": row.key,
        "flow": flow,
        "seed": seed,
        "flow_error": flow_error,
        "parameters": sum(p.numel() for p in network.parameters()),
        "seconds": round(time.perf_counter() - started, 1),
        **evaluate(network, clips),
    }
    path = study.result_file(row, flow, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(result, indent=2) + "\n")


def _load(study: Study, root: Path, flow: str) -> tuple[list[dict], list[dict], float]:
    """Training samples, test clips and the test flow's end-point error, all in memory."""
    source = "gt" if flow == "noise" else flow
    options = {"flow": source, "flow_weights": study.flow_weights.get(source)}
    num_frames = study.scale.num_frames
    samples = list(SintelFlowDataset(root, clips="train", num_frames=num_frames, **options))
    clips = list(SintelFlowDataset(root, clips="test", **options))
    if flow == "noise":
        add_flow_noise(samples, NOISE_SIGMA, seed=1)
        return samples, clips, add_flow_noise(clips, NOISE_SIGMA, seed=2)
    truth = SintelFlowDataset(root, clips="test") if source != "gt" else clips
    return samples, clips, _end_point_error(clips, truth)


def _end_point_error(clips, truth) -> float:
    total = count = 0.0
    for clip, true in zip(clips, truth, strict=True):
        error = (clip["flows"] - true["flows"]).norm(dim=1, keepdim=True)
        total += (error * true["valid"]).sum().item()
        count += true["valid"].sum().item()
    return total / count


def _check_same_study(study: Study) -> None:
    path = study.scale_file
    scale = {**study.scale.describe(), "data": study.data}
    weights = {
        flow: weights_of_flow(flow, study.flow_weights.get(flow))
        for flow in study.flows
        if flow in ESTIMATED_FLOWS
    }
    weights = {flow: digest for flow, digest in weights.items() if digest is not None}
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        known = found.pop(WEIGHTS, {})  # of the flows run so far; none in older files
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
    study.folder.mkdir(parents=True, exist_ok=True)
    kept = {**scale, WEIGHTS: weights} if weights else scale
    write_atomically(path, json.dumps(kept, indent=2) + "\n")

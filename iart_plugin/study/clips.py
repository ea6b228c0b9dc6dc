"""The study's clips in memory, with ground-truth flow, estimated flow, or noise on it."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from iart_plugin.data import SintelFlowDataset
from iart_plugin.data.sintel_files import clip_names
from iart_plugin.files import write_atomically

from .scale import Scale
from .training import add_flow_noise

NOISE_SIGMA = 0.5  # low-resolution pixels, where no estimated flow says how large errors are
VALIDATION_SHARE = 5  # one clip of so many training clips is kept for the search of rates


class StudyClips:
    """The study's clips in memory, under one flow at a time.

    Args:
        folder: The study's folder, in which ``data`` has the clips.
        scale: Says how long a training sample is and whether learning rates are searched for.
        flow_weights: Weights of the flow networks by name.
        estimated: The estimated flows of the study.
    """

    def __init__(
        self,
        folder: Path,
        scale: Scale,
        *,
        flow_weights: dict[str, str],
        estimated: Sequence[str] = (),
    ) -> None:
        self.folder, self.root, self.scale = folder, folder / "data", scale
        self.flow_weights, self.estimated = flow_weights, estimated
        self._flow, self._loaded = "", ([], [], math.nan)

    def load(self, flow: str) -> tuple[list[dict], list[dict], float]:
        """Training samples, test clips and the mean end-point error of the test clips' flow."""
        if flow != self._flow:
            self._flow, self._loaded = flow, self._load(flow)
        return self._loaded

    def validation(self) -> list[dict]:
        """Clips that nothing is trained on, for the choice of learning rates."""
        return self._clips(self._split()[1], "gt")

    def _split(self) -> tuple[list[str], list[str]]:
        """The clips to train on and those to validate on, which only a search needs."""
        names = clip_names(self.root, "train")
        if not self.scale.search_iterations:
            return names, []
        count = max(len(names) // VALIDATION_SHARE, 1)
        if len(names) <= count:
            raise ValueError(f"a search of learning rates needs 2 training clips, not {len(names)}")
        return names[:-count], names[-count:]

    def _clips(self, names: list[str], flow: str, num_frames: int | None = None) -> list[dict]:
        options = {"flow": flow, "flow_weights": self.flow_weights.get(flow)}
        return list(SintelFlowDataset(self.root, clips=names, num_frames=num_frames, **options))

    def _load(self, flow: str) -> tuple[list[dict], list[dict], float]:
        source = "gt" if flow == "noise" else flow
        parts = []
        for names, length in (
            (self._split()[0], self.scale.num_frames),
            (clip_names(self.root, "test"), None),
        ):
            samples = self._clips(names, source, length)
            if source != "gt":  # the pixels that count are the same ones under every flow
                truth = self._clips(names, "gt", length)
                for sample, true in zip(samples, truth, strict=True):
                    sample["valid"], sample["true_flows"] = true["valid"], true["flows"]
            parts.append(samples)
        samples, clips = parts
        if flow == "noise":
            sigma = self._noise_sigma()
            add_flow_noise(samples, sigma, seed=1)
            return samples, clips, add_flow_noise(clips, sigma, seed=2)
        return samples, clips, _end_point_error(clips)

    def _noise_sigma(self) -> float:
        """The noise whose end-point error is that of the first estimated flow there is."""
        path = self.folder / "noise.json"
        if not path.exists():
            values = {"flow": None, "sigma": NOISE_SIGMA}
            if self.estimated:
                error = self._load(self.estimated[0])[2]
                # The mean length of a plane Gaussian vector is sigma * sqrt(pi / 2).
                values = {"flow": self.estimated[0], "sigma": error / math.sqrt(math.pi / 2)}
            write_atomically(path, json.dumps(values, indent=2) + "\n")
        return json.loads(path.read_text(encoding="utf-8"))["sigma"]


def _end_point_error(clips: list[dict]) -> float:
    """The mean length of the error of the flow, in low-resolution pixels, where a match exists."""
    total = count = 0.0
    for clip in clips:
        true = clip.get("true_flows", clip["flows"])
        error = (clip["flows"] - true).norm(dim=1, keepdim=True)
        total += (error * clip["valid"]).sum().item()
        count += clip["valid"].sum().item()
    return total / count

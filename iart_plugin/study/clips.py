"""The study's clips in memory, with ground-truth, estimated or noisy flow."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from iart_plugin.data import SintelFlowDataset
from iart_plugin.data.sintel_files import clip_names
from iart_plugin.files import write_atomically

from .scale import Scale
from .training import add_flow_noise

NOISE_SIGMA = 0.5  # low-resolution pixels; used if there is no estimated flow to match
VALIDATION_SHARE = 5  # one training clip in five is kept aside to choose learning rates with


class StudyClips:
    """The study's clips in memory, loaded with one kind of flow at a time.

    Args:
        folder: The study's folder; the clips are in its subfolder ``data``.
        scale: Decides how long a training sample is and whether learning rates are searched for.
        flow_weights: Weights files of the flow networks, by the flow's name.
        estimated: The names of the estimated flows that the study uses.
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
        """Load the training samples, the test clips and the mean end-point error of their flow."""
        if flow != self._flow:
            self._flow, self._loaded = flow, self._load(flow)
        return self._loaded

    def validation(self) -> list[dict]:
        """Load the clips that learning rates are chosen with; no network is trained on them."""
        return self._clips(self._split()[1], "gt")

    def _split(self) -> tuple[list[str], list[str]]:
        """The clips to train on and, if learning rates are searched for, those to validate on."""
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
            if source != "gt":  # with every flow, the same pixels count
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
        """The standard deviation of noise as large as the first estimated flow's error."""
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
    """The mean end-point error over pixels that have a match, in low-resolution pixels."""
    total = count = 0.0
    for clip in clips:
        true = clip.get("true_flows", clip["flows"])
        error = (clip["flows"] - true).norm(dim=1, keepdim=True)
        total += (error * clip["valid"]).sum().item()
        count += clip["valid"].sum().item()
    return total / count

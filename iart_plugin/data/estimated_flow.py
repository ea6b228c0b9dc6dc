"""Flow that a network estimates between two frames, computed once and kept in files."""

import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from iart_plugin.data.flow_io import FLO_UNKNOWN_FROM, read_flow, write_flow
from iart_plugin.data.recipe import record_recipe
from iart_plugin.weight_files import file_digest


@dataclass(frozen=True)
class EstimatedFlow:
    """Estimated flow, kept in its own folder with a record of the weights that it was made with.

    Attributes:
        source: 'spynet' or 'raft'.
        weights: The flow network's weights file. SPyNet needs one; for RAFT, None means the weights
            that torchvision downloads.
        folder: The folder of the flow files ``<clip>/frame_0001.flo`` and so on.
    """

    source: str
    weights: str | Path | None
    folder: Path

    def check(self, made_with: dict[str, str | int]) -> None:
        """Record what the flow is made with, or compare it with the folder's existing record.

        A complete folder needs no weights, so nothing is checked if none are given.

        Raises:
            ValueError: If the folder holds flow of other weights or frames.
            PermissionError: If the folder cannot be written to.
        """
        digest = weights_of_flow(self.source, self.weights)
        if digest is None:
            return
        recipe = {"flow": self.source, **made_with, "weights": digest}
        try:
            record_recipe(self.folder, recipe, files="*/*.flo")
        except PermissionError as error:
            raise PermissionError(
                f"{self.folder} cannot be written to; pass a writable cache_dir"
            ) from error

    def between(self, clip: str, number: int, frames: Tensor) -> np.ndarray:
        """The flow from a frame to the next one, read from its file, or estimated and written.

        Args:
            clip: The clip's name.
            number: The first frame's number.
            frames: The two frames, (2, 3, h, w) in [0, 1].

        Returns:
            ``(h, w, 2)`` float32, x then y, in pixels of these frames.

        Raises:
            ValueError: If a vector is not finite or has a component of 1e9 or more, as happens with
                damaged weights, or if the file belongs to frames of another size.
        """
        path = self.folder / clip / f"frame_{number:04d}.flo"
        if not path.exists():
            with torch.no_grad():
                flow = self._network(frames[:1], frames[1:])[0].permute(1, 2, 0).numpy()
            if not (np.abs(flow) < FLO_UNKNOWN_FROM).all():  # nor NaN
                raise ValueError(
                    f"{self.source} flow of clip {clip} is no displacement: the weights "
                    f"({self.weights or 'torchvision'}) are damaged"
                )
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_flow(path, flow)
            except PermissionError as error:
                raise PermissionError(
                    f"{path} cannot be written; pass a writable cache_dir"
                ) from error
        flow = read_flow(path)
        if not np.isfinite(flow).all():
            raise ValueError(f"{path} has unknown vectors, but it was estimated: delete it")
        if flow.shape[:2] != frames.shape[-2:]:
            raise ValueError(
                f"{path}: size {flow.shape[:2]} for frames of {tuple(frames.shape[-2:])}: delete it"
            )
        return flow

    @cached_property
    def _network(self) -> torch.nn.Module:
        # Built at first use: a complete folder needs neither the weights nor the memory.
        from iart_plugin.flow import build_flow_estimator

        return build_flow_estimator(self.source, self.weights)


def weights_of_flow(flow: str, path: str | Path | None) -> str | None:
    """A text that identifies a flow network's weights: their digest, or None if there is no file.

    Args:
        flow: 'spynet' or 'raft'.
        path: The weights file. If it is missing, a warning says so. None means torchvision's
            weights for RAFT.
    """
    if path is None:
        return "torchvision's" if flow == "raft" else None
    if Path(path).is_file():
        return file_digest(path)
    warnings.warn(
        f"flow_weights {path} is not a file, so {flow} flow that was estimated before is used "
        "whatever weights it is from; correct the path unless the file was removed on purpose",
        stacklevel=5,
    )
    return None

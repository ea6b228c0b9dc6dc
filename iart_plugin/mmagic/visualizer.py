"""A visualizer that shows one frame of each validated clip, and not all frames as MMagic's does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmagic.registry import VISUALIZERS
from mmagic.visualization import ConcatImageVisualizer
from mmengine.dist import master_only
from torch import Tensor


@VISUALIZERS.register_module()
class MiddleFrameVisualizer(ConcatImageVisualizer):
    """Shows the middle frame: ground truth, input and output beside each other.

    MMagic's visualizer puts every frame of a clip into one picture, which takes 276 MB for 100
    frames of 1280x720. It names the picture after the first frame's file, and as all clips of a
    data set share that name, only the last clip would be shown. With several processes, all would
    write to the same files; here only the first process shows its clips. The arguments are those of
    MMagic's visualizer.
    """

    @master_only
    def add_datasample(self, data_sample: Any, step: int = 0) -> None:
        """Hands one frame of a sample to the backends.

        Args:
            data_sample: an MMagic DataSample whose pictures are (t, 3, h, w) or (3, h, w), with
                their files under ``fn_key``.
            step: the iteration.
        """
        content = _middle(data_sample.to_dict())
        # The output's entry holds the names of the files too.
        content |= content.pop("output", {})
        content[self.fn_key] = _name(content[self.fn_key])
        super().add_datasample(_Shown(content), step)


class _Shown(NamedTuple):
    """The part of a sample that MMagic's visualizer reads."""

    content: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return self.content


def _name(paths: str | Sequence[str]) -> str:
    """One word from the folder, clip and frame of the middle file.

    MMagic uses only the last part of a path as the picture's name.
    """
    path = paths if isinstance(paths, str) else paths[len(paths) // 2]
    return re.sub(r"[\s./\\]+", "_", "_".join(Path(path).with_suffix("").parts[-3:])).strip("_")


def _middle(value: Any) -> Any:
    """The middle of every clip in nested dictionaries."""
    if isinstance(value, dict):
        return {key: _middle(part) for key, part in value.items()}
    is_clip = isinstance(value, Tensor) and value.dim() == 4
    return value[value.shape[0] // 2] if is_clip else value

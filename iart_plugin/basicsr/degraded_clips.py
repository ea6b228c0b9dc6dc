"""A data set of clean clips that are degraded at random while they are read."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from basicsr.data.transforms import augment
from basicsr.utils import img2tensor
from basicsr.utils.img_process_util import usm_sharp
from torch import Tensor

from iart_plugin.basicsr.checks.clips import find_clips
from iart_plugin.basicsr.checks.schema import check_section
from iart_plugin.basicsr.dataset_schema import DegradedClips
from iart_plugin.basicsr.degradation import degrade
from iart_plugin.basicsr.random_state import seeded
from iart_plugin.pictures import picture_size, read_picture


class DegradedClipsDataset(torch.utils.data.Dataset):
    """Clips of clean frames, with the low-resolution frames that the random degradation makes.

    Every folder in ``dataroot_gt`` is a clip, and its pictures in natural order are the frames. In
    training, an item is a random window of a clip, cropped, flipped and then degraded. In
    validation and tests it is a whole clip, or its first ``num_frame`` frames, and it is degraded
    in the same way each time.

    An item has ``lq`` (t, 3, h, w), ``gt`` (t, 3, 4h, 4w), ``key`` and ``folder``. In training it
    also has ``gt_usm`` (t, 3, 4h, 4w) if ``sharpen`` is set: the sharpened ground truth, from which
    ``lq`` is then made, as in RealBasicVSR. All are RGB in [0, 1].

    Args:
        opt: The options of one data set, ``scale`` and ``phase`` included;
            :class:`iart_plugin.basicsr.dataset_schema.DegradedClips` lists them.

    Raises:
        OptionError: on an unknown key or value, or if there are no clips or too few frames.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        super().__init__()
        check_section(DegradedClips, opt, f"data set '{opt.get('name')}'")
        self.opt = opt
        self.settings = DegradedClips.model_validate(opt)
        self.clips = find_clips(opt)
        # BasicSR's validation counts the frames of each folder with this.
        self.data_info = {"folder": [name for name, paths in self.clips.items() for _ in paths]}

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name = list(self.clips)[index]
        if self.settings.phase != "train":
            frames = [_read(path) for path in self.clips[name]]
            with seeded(self.settings.seed, index):
                return {**self._degraded(frames), "key": name, "folder": name}
        first, frames = self._window(self.clips[name])
        frames = augment(frames, self.settings.use_hflip, self.settings.use_rot)
        frames = frames if isinstance(frames, list) else [frames]
        if self.settings.mirror_sequence:
            frames = [*frames, *reversed(frames)]
        frames = [np.ascontiguousarray(frame) for frame in frames]
        return {**self._degraded(frames), "key": f"{name}/{first}", "folder": name}

    def _window(self, paths: list[Path]) -> tuple[int, list[np.ndarray]]:
        """The number of the first frame, and the cropped frames of a random window."""
        count, size = self.settings.num_frame, self.settings.gt_size
        first = random.randint(0, len(paths) - count)
        window = paths[first : first + count]
        if self.settings.random_reverse and random.random() < 0.5:
            window = window[::-1]
        height, width = picture_size(window[0])
        top, left = random.randint(0, height - size), random.randint(0, width - size)
        crop = (slice(top, top + size), slice(left, left + size))
        return first, [_read(path)[crop] for path in window]

    def _degraded(self, frames: list[np.ndarray]) -> dict[str, Tensor]:
        item = {"gt": _stack(frames)}
        if self.settings.phase == "train" and self.settings.sharpen:
            frames = [usm_sharp(frame) for frame in frames]
            item["gt_usm"] = _stack(frames)
        item["lq"] = _stack(degrade(frames, self.settings.degradation, scale=self.settings.scale))
        return item


def _read(path: Path) -> np.ndarray:
    """A frame (h, w, 3), BGR, in [0, 1]."""
    return cv2.cvtColor(read_picture(path), cv2.COLOR_RGB2BGR).astype(np.float32) / 255


def _stack(frames: list[np.ndarray]) -> Tensor:
    return torch.stack(img2tensor(frames))

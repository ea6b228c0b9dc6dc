"""What a training or test of RealIACNN with MMagic's RealBasicVSR model needs beside that model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

import numpy as np
from mmagic.evaluation.metrics import NIQE
from mmagic.evaluation.metrics.metrics_utils import obtain_data
from mmagic.registry import HOOKS, METRICS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from iart_plugin.archs.conversion import behind
from iart_plugin.mmagic.checkpoint import model_of
from iart_plugin.option_errors import OptionError
from iart_plugin.weight_files import AVERAGED, GENERATOR

BLOCK = 96
"""The side in pixels of the blocks in which NIQE gathers its statistics."""


@HOOKS.register_module()
class StartFromAverageHook(Hook):
    """Gives a generator and its moving average the same weights to start from.

    MMagic's RealBasicVSR and RealESRGAN models keep the averaged weights in a second generator,
    ``generator_ema``. MMEngine loads each of the two from its own part of a file. A second stage
    would therefore go on from the first stage's trained weights, although the published one started
    from the averaged ones. A file with one set of weights would leave ``generator_ema``, which is
    the generator that is tested, with random weights.

    With this hook both start from the file's averaged weights, or from its only weights. A training
    that is resumed gets both sets as they were.
    """

    priority = "VERY_HIGH"

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Changes the weights of a file before they are loaded."""
        if getattr(model_of(runner), "generator_ema", None) is None or runner._resume:
            return
        state = checkpoint.get("state_dict", checkpoint)
        weights = behind(AVERAGED, state) or behind(GENERATOR, state)
        for prefix in (GENERATOR, AVERAGED):
            state.update({prefix + key: value for key, value in weights.items()})


@METRICS.register_module()
class VideoLQNIQE(NIQE):
    """MMagic's NIQE of the first, middle and last frame of every clip, as VideoLQ's authors do.

    The arguments are those of MMagic's NIQE, which measures every frame. Both average over a clip
    and then over the clips. A frame without any texture, such as a black one, has no NIQE and is
    left out of its clip's average.
    """

    def process(self, data_batch: Sequence[dict], data_samples: Sequence[dict]) -> None:
        """Measures the clips of a batch, each (t, 3, h, w) or a single frame (3, h, w).

        Raises:
            OptionError: if the frames are smaller than a block of NIQE.
        """
        for sample in data_samples:
            clip = obtain_data(sample["output"], self.key, self.device)
            frames = clip.reshape(-1, *clip.shape[-3:])
            height, width = frames.shape[-2:]
            if min(height, width) < BLOCK:
                raise OptionError(
                    f"NIQE needs frames of at least {BLOCK}x{BLOCK} pixels, and those of clip "
                    f"{sample.get('key', '')} are {width}x{height} after upscaling."
                )
            chosen = sorted({0, len(frames) // 2, len(frames) - 1})
            values = [self._niqe(frames[index]) for index in chosen]
            known = [value for value in values if not math.isnan(value)]
            self.results.append({self.metric: fmean(known) if known else math.nan})

    def _niqe(self, frame: np.ndarray) -> float:
        try:
            return float(self.process_image(None, frame, None))
        except np.linalg.LinAlgError:  # from the statistics of a frame without texture
            return math.nan

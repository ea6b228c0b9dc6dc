"""What a training or test of RealIACNN with MMagic's RealBasicVSR model needs beside that model."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from mmagic.evaluation.metrics import NIQE
from mmagic.evaluation.metrics.metrics_utils import obtain_data
from mmagic.registry import HOOKS, METRICS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from iart_plugin.archs.conversion import behind
from iart_plugin.mmagic.checkpoint import model_of
from iart_plugin.weight_files import AVERAGED, GENERATOR


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
    and then over the clips.
    """

    def process(self, data_batch: Sequence[dict], data_samples: Sequence[dict]) -> None:
        """Measures the clips of a batch, each (t, 3, h, w) or a single frame (3, h, w)."""
        for sample in data_samples:
            clip = obtain_data(sample["output"], self.key, self.device)
            frames = clip.reshape(-1, *clip.shape[-3:])
            chosen = {0, len(frames) // 2, len(frames) - 1}
            values = [self.process_image(None, frames[index], None) for index in chosen]
            self.results.append({self.metric: fmean(map(float, values))})

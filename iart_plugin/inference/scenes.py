"""Finds the cuts between scenes.

A recurrent network carries features from frame to frame. After a cut they describe the wrong
picture. A frame begins a new scene if the previous frame, moved along the optical flow, matches it
badly and the distribution of luma has changed, or if the match is very bad. A cut does both; fast
motion does neither to such a degree.

PySceneDetect (0.6.7) is not used, because a missed cut does more harm than a false one, and its
best detector misses cuts in noisy film and in quick edits. Measured were three edits of 30 pieces
each, 8 to 60 frames long, from 20 clips (films, hand-held and fixed cameras, Big Buck Bunny), with
87 cuts in total, and then harder material made from the same clips. Each entry gives the number of
true cuts found, then the number of false cuts. PySceneDetect's detectors had their default
thresholds and no shortest scene.

======================================  ========  ========  =======  =====
material (cuts in it)                   this one  Adaptive  Content  Hash
======================================  ========  ========  =======  =====
three edits (87)                        85, 0     87, 0     87, 2    86, 4
noise of standard deviation 25 (10)     10, 0     0, 0      10, 220  10, 0
shots of 2 frames (42)                  42, 0     4, 0      42, 1    42, 0
8 % of the brightness (19)              18, 0     18, 0     19, 0    19, 0
12 to 38 frames left out of a shot (17) 4, 0      10, 0     8, 0     7, 0
every 2nd, 4th and 8th frame (0)        0, 7      0, 0      0, 48    0, 32
shaken by up to 4 % of the width (0)    0, 0      0, 0      0, 236   0, 203
one frame 1.8 times as bright (0)       0, 2      0, 11     0, 41    0, 2
40 fades from and to black (0)          0, 41     0, 0      0, 37    0, 40
======================================  ========  ========  =======  =====

The two missed cuts joined shots of the same place. A fade counts as one cut, at its darkest frames.
``AdaptiveDetector`` must also look two frames ahead, and finds no cut in the first or last two
frames of a film.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np

T = TypeVar("T")
_SIDE = 128  # the longer side of the pictures compared, pixels
_BINS = 32


@dataclass(frozen=True)
class SceneThresholds:
    """The thresholds that decide what counts as a cut.

    A cut has a flow error of at least ``flow_alone``, or of at least ``flow_with_histogram``
    together with a histogram distance of at least ``histogram``.

    The defaults were chosen on 23 natural clips: 997 pairs of frames inside a clip, and 506 joins
    of the end of one clip to the start of another. They give no false cut and miss no join. Inside
    a clip the flow error stayed below 0.44 and the histogram distance below 0.15; at the joins they
    were at least 0.48 and 0.38.

    Attributes:
        histogram: The least total variation distance of the luma histograms, 0 to 1.
        flow_with_histogram: The least flow error of a cut at which the histograms differ too. The
            flow error is the mean absolute error after motion compensation, divided by the error
            expected of an unrelated picture: 0 for a perfect match, about 1 for another scene.
        flow_alone: The least flow error of a cut at which the histograms do not differ.
    """

    histogram: float = 0.18
    flow_with_histogram: float = 0.45
    flow_alone: float = 0.6


class SceneDetector:
    """Looks at frames one after another, and says which ones begin a scene.

    Args:
        thresholds: The thresholds that decide what counts as a cut.
    """

    def __init__(self, thresholds: SceneThresholds = SceneThresholds()) -> None:
        self.thresholds = thresholds
        self._previous: np.ndarray | None = None
        self._flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)

    def is_cut(self, rgb: np.ndarray) -> bool:
        """Whether ``rgb`` (h, w, 3), uint8, uint16 or float in [0, 1], begins a new scene."""
        luma = _small_luma(rgb)
        previous, self._previous = self._previous, luma
        if previous is None or previous.shape != luma.shape:
            return False
        limits = self.thresholds
        distance, error = histogram_distance(previous, luma), self._flow_error(previous, luma)
        return error >= limits.flow_alone or (
            distance >= limits.histogram and error >= limits.flow_with_histogram
        )

    def _flow_error(self, previous: np.ndarray, current: np.ndarray) -> float:
        """Mean |moved previous - current|, divided by the value for two unrelated pictures."""
        a, b = _normalised(previous), _normalised(current)
        flow = self._flow.calc(b, a, None) if min(a.shape) >= 16 else np.zeros((*a.shape, 2), "f4")
        h, w = a.shape
        grid = np.stack(np.meshgrid(np.arange(w), np.arange(h)), -1).astype(np.float32)
        moved = cv2.remap(a, grid + flow, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        error = np.abs(moved.astype(np.float32) - b).mean()
        # Two independent draws from the same distribution differ by Gini's mean difference.
        expected = _mean_difference(a, b)
        return float(error / expected) if expected > 2 else 0.0


def histogram_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Total variation distance of two uint8 pictures' histograms, 0 (same) to 1 (disjoint)."""
    counts = [np.histogram(x, _BINS, (0, 256))[0] / x.size for x in (a, b)]
    return float(np.abs(counts[0] - counts[1]).sum() / 2)


def _small_luma(rgb: np.ndarray) -> np.ndarray:
    if rgb.dtype == np.float16:  # OpenCV cannot resize it
        rgb = rgb.astype(np.float32)
    scale = _SIDE / max(rgb.shape[:2])
    if scale < 1:
        size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    peak = np.iinfo(rgb.dtype).max if rgb.dtype.kind == "u" else 1.0
    luma = rgb.astype(np.float32) @ np.float32([0.299, 0.587, 0.114])
    return np.clip(luma * (255.0 / peak) + 0.5, 0, 255).astype(np.uint8)


def _normalised(luma: np.ndarray) -> np.ndarray:
    """Bring a picture to mean 128 and standard deviation 48, so that a fade is not a cut.

    A picture with hardly any contrast is amplified less.
    """
    x = luma.astype(np.float32)
    spread = max(float(x.std()), 4.0)
    return np.clip((x - x.mean()) * (48.0 / spread) + 128, 0, 255).astype(np.uint8)


def _mean_difference(a: np.ndarray, b: np.ndarray) -> float:
    """The expected value of |x - y| for a random pixel x of ``a`` and a random pixel y of ``b``."""
    pa, pb = (np.bincount(x.ravel(), minlength=256) / x.size for x in (a, b))
    # E|x - y| = sum over thresholds of P(x <= t) P(y > t) + P(x > t) P(y <= t).
    ca, cb = np.cumsum(pa), np.cumsum(pb)
    return float((ca * (1 - cb) + (1 - ca) * cb).sum())


def mark_scenes(
    frames: Iterable[T], *, picture: Callable[[T], np.ndarray], enabled: bool = True
) -> Iterator[tuple[T, bool]]:
    """Yield each frame together with whether it begins a new scene.

    Args:
        frames: The frames in order.
        picture: Returns the picture of a frame in the form that :meth:`SceneDetector.is_cut` takes.
        enabled: If False, no frame begins a new scene.
    """
    detector = SceneDetector()
    for frame in frames:
        yield frame, enabled and detector.is_cut(picture(frame))

"""Finding cuts."""

from __future__ import annotations

import numpy as np
import pytest

from iart_plugin.inference import upscale
from iart_plugin.inference.scenes import SceneDetector, histogram_distance
from tests.videos import moving_picture


def cuts(frames):
    detector = SceneDetector()
    return [i for i, frame in enumerate(frames) if detector.is_cut(frame)]


def textured(seed, shift=0, height=72, width=128):
    """Something with edges, like a picture, that can be moved."""
    rng = np.random.RandomState(seed)
    canvas = np.full((height, width + 200, 3), rng.randint(60, 120), np.uint8)
    for _ in range(40):
        y, x = rng.randint(0, height), rng.randint(0, width + 200)
        h, w = rng.randint(4, 30), rng.randint(4, 40)
        canvas[y : y + h, x : x + w] = rng.randint(0, 256, 3)
    return canvas[:, shift : shift + width]


@pytest.mark.parametrize("convert", [np.uint8, np.uint16, np.float32])
def test_cuts_are_found(convert):
    frames = [textured(i // 5, shift=2 * (i % 5)) for i in range(20)]
    if convert is np.uint16:
        frames = [f.astype(np.uint16) * 257 for f in frames]
    if convert is np.float32:
        frames = [f.astype(np.float32) / 255 for f in frames]
    assert cuts(frames) == [5, 10, 15]


def test_cut_between_pictures_of_the_same_histogram():
    first = textured(1)
    frames = [first] * 3 + [np.ascontiguousarray(first[::-1, ::-1])] * 3
    assert histogram_distance(frames[2], frames[3]) == 0
    assert cuts(frames) == [3]


@pytest.mark.parametrize("speed", [1, 4, 8])
def test_motion_is_no_cut(speed):
    assert cuts([textured(3, shift=speed * i) for i in range(20)]) == []


def test_fade_is_no_cut():
    frames = [(textured(4) * f).astype(np.uint8) for f in np.linspace(1, 0.08, 12)]
    assert cuts(frames) == []


def test_noise_on_a_still_picture_is_no_cut():
    rng = np.random.RandomState(0)
    frames = [textured(5).astype(int) + rng.randint(-20, 20, (72, 128, 3)) for _ in range(6)]
    assert cuts([f.clip(0, 255).astype(np.uint8) for f in frames]) == []


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (9, 15)])
def test_any_size(size):
    cuts([moving_picture(i, *size) for i in range(3)])


def test_half_precision_frames():
    frames = [textured(i // 4, shift=i) for i in range(8)]
    wide = [np.float16(np.tile(frame, (3, 3, 1)) / 255) for frame in frames]
    assert wide[0].shape[1] > 128  # large enough to be shrunk
    assert cuts(wide) == [4]


@pytest.mark.parametrize(("detect", "lengths"), [(True, [4, 4]), (False, [8])])
def test_recurrence_is_reset_at_a_cut(detect, lengths):
    seen = []

    def network(clip):
        seen.append(clip.shape[1])
        return clip.repeat_interleave(4, -1).repeat_interleave(4, -2)

    frames = [textured(i // 4, shift=i) for i in range(8)]
    out = list(upscale(frames, network, chunk=8, scene_detection=detect, device="cpu"))
    assert len(out) == 8
    assert seen == lengths

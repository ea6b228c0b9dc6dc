"""The random degradation of clips: seeded, steady over a clip, and safe on the smallest frames."""

from __future__ import annotations

import random

import numpy as np
import pytest

import iart_plugin.basicsr  # noqa: F401  registers
from iart_plugin.basicsr import degradation
from iart_plugin.basicsr.degradation import compress_video, degrade_clip
from iart_plugin.basicsr.degradation_schema import Degradation, FirstDegradation

SEEDS = range(6)


@pytest.fixture(scope="module")
def clip() -> list[np.ndarray]:
    """Five frames of a texture that moves two pixels a frame, (64, 96, 3)."""
    texture = np.random.default_rng(0).integers(0, 256, (16, 27, 3), dtype=np.uint8)
    large = texture.repeat(4, 0).repeat(4, 1)
    return [np.ascontiguousarray(large[:, 2 * i : 2 * i + 96]) for i in range(5)]


def test_a_clip_depends_on_the_seed_alone(clip) -> None:
    results = []
    for seed in SEEDS:
        np.random.seed(seed + 100)  # noqa: NPY002  what BasicSR's functions draw from
        before = np.random.get_state()[1].copy()  # noqa: NPY002
        results.append(degrade_clip(clip, seed))
        assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
        np.random.rand(3)  # noqa: NPY002
        assert np.array_equal(results[-1], degrade_clip(clip, seed))
        assert np.array(results[-1]).shape == (5, 16, 24, 3)
        assert results[-1][0].dtype == np.uint8
    assert all(not np.array_equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 1, 3), (17, 33, 3)])
def test_the_smallest_constant_and_single_frames(shape) -> None:
    for seed in SEEDS:
        for count in (1, 3):
            out = degrade_clip([np.full(shape, 255, np.uint8)] * count, seed)
            assert len(out) == count
            assert out[0].shape == (max(1, shape[0] // 4), max(1, shape[1] // 4), 3)


def test_the_colours_keep_their_places() -> None:
    """Red stays red, through every stage, in the order RGB of :func:`degrade_clip`."""
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 200
    for seed in SEEDS:
        mean = np.mean(degrade_clip([red] * 3, seed), axis=(0, 1, 2))
        assert mean[0] > 120
        assert max(mean[1:]) < 60


def test_strengths_change_slowly_and_stay_in_their_range() -> None:
    random.seed(0)
    values = list(degradation._drift((0.2, 3), 0.02, 500))
    assert min(values) >= 0.2
    assert max(values) <= 3
    assert max(np.abs(np.diff(values))) <= 0.02
    assert len(set(values)) > 400


def test_every_kernel_keeps_the_brightness_and_drifts() -> None:
    random.seed(0)
    kinds = set()
    for _ in range(100):
        kernels = degradation._draw_kernels(FirstDegradation(), 3)
        kinds.add(kernels[0].shape[0])
        for kernel in kernels:
            assert kernel.sum() == pytest.approx(1)
            assert np.isfinite(kernel).all()
        assert np.abs(kernels[0] - kernels[1]).max() < 0.25
    assert kinds == set(degradation.KERNEL_SIZES)


@pytest.mark.parametrize("codec", degradation.DECODERS)
def test_fewer_bits_make_video_worse(clip, codec) -> None:
    errors = []
    for bits in (2e5, 2e3):
        coded = compress_video(clip, codec, bits)
        assert len(coded) == len(clip)
        errors.append(np.abs(np.subtract(coded, clip, dtype=float)).mean())
    assert 0 < errors[0] < errors[1]


def test_a_recipe_without_strength_only_makes_frames_smaller(clip) -> None:
    nothing = {
        "blur_prob": 0.0,
        "resize_prob": [0.0, 0.0, 1.0],
        "gaussian_noise_prob": 1.0,
        "noise_range": [0, 0],
        "jpeg_range": [100, 100],
        "bitrate_range": [1e7, 1e7],
    }
    recipe = Degradation(first=nothing, second=nothing, final_sinc_prob=0.0)
    gray = np.array(clip)[..., :1].repeat(3, -1)  # video halves the resolution of colours
    area = gray.reshape(5, 16, 4, 24, 4, 3).mean((2, 4))
    errors = [np.abs(degrade_clip(gray, seed, recipe=recipe) - area).mean() for seed in SEEDS]
    assert max(errors) < 12

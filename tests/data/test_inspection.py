"""Frame pairs that are wrong in every way that is looked for."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from iart_plugin.data import bicubic_downsample, gaussian_downsample
from iart_plugin.data.inspection import FramePair, check_sizes, compare, even_sample, missing_files


def picture(seed: int = 0, size: tuple[int, int] = (96, 128)) -> np.ndarray:
    """Something with detail everywhere, (h, w, 3) uint8."""
    noise = np.random.RandomState(seed).rand(*size, 3)
    return (255 * cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 1.5), None, 0, 1, 32)).astype("u1")


def pair(folder: Path, gt: np.ndarray, lq: np.ndarray) -> FramePair:
    paths = FramePair(folder / "gt.png", folder / "lq.png")
    for path, image in zip(paths, (gt, lq), strict=True):
        cv2.imwrite(str(path), image)
    return paths


@pytest.mark.parametrize(
    ("name", "reduce"),
    [
        ("BI", bicubic_downsample),
        ("BD", gaussian_downsample),
        ("BD-13tap", lambda x: gaussian_downsample(x, version="13-tap")),
    ],
)
def test_degradations_are_told_apart(tmp_path, name, reduce) -> None:
    found = compare(pair(tmp_path, picture(), reduce(picture())))
    assert (found.degradation, found.shift, found.explained) == (name, (0, 0), True)


@pytest.mark.parametrize("shift", [(1, 0), (-2, 3)])
def test_a_shift_is_measured(tmp_path, shift) -> None:
    moved = np.roll(picture(), [-v for v in shift], (0, 1))
    found = compare(pair(tmp_path, picture(), bicubic_downsample(moved)))
    assert found.shift == shift
    assert not found.explained
    assert found.psnr > 42


@pytest.mark.parametrize(
    "lq",
    [
        bicubic_downsample(picture(1)),  # another frame
        cv2.resize(picture(), (32, 24), interpolation=cv2.INTER_LINEAR),  # without antialiasing
    ],
)
def test_what_nothing_explains(tmp_path, lq) -> None:
    assert not compare(pair(tmp_path, picture(), lq)).explained


def test_sizes(tmp_path) -> None:
    assert check_sizes(pair(tmp_path, picture(), bicubic_downsample(picture())), 4) == (96, 128)
    with pytest.raises(ValueError, match="128x96.*16x12.*do not match"):
        check_sizes(pair(tmp_path, picture(), picture(size=(12, 16))), 4)


def test_missing_files(tmp_path) -> None:
    paths = pair(tmp_path, picture(), picture())
    absent = [tmp_path / "other.png", tmp_path / "no folder" / "a.png"]
    assert list(missing_files([*paths, *absent])) == absent


def test_even_sample() -> None:
    assert even_sample(range(10), 3) == [0, 4, 9]
    assert even_sample([1, 2], 5) == [1, 2]

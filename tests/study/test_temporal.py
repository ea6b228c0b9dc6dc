"""The temporal warping error: nothing for what moves, something for what flickers."""

import math

import cv2
import numpy as np
import pytest
import torch

from iart_plugin.study.temporal import estimate_flow, visible, warping_error


@pytest.fixture
def scene() -> np.ndarray:
    """A picture with structure of several sizes, larger than a frame."""
    noise = np.random.default_rng(0).random((160, 200, 3)).astype(np.float32)
    picture = cv2.GaussianBlur(noise, (0, 0), 2) + 2 * cv2.GaussianBlur(noise, (0, 0), 8)
    return cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def view(scene: np.ndarray, x: int, y: int = 0) -> np.ndarray:
    return np.ascontiguousarray(scene[20 + y : 120 + y, 20 + x : 150 + x])


def test_flow_goes_to_the_later_frame(scene):
    flow = estimate_flow(view(scene, 0), view(scene, 3, -2))
    # The camera moved right and up, so that everything moved left and down.
    inner = flow[0, :, 20:-20, 20:-20].flatten(1).median(1).values
    torch.testing.assert_close(inner, torch.tensor([-3.0, 2.0]), atol=0.2, rtol=0)


def test_motion_is_no_error_and_flicker_is(scene):
    still, moved = view(scene, 0), view(scene, 3)
    brighter = np.clip(moved.astype(int) + 12, 0, 255).astype(np.uint8)
    motion = warping_error(still, moved)
    assert motion < 1e-4
    assert warping_error(still, brighter) > 10 * motion
    assert warping_error(still, still) < 1e-9
    assert warping_error(still, brighter, (still, moved)) == pytest.approx((12 / 255) ** 2, rel=0.1)


def test_guides_may_be_smaller(scene):
    still, moved = view(scene, 0), view(scene, 4)
    small = [cv2.resize(frame, (65, 50), interpolation=cv2.INTER_AREA) for frame in (still, moved)]
    unaligned = float(np.square((still.astype(float) - moved) / 255).mean())
    assert warping_error(still, moved, tuple(small)) < 0.1 * unaligned


def test_what_leaves_the_frame_or_is_covered_is_left_out():
    forward = torch.zeros(1, 2, 4, 6)
    forward[:, 0] = 3
    seen = visible(forward, -forward)
    assert seen.tolist() == [[True, True, True, False, False, False]] * 4
    assert not visible(forward, forward).any()  # flow back that leads elsewhere


def test_too_small_frames_are_refused_and_nothing_seen_is_nan(scene, monkeypatch):
    with pytest.raises(ValueError, match="31x40 are too small"):
        warping_error(scene[:40, :31], scene[:40, :31])
    monkeypatch.setattr(
        "iart_plugin.study.temporal.visible", lambda *_: torch.zeros(100, 130, dtype=torch.bool)
    )
    assert math.isnan(warping_error(view(scene, 0), view(scene, 0)))

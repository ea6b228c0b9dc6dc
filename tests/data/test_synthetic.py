"""The synthetic clips: exact flow, true occlusions, the same by the same seed."""

import json

import numpy as np
import pytest
import torch

from iart_plugin.data import synthetic
from iart_plugin.data.flow_io import read_flow
from iart_plugin.data.sintel import SintelFlowDataset
from iart_plugin.ops import warp

pytest.importorskip("skimage", reason="the photographs come with scikit-image")


def _translation(steps):
    return np.stack([np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]]) for x, y in steps])


def _texture(seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (40, 50, 3)).astype(np.float32)


def _layer(steps, seed=0, radius=None):
    return synthetic.Layer(
        texture=_texture(seed),
        texture_from_layer=np.diag([1.0, 1.0, 1.0]),
        motion=_translation(steps),
        radii=None if radius is None else np.array([[radius, 0.0]]),
    )


def test_whole_pixel_motion_moves_pixels_exactly():
    clip = synthetic.render_clip([_layer([(0, 0), (3, -2)])], 24, 30)
    np.testing.assert_allclose(clip.flows[0], np.broadcast_to([3, -2], (24, 30, 2)))
    # Row y of the first frame is row y - 2 of the second; differences are the renderer's rounding.
    difference = clip.frames[0][2:, :-3].astype(int) - clip.frames[1][:-2, 3:]
    assert np.abs(difference).max() <= 1
    expected = np.zeros((24, 30), bool)
    expected[:2], expected[:, -3:] = True, True
    np.testing.assert_array_equal(clip.occlusions[0], expected)


def test_occlusion_is_where_the_disc_goes():
    """A disc of radius 5 moves 4 pixels over a still background, known in closed form."""
    layers = [_layer([(0, 0)] * 2), _layer([(10, 12), (14, 12)], seed=1, radius=5)]
    clip = synthetic.render_clip(layers, 24, 30)
    y, x = np.mgrid[:24, :30]
    before, after = (np.hypot(x - cx, y - 12) < 5 for cx in (10, 14))
    np.testing.assert_array_equal(clip.occlusions[0], after & ~before)
    np.testing.assert_allclose(clip.flows[0][before], [[4, 0]] * before.sum(), atol=1e-6)
    assert (clip.flows[0][~before] == 0).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_flow_of_random_clips_lands_better_than_any_other(seed):
    """On visible pixels, warping by the flow beats warping by it with a small error added."""
    clip = synthetic.random_clip(seed, num_frames=2, height=64, width=72)
    frames = torch.from_numpy(clip.frames).permute(0, 3, 1, 2).float()
    flow = torch.from_numpy(clip.flows[:1]).permute(0, 3, 1, 2)
    seen = torch.from_numpy(~clip.occlusions[0])
    seen &= ~_near(~seen)

    def error(shift):
        moved = warp(frames[1:], flow + torch.tensor(shift).view(1, 2, 1, 1), mode="bicubic")
        return (moved - frames[:1]).square()[..., seen].mean().item()

    exact = error((0.0, 0.0))
    others = [error((0.2 * a, 0.2 * b)) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b]
    assert exact < 0.9 * min(others)
    still = (frames[1:] - frames[:1]).square()[..., seen].mean().item()
    assert exact < 0.2 * still


def _near(mask):
    pooled = torch.nn.functional.max_pool2d(mask[None, None].float(), 5, stride=1, padding=2)
    return pooled[0, 0] > 0


def test_flow_follows_the_homographies():
    rng = np.random.default_rng(0)
    motion = synthetic._random_motion(rng, 3, np.array([20.0, 15.0]), 30, 5.0)
    layer = synthetic.Layer(texture=_texture(), texture_from_layer=np.eye(3), motion=motion)
    clip = synthetic.render_clip([layer], 30, 40, samples=1)
    pixel = np.array([[7.0, 22.0]])
    local = synthetic.apply_homography(np.linalg.inv(motion[1]), pixel)
    target = synthetic.apply_homography(motion[2], local)
    np.testing.assert_allclose(clip.flows[1, 22, 7], (target - pixel)[0], atol=1e-5)
    assert np.ptp(clip.flows[1], axis=(0, 1)).min() > 0.01  # not a translation


def test_same_seed_same_clip_and_no_other():
    options = {"num_frames": 2, "height": 24, "width": 24, "samples": 2}
    first, again, other = (synthetic.random_clip(s, **options) for s in (5, 5, 6))
    np.testing.assert_array_equal(first.frames, again.frames)
    np.testing.assert_array_equal(first.flows, again.flows)
    assert (first.frames != other.frames).any()


def test_data_set_is_written_resumed_and_read(tmp_path):
    options = {"num_train": 2, "num_test": 1, "num_frames": 3, "height": 32, "width": 40}
    assert dict(synthetic.write_dataset(tmp_path, **options)) == {
        "train_000": True,
        "train_001": True,
        "test_000": True,
    }
    assert not any(new for _, new in synthetic.write_dataset(tmp_path, **options))
    assert json.loads((tmp_path / "split.json").read_text())["test"] == ["test_000"]
    train = SintelFlowDataset(tmp_path, num_frames=2)
    assert [len(train), len(SintelFlowDataset(tmp_path, clips="test"))] == [4, 1]
    flow = read_flow(tmp_path / "training/flow/train_000/frame_0001.flo")
    block = flow[:4, :4].mean(axis=(0, 1)) / 4
    np.testing.assert_allclose(train[0]["flows"][0, :, 0, 0], block, rtol=1e-5)
    with pytest.raises(ValueError, match="made with"):
        list(synthetic.write_dataset(tmp_path, **{**options, "height": 36}))


def test_refusals():
    disc = _layer([(0, 0)], radius=5)
    with pytest.raises(ValueError, match="lowest layer"):
        synthetic.render_clip([disc], 8, 8)
    with pytest.raises(ValueError, match="same number of frames"):
        synthetic.render_clip([_layer([(0, 0)]), _layer([(0, 0)] * 2, radius=3)], 8, 8)
    with pytest.raises(ValueError, match="no picture 'nobody'"):
        synthetic.load_photograph("nobody")

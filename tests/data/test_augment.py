"""Warping commutes with the augmentation: the property that it exists for."""

import pytest
import torch

from iart_plugin.data import augment
from iart_plugin.data.augment import FlowAugmentation
from iart_plugin.ops import warp


@pytest.fixture
def sample():
    generator = torch.Generator().manual_seed(0)
    # Vectors stay inside the frame, so that no border rule enters.
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(16.0), indexing="ij")
    end_x = torch.rand(2, 12, 16, generator=generator) * 15
    end_y = torch.rand(2, 12, 16, generator=generator) * 11
    return {
        "lq": torch.rand(3, 3, 12, 16, generator=generator),
        "gt": torch.rand(3, 3, 48, 64, generator=generator),
        "flows": torch.stack([end_x - x, end_y - y], 1),
        "valid": (torch.rand(2, 1, 12, 16, generator=generator) > 0.5).float(),
        "key": "clip/0001",
    }


def _warped(sample):
    return warp(sample["lq"][1:], sample["flows"])


@pytest.mark.parametrize(
    "change", [augment.flip_horizontal, augment.flip_vertical, augment.transpose]
)
def test_warping_commutes(sample, change):
    changed = change(sample)
    expected = change({"lq": _warped(sample)})["lq"]
    torch.testing.assert_close(_warped(changed), expected, rtol=0, atol=1e-5)
    # And would not, had the vectors stayed as they were.
    forgotten = {**changed, "flows": change({"valid": sample["flows"]})["valid"]}
    assert (_warped(forgotten) - expected).abs().max() > 0.1


@pytest.mark.parametrize("seed", range(12))
def test_warping_commutes_with_what_is_drawn(sample, seed):
    augmentation = FlowAugmentation(flip=True, transpose=True)
    torch.manual_seed(seed)
    changed = augmentation(sample)
    torch.manual_seed(seed)
    expected = augmentation({"lq": _warped(sample)})["lq"]
    torch.testing.assert_close(_warped(changed), expected, rtol=0, atol=1e-5)
    assert changed["key"] == "clip/0001"


def test_crop_takes_the_same_place_of_every_entry(sample):
    cut = augment.crop(sample, 2, 5, 8, 6)
    torch.testing.assert_close(cut["lq"], sample["lq"][..., 2:10, 5:11])
    torch.testing.assert_close(cut["gt"], sample["gt"][..., 8:40, 20:44])
    torch.testing.assert_close(cut["flows"], sample["flows"][..., 2:10, 5:11])
    torch.testing.assert_close(cut["valid"], sample["valid"][..., 2:10, 5:11])


def test_every_choice_is_drawn_and_the_seed_decides(sample):
    augmentation = FlowAugmentation(crop_size=7)
    results = []
    for seed in range(40):
        torch.manual_seed(seed)
        results.append(augmentation(sample)["lq"])
    torch.manual_seed(3)
    assert torch.equal(augmentation(sample)["lq"], results[3])
    assert all(r.shape == (3, 3, 7, 7) for r in results)
    assert len({r.sum().item() for r in results}) > 20  # places
    whole = FlowAugmentation()
    torch.manual_seed(0)
    shapes = {whole(sample)["lq"].shape for _ in range(20)}
    assert shapes == {(3, 3, 12, 16), (3, 3, 16, 12)}


def test_off_is_off(sample):
    kept = FlowAugmentation(flip=False, transpose=False)(sample)
    assert all(torch.equal(kept[k], sample[k]) for k in ("lq", "gt", "flows", "valid"))


def test_refusals(sample):
    with pytest.raises(ValueError, match=r"crop_size 13.*12x16.*clip/0001"):
        FlowAugmentation(crop_size=13)(sample)
    with pytest.raises(ValueError, match="at least 1"):
        FlowAugmentation(crop_size=0)

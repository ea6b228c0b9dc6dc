"""RealIACNN as the generator of MMagic's own RealBasicVSR model: a step of its first stage."""

from __future__ import annotations

import pytest
import torch

import iart_plugin.mmagic  # noqa: F401  registers
from iart_plugin.archs import RealIACNN, load_checkpoint


@pytest.fixture
def model() -> torch.nn.Module:
    from mmagic.registry import MODELS
    from mmagic.utils import register_all_modules

    register_all_modules()
    torch.manual_seed(0)
    generator = {"type": "RealIACNN", "num_feat": 8, "num_block": 1, "num_clean_block": 1}
    return MODELS.build(
        {
            "type": "RealBasicVSR",
            "generator": generator | {"num_heads": 2, "clean_passes": 1},
            "pixel_loss": {"type": "L1Loss"},
            "cleaning_loss": {"type": "L1Loss"},
            "is_use_sharpened_gt_in_pixel": True,
            "data_preprocessor": {"type": "DataPreprocessor"},
        }
    )


def test_it_learns_from_pixels_and_from_clean_frames(model, tmp_path):
    assert isinstance(model.generator, RealIACNN)
    lqs, gts = torch.rand(1, 3, 3, 16, 16), torch.rand(1, 3, 3, 64, 64)
    outputs = model.forward_train(lqs)
    losses = model.g_step(outputs, (gts, gts, gts, lqs))
    assert {"loss_pix", "loss_clean"} <= losses.keys()
    sum(value for name, value in losses.items() if name.startswith("loss_")).backward()
    for name in ("image_cleaning.1.weight", "alignment.v.weight", "conv_last.weight"):
        assert model.generator.get_parameter(name).grad.abs().max() > 0, name

    torch.save({"state_dict": model.state_dict()}, tmp_path / "iter_1.pth")
    network, info = load_checkpoint(tmp_path / "iter_1.pth", num_heads=2)
    assert info.recognised.network == "RealIACNN"
    assert torch.equal(network.fusion.weight, model.generator.fusion.weight)

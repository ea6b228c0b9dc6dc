"""Options of the two stages of a training for real video, in the smallest sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

SMALL_REAL = {
    "type": "RealIACNN",
    "num_feat": 8,
    "num_block": 1,
    "num_clean_block": 1,
    "num_heads": 2,
    "clean_passes": 1,
}
L1 = {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"}


def first_stage(opt: dict[str, Any]) -> dict[str, Any]:
    """Turn the options of a training on the tiny data set into one of the first stage."""
    root = opt["datasets"]["train"]["dataroot_gt"]
    opt["model_type"] = "RealRecurrentModel"
    opt["network_g"] = dict(SMALL_REAL)
    opt["datasets"]["train"] = {
        "name": "degraded",
        "type": "DegradedClipsDataset",
        "dataroot_gt": root,
        "num_frame": 2,
        "gt_size": 32,
        "mirror_sequence": True,
        "num_worker_per_gpu": 0,
        "batch_size_per_gpu": 1,
        "dataset_enlarge_ratio": 2,
    }
    opt["train"].update(
        pixel_opt=dict(L1), cleaning_opt=dict(L1), l1_gt_usm=True, percep_gt_usm=True, fix_flow=None
    )
    return opt


def second_stage(opt: dict[str, Any], vgg_path: Path) -> dict[str, Any]:
    """Turn the options of a training on the tiny data set into one of the second stage."""
    first_stage(opt)
    opt["network_d"] = {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 4}
    opt["train"].update(
        perceptual_opt={
            "type": "PerceptualLoss",
            "vgg_path": str(vgg_path),
            "vgg_type": "vgg11",
            "layer_weights": {"conv1_1": 0.1, "conv2_1": 1.0},
        },
        gan_opt={"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 5e-2},
        optim_d={"type": "Adam", "lr": 1e-4, "weight_decay": 0, "betas": [0.9, 0.99]},
    )
    return opt


def write_vgg(path: Path) -> Path:
    """Write a seeded VGG-11 of torchvision. Its classifier, which nobody uses, is one number."""
    from torchvision.models import vgg11

    with torch.device("meta"):
        shapes = {key: value.shape for key, value in vgg11(weights=None).state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for key, shape in shapes.items():
        if key.startswith(("features.0.", "features.3.")):
            weights[key] = (
                torch.randn(shape, generator=generator) / max(shape[1:].numel(), 1) ** 0.5
            )
        else:
            weights[key] = torch.zeros(1).expand(shape)  # takes no space in the file
    torch.save(weights, path)
    return path

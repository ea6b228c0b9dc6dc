"""The alignment study through MMagic: data with flow, and the stock trainer and tester."""

from __future__ import annotations

import re
import sys

import pytest
import torch

import iart_plugin.mmagic  # noqa: F401  (registers)
from iart_plugin.archs.alignment_study import AlignmentStudyNet
from iart_plugin.data import SintelFlowDataset
from iart_plugin.data.synthetic import write_dataset
from tests.mmagic.mmagic_driver import CONFIGS, run, tool

CONFIG = CONFIGS / "alignment_study" / "alignment-study_c60_implicit_1xb8-100k_sintel.py"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    pytest.importorskip("skimage")
    folder = tmp_path_factory.mktemp("study")
    size = {"num_frames": 5, "height": 128, "width": 160}
    list(write_dataset(folder / "data" / "Sintel", num_train=1, num_test=1, **size))
    return folder


def _build(registry: str, config: dict):
    import mmagic.registry
    from mmagic.utils import register_all_modules

    register_all_modules()
    return getattr(mmagic.registry, registry).build(config)


def test_items_are_the_cores_in_mmagics_form(root):
    options = {"root": str(root / "data" / "Sintel"), "clips": "train", "num_frames": 2}
    ours = SintelFlowDataset(**options)
    theirs = _build("DATASETS", {"type": "SintelFlowDataset", **options})
    assert len(theirs) == len(ours)
    item, expected = theirs[1], ours[1]
    assert torch.equal(item["inputs"], expected["lq"] * 255)
    assert torch.equal(item["data_samples"].gt_img, expected["gt"] * 255)
    assert torch.equal(item["data_samples"].flows, expected["flows"])
    assert item["data_samples"].metainfo["key"] == expected["key"]


def test_augmentation_comes_from_the_config(root):
    dataset = _build(
        "DATASETS",
        {
            "type": "SintelFlowDataset",
            "root": str(root / "data" / "Sintel"),
            "augment": {"type": "FlowAugmentation", "crop_size": 16},
        },
    )
    assert dataset[0]["inputs"].shape[-2:] == (16, 16)


def test_flow_reaches_the_network(root):
    """In the order RGB, divided by 255, with the data's own flow."""
    torch.manual_seed(0)
    generator = {"type": "AlignmentStudyNet", "embed_dim": 12, "depths": (1,), "num_heads": 2}
    model = _build(
        "MODELS",
        {
            "type": "FlowGivenVSR",
            "generator": generator,
            "pixel_loss": {"type": "CharbonnierLoss"},
            "data_preprocessor": {
                "type": "DataPreprocessor",
                "mean": [0.0, 0.0, 0.0],
                "std": [255.0, 255.0, 255.0],
            },
        },
    ).eval()
    assert type(model.generator) is AlignmentStudyNet
    options = {"root": str(root / "data" / "Sintel"), "clips": "test"}
    sample = SintelFlowDataset(**options)[0]
    with torch.no_grad():
        expected = model.generator(sample["lq"][None], sample["flows"][None])[0]
        other = model.generator(sample["lq"][None], torch.zeros_like(sample["flows"])[None])[0]
        item = _build("DATASETS", {"type": "SintelFlowDataset", **options})[0]
        (result,) = model.val_step({k: [v] for k, v in item.items()})
    got = result.output.pred_img.flip(1) / 255  # MMagic's results are BGR
    assert torch.allclose(got, expected.clamp(0, 1), atol=1e-5)
    assert not torch.allclose(expected, other, atol=1e-3)


def test_stock_tools_train_and_test(root):
    settings = {
        "model.generator.embed_dim": 12,
        "model.generator.depths": "[1,1]",
        "model.generator.num_heads": 2,
        "train_dataloader.num_workers": 0,
        "train_dataloader.batch_size": 2,
        "train_dataloader.dataset.augment.crop_size": 16,
        "val_dataloader.num_workers": 0,
        "test_dataloader.0.num_workers": 0,
        "train_cfg.max_iters": 2,
        "train_cfg.val_interval": 2,
        "param_scheduler.periods": "[2]",
        "default_hooks.checkpoint.interval": 2,
    }
    options = ["--work-dir", "work", "--cfg-options", *(f"{k}={v}" for k, v in settings.items())]
    run([sys.executable, tool("train"), CONFIG, *options], root)
    log = run([sys.executable, tool("test"), CONFIG, root / "work" / "iter_2.pth", *options], root)
    (psnr,) = re.findall(r"Sintel-RGB/PSNR: ([\d.]+)", log)
    assert float(psnr) > 15

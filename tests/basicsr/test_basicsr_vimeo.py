"""The shipped Vimeo-90K option files on a tiny tree: mirrored clips, centre frames."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.basicsr.basicsr_driver import ROOT, SMALL_IART, run, write_options

SIZE = 64


@pytest.fixture(scope="module")
def vimeo(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of seven frames, links to the frames of another tiny set."""
    root = tmp_path_factory.mktemp("vimeo")
    lines = []
    for clip in (1, 2):
        for kind in ("GT", "BIx4"):
            folder = root / kind / "00001" / f"{clip:04d}"
            folder.mkdir(parents=True)
            for frame in range(1, 8):
                source = data / "train" / kind / "001" / f"{7 * clip + frame:08d}.png"
                (folder / f"im{frame}.png").symlink_to(source)
        lines.append(f"00001/{clip:04d} 7 ({SIZE},{SIZE},3)\n")
    (root / "meta_info.txt").write_text("".join(lines))
    return root


def shipped(kind: str, name: str) -> dict[str, Any]:
    text = (ROOT / "configs" / "basicsr" / kind / f"{name}.yml").read_text()
    opt = yaml.safe_load(text.replace("!!python/name:iart_plugin.basicsr.PLUGIN", "x"))
    del opt["plugin"]
    opt["num_gpu"] = 0
    return opt


def place(section: dict[str, Any], root: Path) -> None:
    section.update(dataroot_gt=str(root / "GT"), dataroot_lq=str(root / "BIx4"))
    section["meta_info_file"] = str(root / "meta_info.txt")


def test_trains_on_mirrored_clips_then_tests_centre_frames(vimeo, tmp_path) -> None:
    opt = shipped("train", "IART_Vimeo90K_N14_300K")
    train = opt["datasets"]["train"]
    assert train["flip_sequence"] and train["num_frame"] == -1
    place(train, vimeo)
    train.update(gt_size=32, num_worker_per_gpu=0, dataset_enlarge_ratio=1)
    del opt["val"], opt["datasets"]["val"]
    opt["path"]["pretrain_network_g"] = None
    opt["network_g"] = SMALL_IART
    opt["train"].update(total_iter=2, fix_flow=1)
    opt["logger"].update(print_freq=1, save_checkpoint_freq=2, use_tb_logger=False)
    printed = run("basicsr_train", write_options(opt, tmp_path / "train.yml"))
    assert re.search(r"iter:\s+2,", printed)
    weights = tmp_path / "experiments" / opt["name"] / "models" / "net_g_latest.pth"
    assert torch.load(weights, weights_only=True)["options"]["embed_dim"] == 8

    opt = shipped("test", "IART_Vimeo90K-T")
    assert opt["val"]["center_frame_only"] and opt["val"]["flip_seq"]
    place(opt["datasets"]["test"], vimeo)
    opt["network_g"] = SMALL_IART
    opt["path"]["pretrain_network_g"] = str(weights)
    printed = run("basicsr_test", write_options(opt, tmp_path / "test.yml"))
    assert re.search(r"# psnr: \d+\.\d+", printed)
    pictures = list((tmp_path / "results").rglob("*.png"))
    assert len(pictures) == 2  # the centre frame of each clip

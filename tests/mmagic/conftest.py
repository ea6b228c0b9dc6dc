"""Tiny data sets in MMagic's layouts, and a training with its stock tool."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.mmagic.mmagic_driver import CONFIGS, SIZE, TINY, run, tool

collect_ignore_glob = [] if importlib.util.find_spec("mmagic") else ["*.py"]


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with every data set that the configs name, a few pixels large."""
    root = tmp_path_factory.mktemp("mmagic")
    data = root / "data"
    reds = data / "REDS"
    for clip in ("000", "001"):
        _clip(reds / "train_sharp", [reds / "train_sharp_bicubic/X4"], clip, 100)
    line = f"000 100 ({SIZE},{SIZE},3)\n"
    (reds / "meta_info_reds4_train.txt").write_text(line)
    (reds / "meta_info_reds4_val.txt").write_text(line + line.replace("000", "001", 1))

    vimeo = data / "vimeo90k"
    _clip(vimeo / "GT", [vimeo / "BIx4", vimeo / "BDx4"], "00001/0001", 7, "im{}.png", 1)
    for split in ("train", "test"):
        meta = vimeo / f"meta_info_Vimeo90K_{split}_GT.txt"
        meta.write_text(f"00001/0001 7 ({SIZE},{SIZE},3)\n")

    udm10 = data / "UDM10"
    _clip(udm10 / "GT", [udm10 / "BDx4", udm10 / "BIx4"], "archpeople", 3, "{:04d}.png")

    _clip(reds / "train_sharp_sub", [], "000_s001", 4)
    _clip(data / "VideoLQ", [], "000", 5)

    vid4 = data / "Vid4"
    for clip in ("calendar", "city"):
        _clip(vid4 / "GT", [vid4 / "BIx4", vid4 / "BDx4"], clip, 4)
    (vid4 / "meta_info_Vid4_GT.txt").write_text(
        "".join(f"{clip} 4 ({SIZE},{SIZE},3)\n" for clip in ("calendar", "city"))
    )
    return root


def _clip(
    gt: Path, lqs: list[Path], clip: str, length: int, name: str = "{:08d}.png", start: int = 0
) -> None:
    """Writes a clip of a pattern that moves by a pixel and a half a frame."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float64)
    for folder in (gt, *lqs):
        (folder / clip).mkdir(parents=True)
    for i in range(length):
        waves = [np.sin((x + 1.5 * i) / 3 + c) * np.cos((y - i) / (4 + c)) for c in range(3)]
        frame = np.rint(127.5 + 110 * np.stack(waves, -1)).astype(np.uint8)
        cv2.imwrite(str(gt / clip / name.format(start + i)), frame)
        small = cv2.resize(frame, (SIZE // 4, SIZE // 4), interpolation=cv2.INTER_AREA)
        for folder in lqs:
            cv2.imwrite(str(folder / clip / name.format(start + i)), small)


@pytest.fixture(scope="session")
def spynet(workspace: Path) -> Path:
    """A file with a flow network's weights, as BasicSR distributes them."""
    import torch

    from iart_plugin.flow import SPyNet

    torch.manual_seed(0)
    path = workspace / "spynet.pth"
    weights = {k: v for k, v in SPyNet().state_dict().items() if k not in ("mean", "std")}
    torch.save({"params": weights}, path)
    return path


@pytest.fixture(scope="session")
def train(workspace: Path, spynet: Path) -> Callable[..., str]:
    """Trains a small IA-CNN with the stock tool: ``train(work_dir, *arguments)``."""
    shipped = CONFIGS / "ia_cnn" / "ia-cnn_c64b30_8xb1-300k_reds4.py"

    def train(
        work_dir: str,
        *arguments: str,
        config: Path = shipped,
        options: Sequence[str] = (),
        processes: int = 1,
        through_mim: bool = False,
    ) -> str:
        python = [sys.executable]
        if processes > 1:
            python += ["-m", "torch.distributed.run", "--standalone"]
            python += [f"--nproc_per_node={processes}"]
        command = [*python, "-m", "mim", "train", "mmagic", config, "--gpus", "0"]
        if not through_mim:
            command = [*python, tool("train"), config]
        settings = {
            "model.init_cfg.checkpoint": spynet.name,
            "train_dataloader.num_workers": 0,
            "train_dataloader.dataset.num_input_frames": 3,
            "train_dataloader.dataset.pipeline.4.gt_patch_size": 64,
            "train_cfg.val_interval": 2,
            "val_dataloader.num_workers": 0,
            "val_dataloader.dataset.num_input_frames": 3,
            "val_dataloader.dataset.fixed_seq_len": 3,
            "default_hooks.logger.interval": 1,
            "default_hooks.checkpoint.interval": 2,
            "custom_hooks.2.iterations": 2,
        }
        return run(
            [
                *(*command, "--work-dir", work_dir, *arguments),
                *("--cfg-options", *TINY, *(f"{k}={v}" for k, v in settings.items()), *options),
            ],
            workspace,
        )

    return train

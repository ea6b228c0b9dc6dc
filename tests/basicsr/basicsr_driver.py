"""Option files for the tests, and BasicSR run on them as a user runs it."""

from __future__ import annotations

import copy
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.programs import run_program

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tools"
PLUGIN_LINE = "plugin: !!python/name:iart_plugin.basicsr.PLUGIN\n"
SMALL_IACNN = {"type": "IACNN", "num_feat": 8, "num_block": 1, "num_heads": 2}
SMALL_IART = {
    "type": "IART",
    "mid_channels": 8,
    "embed_dim": 8,
    "depths": [1, 1],
    "num_heads": [2, 2],
    "window_size": [3, 8, 8],
    "num_frames": 3,
    "img_size": 64,
    "patch_size": 1,
    "cpu_cache_length": 100,
    "is_low_res_input": True,
    "use_checkpoint": True,
    "spynet_path": None,
}
METRICS = {
    name: {"type": f"calculate_{name}", "crop_border": 0, "test_y_channel": False}
    for name in ("psnr", "ssim")
}


def load_tool(name: str) -> Any:
    """Import a file of ``tools/``."""
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def base_options(data: Path) -> dict[str, Any]:
    disk = {"type": "disk"}
    return {
        "name": "run",
        "model_type": "RecurrentMixPrecisionRTModel",
        "scale": 4,
        "num_gpu": 0,
        "manual_seed": 0,
        "datasets": {
            "train": {
                "name": "REDS",
                "type": "REDSRecurrentDataset",
                "dataroot_gt": str(data / "train" / "GT"),
                "dataroot_lq": str(data / "train" / "BIx4"),
                "meta_info_file": str(data / "meta_info_GT.txt"),
                "val_partition": "REDS4",
                "test_mode": False,
                "io_backend": dict(disk),
                "num_frame": 3,
                "gt_size": 64,
                "interval_list": [1],
                "random_reverse": True,
                "use_hflip": True,
                "use_rot": True,
                "num_worker_per_gpu": 0,
                "batch_size_per_gpu": 2,
                "dataset_enlarge_ratio": 1,
                "prefetch_mode": None,
            },
            "val": _test_set(data),
        },
        "network_g": dict(SMALL_IACNN),
        "path": {"pretrain_network_g": None, "strict_load_g": True, "resume_state": None},
        "train": {
            "ema_decay": 0.9,
            "optim_g": {"type": "Adam", "lr": 1e-3, "weight_decay": 0, "betas": [0.9, 0.99]},
            "scheduler": {
                "type": "CosineAnnealingRestartLR",
                "periods": [100],
                "restart_weights": [1],
                "eta_min": 1e-7,
            },
            "total_iter": 4,
            "warmup_iter": -1,
            "fix_flow": 2,
            "flow_lr_mul": 0.125,
            "pixel_opt": {"type": "CharbonnierLoss", "loss_weight": 1.0, "reduction": "mean"},
        },
        "val": {"val_freq": 4, "save_img": False, "metrics": METRICS},
        "logger": {"print_freq": 1, "save_checkpoint_freq": 2, "use_tb_logger": False},
        "dist_params": {"backend": "nccl", "port": 29500},
        "find_unused_parameters": True,
        "use_static_graph": False,
    }


def parsed(opt: dict) -> dict:
    """The options as BasicSR's ``parse_options`` completes them."""
    opt = copy.deepcopy(opt)
    opt.update(is_train=True, auto_resume=False, dist=False, rank=0, world_size=1)
    for phase, dataset in opt["datasets"].items():
        dataset.update(phase=phase, scale=opt["scale"])
    return opt


def _test_set(data: Path) -> dict[str, Any]:
    return {
        "name": "REDS4",
        "type": "VideoRecurrentTestDataset",
        "dataroot_gt": str(data / "val" / "GT"),
        "dataroot_lq": str(data / "val" / "BIx4"),
        "cache_data": True,
        "io_backend": {"type": "disk"},
        "num_frame": -1,
    }


def test_options(opt: dict[str, Any], weights: Path | str) -> dict[str, Any]:
    """Options that test what the training options ``opt`` have trained."""
    val = opt["datasets"]["val"]
    return {
        **{key: opt[key] for key in ("name", "model_type", "scale", "num_gpu", "network_g")},
        "manual_seed": 0,
        "datasets": {"test": dict(val)},
        "path": {"pretrain_network_g": str(weights), "strict_load_g": True},
        "val": {"save_img": True, "metrics": METRICS},
    }


test_options.__test__ = False  # options for a test, not a test


def write_options(opt: dict[str, Any], path: Path, *, plugin: bool = True) -> Path:
    """Write an option file, with the plugin's line or without."""
    path.write_text((PLUGIN_LINE if plugin else "") + yaml.safe_dump(opt))
    return path


def environment(**extra: str) -> dict[str, str]:
    """This environment with the checkout importable, one thread a process and no GPU."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        **extra,
    }


def command(tool: str, option_file: Path, *arguments: str, processes: int = 1) -> list[str]:
    """The command line that runs one of the two tools, in one process or several."""
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        arguments = (*arguments, "--launcher", "pytorch")
    return [*start, str(TOOLS / f"{tool}.py"), "-opt", str(option_file), *arguments]


def run(
    tool: str, option_file: Path, *arguments: str, processes: int = 1, fails: bool = False
) -> str:
    """Run a tool in the option file's folder and return what it printed."""
    done = run_program(
        command(tool, option_file, *arguments, processes=processes),
        option_file.parent,
        environment(),
        timeout=300,
    )
    assert (done.returncode != 0) == fails, done.stdout[-4000:]
    return done.stdout


def saved_weights(folder: Path, iteration: int | str = "latest", key: str = "params") -> dict:
    """The weights that a training in ``folder`` has saved."""
    import torch

    path = folder / "experiments" / "run" / "models" / f"net_g_{iteration}.pth"
    return torch.load(path, weights_only=True)[key]

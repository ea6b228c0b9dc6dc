"""Options, checked before anything is written: unknown names and values, files, devices."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from iart_plugin.option_errors import OptionError, check_keys, nearest

# What is read from `train:` by BasicSR's pipeline and by RecurrentMixPrecisionRTModel.
TRAIN_KEYS = (
    "total_iter",
    "warmup_iter",
    "optim_g",
    "scheduler",
    "pixel_opt",
    "perceptual_opt",
    "ema_decay",
    "fix_flow",
    "flow_lr_mul",
    "amp_dtype",
    "init_loss_scale",
    "max_skipped_steps",
    "grad_clip_norm",
    "accumulate",
    "lr_mul",
)
OWN_MODELS = ("RecurrentMixPrecisionRTModel", "AlignmentStudyModel")


def check_options(opt: dict[str, Any]) -> None:
    """Check the networks, the training settings and the weight files that an option file names.

    Args:
        opt: The options as BasicSR's ``parse_options`` returns them.

    Raises:
        OptionError: on an unknown key, a missing or unreadable file, or a GPU that is not there.
    """
    from basicsr.utils.registry import ARCH_REGISTRY, MODEL_REGISTRY

    _check_registered(opt["model_type"], MODEL_REGISTRY.keys(), "model_type")
    for section, network in opt.items():
        if section.startswith("network_"):
            if not isinstance(network, dict) or "type" not in network:
                raise OptionError(f"{section} must be a section with a 'type', got {network!r}.")
            _check_registered(network["type"], ARCH_REGISTRY.keys(), f"{section}.type")
            parameters = inspect.signature(ARCH_REGISTRY.get(network["type"])).parameters
            if all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
                check_keys(network, ["type", *parameters], f"{section} ({network['type']})")
            _check_values(ARCH_REGISTRY.get(network["type"]), network, section)
    if opt["model_type"] in OWN_MODELS and opt.get("train"):
        check_keys(opt["train"], TRAIN_KEYS, f"train ({opt['model_type']})")
        if opt["is_train"]:
            _check_course(opt)
    _check_device(opt)


def validation_sets(opt: dict[str, Any]) -> list[str]:
    """The names of the data sets that a training is validated on."""
    datasets = opt.get("datasets") or {}
    return [data["name"] for phase, data in datasets.items() if phase.startswith("val")]


def _check_course(opt: dict[str, Any]) -> None:
    """What would end a training in the middle must be right at its start."""
    train, val = opt["train"], opt.get("val")
    scheduler = train.get("scheduler") or {}
    if scheduler.get("type") == "CosineAnnealingRestartLR":
        periods, weights = scheduler.get("periods", []), scheduler.get("restart_weights", [1])
        if len(periods) != len(weights):
            raise OptionError(
                f"train.scheduler has {len(periods)} periods and {len(weights)} restart_weights; "
                "each period needs one."
            )
        if sum(periods) < int(train["total_iter"]) - 1:
            raise OptionError(
                f"train.scheduler.periods add up to {sum(periods)} iterations, fewer than "
                f"train.total_iter, {train['total_iter']}: the run would end there. Set both alike."
            )
    names = validation_sets(opt)
    if len(names) > len(set(names)):
        raise OptionError(
            f"Two validation sets have one name ({', '.join(names)}): their figures would be taken "
            "for each other's. Names may differ in their letters' case alone, Vid4 and VID4."
        )
    if names and val and val.get("save_img") is not False:
        raise OptionError(
            "val.save_img must be there and false in a training: BasicSR saves the frames of video "
            "models in tests only, and would stop at the first validation."
        )
    data = (opt.get("datasets") or {}).get("train") or {}
    if data.get("prefetch_mode") == "cpu" and not data.get("num_worker_per_gpu"):
        raise OptionError(
            "datasets.train.prefetch_mode is cpu, which needs num_worker_per_gpu of 1 or more."
        )


def _check_values(arch: type, network: dict[str, Any], section: str) -> None:
    """Build one of this package's networks, so that it refuses what it must."""
    if not arch.__module__.startswith("iart_plugin."):
        return
    try:
        build_without_weights(arch, network)
    except (TypeError, ValueError) as error:
        raise OptionError(f"{section} ({network['type']}): {error}") from error


def build_without_weights(arch: type, network: dict[str, Any]) -> Any:
    """Build a network without its weight files; the run's own still starts as it would."""
    import torch

    with torch.random.fork_rng(devices=[]):
        return arch(**{k: v for k, v in network.items() if k not in ("type", "spynet_path")})


def _check_registered(name: str, registered: Iterable[str], where: str) -> None:
    names = [key.removesuffix("_basicsr") for key in registered]
    if name not in names:
        raise OptionError(
            f"{where} '{name}' is not registered. {nearest(name, names)} A plugin's part needs "
            "that plugin's line in the option file."
        )


def _check_device(opt: dict[str, Any]) -> None:
    import torch

    if opt["num_gpu"] and not torch.cuda.is_available():
        raise OptionError(
            f"num_gpu is {opt['num_gpu']} but this machine has no CUDA device. "
            "Set num_gpu: 0 for the CPU, or num_gpu: auto."
        )
    if opt.get("dist") and not opt["num_gpu"] and torch.cuda.is_available():
        raise OptionError(
            "num_gpu is 0, but BasicSR gives its processes the GPUs that they see. For several "
            "processes on the CPU set CUDA_VISIBLE_DEVICES= before the command."
        )
    bf16 = (opt.get("train") or {}).get("amp_dtype") == "bf16"
    if bf16 and opt["num_gpu"] > 1 and not opt.get("dist"):
        raise OptionError(
            "train.amp_dtype: bf16 on several GPUs needs a process for each, because PyTorch's "
            "DataParallel would compute in fp16. Start it with torchrun, or set num_gpu: 1."
        )

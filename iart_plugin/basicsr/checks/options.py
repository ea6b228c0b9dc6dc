"""Checks options against what is installed: names, networks, losses, metrics and devices."""

from __future__ import annotations

import inspect
from typing import Any

from iart_plugin.basicsr.checks.schema import OWN_MODELS, check_schema
from iart_plugin.basicsr.learning_rates import rate_factors
from iart_plugin.option_errors import OptionError, check_keys, nearest

LARGEST = 10_000
"""More blocks, channels or heads than this are a slip, and would take all memory to build."""


def check_options(opt: dict[str, Any]) -> None:
    """Check the options, without looking at the weights and frames that they name.

    Args:
        opt: BasicSR's options, complete.

    Raises:
        OptionError: on an unknown name, an impossible value, or a GPU that does not exist.
    """
    from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, MODEL_REGISTRY

    check_schema(opt)
    _check_registered(opt["model_type"], MODEL_REGISTRY, "model_type")
    model = MODEL_REGISTRY.get(opt["model_type"])
    for section, network in opt.items():
        if section.startswith("network_"):
            _check_registered(network["type"], ARCH_REGISTRY, f"{section}.type")
            arch = ARCH_REGISTRY.get(network["type"])
            _check_arguments(arch, network, f"{section} ({network['type']})")
            net = _check_values(arch, network, section)
            if section == "network_g" and net is not None and opt["is_train"]:
                rate_factors(net, opt["train"])
    for section, data in opt["datasets"].items():
        _check_registered(data["type"], DATASET_REGISTRY, f"datasets.{section}.type")
    _check_metrics(opt)
    if opt["is_train"]:
        _check_losses(opt)
        _check_course(opt)
    _check_device(opt)
    if hasattr(model, "check"):  # what this package's own models alone refuse
        model.check(opt)


def validation_sets(opt: dict[str, Any]) -> list[str]:
    """The names of the data sets that a training is validated on."""
    datasets = opt.get("datasets") or {}
    return [data["name"] for phase, data in datasets.items() if phase.startswith("val")]


def _check_registered(name: str, registry: Any, where: str) -> None:
    names = [key.removesuffix("_basicsr") for key in registry.keys()]  # noqa: SIM118  a registry
    if name not in names:
        raise OptionError(
            f"{where} '{name}' is not registered. {nearest(name, names)} A plugin's part needs "
            "that plugin's line in the option file."
        )


def _check_arguments(part: Any, section: dict[str, Any], where: str) -> None:
    """The keys of a section must be arguments of what it builds."""
    parameters = inspect.signature(part).parameters.values()
    if all(p.kind is not p.VAR_KEYWORD for p in parameters):
        check_keys(section, ["type", *(p.name for p in parameters)], where)


def _check_values(arch: type, network: dict[str, Any], section: str) -> Any:
    """Build one of this package's networks as a trial of its options; None for other networks."""
    if not arch.__module__.startswith("iart_plugin."):
        return None
    parameters = inspect.signature(arch).parameters
    for key, value in network.items():
        annotation = getattr(parameters.get(key), "annotation", None)
        kind = getattr(annotation, "__name__", annotation)
        if kind == "int" and (isinstance(value, bool) or not isinstance(value, int)):
            raise OptionError(f"{section}.{key} is {value!r}; it must be a whole number.")
        if kind == "bool" and not isinstance(value, bool):
            raise OptionError(f"{section}.{key} is {value!r}; it must be true or false.")
        if isinstance(value, int) and value > LARGEST and key != "cpu_cache_length":
            raise OptionError(f"{section}.{key} is {value}; no network has over {LARGEST:,}.")
    try:
        return build_without_weights(arch, network)
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise OptionError(f"{section} ({network['type']}): {error}") from error


def build_without_weights(arch: type, network: dict[str, Any]) -> Any:
    """Build a network's modules and the shapes of its weights, without memory for the weights."""
    import torch

    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        return arch(**{k: v for k, v in network.items() if k not in ("type", "spynet_path")})


def _check_losses(opt: dict[str, Any]) -> None:
    from basicsr.utils.registry import LOSS_REGISTRY

    train = opt["train"]
    keys = ("pixel_opt", "perceptual_opt", "cleaning_opt", "gan_opt")
    given = {key: train[key] for key in keys if train.get(key)}
    if not given.keys() & {"pixel_opt", "perceptual_opt"} and opt["model_type"] in OWN_MODELS:
        raise OptionError("train has no loss: give pixel_opt, perceptual_opt or both.")
    for key, loss in given.items():
        _check_registered(loss["type"], LOSS_REGISTRY, f"train.{key}.type")
        _check_compares(LOSS_REGISTRY.get(loss["type"]), key, loss["type"])
        arguments = {name: value for name, value in loss.items() if name != "vgg_path"}
        where = f"train.{key} ({loss['type']})"
        _check_arguments(LOSS_REGISTRY.get(loss["type"]), arguments, where)


def _check_compares(loss: type, key: str, name: str) -> None:
    """Refuse a loss of BasicSR's that would take the ground truth for something else."""
    wanted = {"pixel_opt": "target", "cleaning_opt": "target", "perceptual_opt": "gt"}.get(key)
    if not loss.__module__.startswith("basicsr.") or wanted is None:
        return
    if wanted not in inspect.signature(loss.forward).parameters:
        able = "PerceptualLoss" if wanted == "gt" else "L1Loss, MSELoss or CharbonnierLoss"
        raise OptionError(f"train.{key}.type is {name}, which cannot serve there; {able} can.")


def _check_metrics(opt: dict[str, Any]) -> None:
    from basicsr.utils.registry import METRIC_REGISTRY

    for name, metric in ((opt.get("val") or {}).get("metrics") or {}).items():
        where = f"val.metrics.{name}"
        _check_registered(metric["type"], METRIC_REGISTRY, f"{where}.type")
        parameters = inspect.signature(METRIC_REGISTRY.get(metric["type"])).parameters.values()
        known = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
        known = [name for name in known if name not in ("img", "img2")]
        check_keys(metric, ["type", "better", "test_y_channel", *known], where)


def _check_course(opt: dict[str, Any]) -> None:
    """Refuse options that would only end a training in the middle."""
    train, val = opt["train"], opt.get("val")
    scheduler = train.get("scheduler") or {}
    if scheduler.get("type") == "CosineAnnealingRestartLR":
        _check_periods(scheduler, int(train["total_iter"]))
    elif len(scheduler.get("restarts", [0])) != len(scheduler.get("restart_weights", [1])):
        raise OptionError("train.scheduler needs as many restart_weights as restarts.")
    names = validation_sets(opt)
    if len(names) > len(set(names)):
        raise OptionError(
            f"Two validation sets have one name ({', '.join(names)}): their figures would be taken "
            "for each other's. Names may differ in their letters' case alone, Vid4 and VID4."
        )
    if val and val.get("val_freq") is None:
        raise OptionError("val.val_freq is not set: it is needed in a training.")
    if names and val and val.get("save_img") is not False:
        raise OptionError(
            "val.save_img must be there and false in a training: BasicSR saves the frames of video "
            "models in tests only, and would stop at the first validation."
        )
    _check_loading(opt["datasets"]["train"], int(train.get("accumulate", 1)))


def _check_periods(scheduler: dict[str, Any], total: int) -> None:
    periods, weights = scheduler["periods"], scheduler.get("restart_weights", [1])
    if len(periods) != len(weights):
        raise OptionError(
            f"train.scheduler has {len(periods)} periods and {len(weights)} restart_weights; "
            "each period needs one."
        )
    if sum(periods) < total - 1:
        raise OptionError(
            f"train.scheduler.periods add up to {sum(periods)} iterations, fewer than "
            f"train.total_iter, {total}: the run would end there. Set both alike."
        )


def _check_loading(data: dict[str, Any], accumulate: int) -> None:
    """How the training's batches are read."""
    workers, batch_size = data["num_worker_per_gpu"], data["batch_size_per_gpu"]
    if batch_size % accumulate:
        raise OptionError(
            f"train.accumulate is {accumulate}; it must divide batch_size_per_gpu, {batch_size}."
        )
    if data.get("prefetch_mode") == "cpu" and not workers:
        raise OptionError(
            "datasets.train.prefetch_mode is cpu, which needs num_worker_per_gpu of 1 or more."
        )
    if data.get("prefetch_mode") == "cuda" and not data.get("pin_memory"):
        raise OptionError("datasets.train.prefetch_mode is cuda, which needs pin_memory: true.")
    if data.get("persistent_workers") and not workers:
        raise OptionError(
            "datasets.train.persistent_workers needs num_worker_per_gpu of 1 or more."
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
    precision = (opt.get("train") or {}).get("amp_dtype")
    if precision == "bf16" and opt["num_gpu"] > 1 and not opt.get("dist"):
        raise OptionError(
            "train.amp_dtype: bf16 on several GPUs needs a process for each, because PyTorch's "
            "DataParallel would compute in fp16. Start it with torchrun, or set num_gpu: 1."
        )
    if precision == "fp16" and not opt["num_gpu"]:
        raise OptionError("train.amp_dtype is fp16, which needs a GPU; set bf16 or fp32 on a CPU.")

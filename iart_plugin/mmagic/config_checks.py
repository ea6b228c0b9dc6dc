"""Finds mistakes in a config before the first iteration and reports each in one sentence.

MMEngine builds a model and then its data, and reports a misspelt option or a missing folder with a
long trace. Here the runner checks the config first: the model, the optimizer and the hooks before
anything is built, and the data before it trains, validates or tests.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from mmagic.registry import DATASETS, HOOKS, MODELS, OPTIMIZERS, PARAM_SCHEDULERS
from mmengine.registry import Registry
from mmengine.runner import Runner

from iart_plugin.compat.mmagic import TORCHVISION
from iart_plugin.mmagic.data_checks import check_loader
from iart_plugin.mmagic.resume import latest_checkpoint
from iart_plugin.option_errors import OptionError, check_keys, nearest
from iart_plugin.weight_files import CheckpointMismatch

PLUGIN = "iart_plugin.mmagic"


def install() -> None:
    """Let MMEngine's runner check configs that import this package; harmless when repeated."""
    if hasattr(Runner.train, "__wrapped__"):
        return
    build = Runner.from_cfg.__func__

    @functools.wraps(build)
    def from_cfg(cls: type[Runner], cfg: Any) -> Runner:
        if _is_ours(cfg):
            check_config(cfg)
        return build(cls, cfg)

    Runner.from_cfg = classmethod(from_cfg)
    for name, phases in (("train", ("train", "val")), ("val", ("val",)), ("test", ("test",))):
        setattr(Runner, name, _looking_at_data(getattr(Runner, name), phases))
    sys.excepthook = _without_trace(sys.excepthook)


def _looking_at_data(run: Callable[[Runner], Any], phases: Iterable[str]) -> Callable:
    @functools.wraps(run)
    def checked(self: Runner) -> Any:
        if _is_ours(self.cfg):
            check_data(self.cfg, phases)
            check_start(self)
        return run(self)

    return checked


def _without_trace(hook: Callable) -> Callable:
    """Show an uncaught error of this package's checks as one line, and others as before."""

    def show(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if isinstance(error, (OptionError, CheckpointMismatch)):
            print(f"error: {error}", file=sys.stderr)
        else:
            hook(kind, error, trace)

    return show


def _is_ours(cfg: Any) -> bool:
    return PLUGIN in (cfg.get("custom_imports") or {}).get("imports", ())


def check_config(cfg: Any) -> None:
    """Check model, optimizer, schedule and hooks.

    Args:
        cfg: a config of MMEngine's.

    Raises:
        OptionError: with the name of the option and the values that it can have.
    """
    model = cfg.get("model") or {}
    _check_type(model, MODELS, "model")
    for key, part in model.items():
        if isinstance(part, dict) and "type" in part and key != "init_cfg":
            _check_type(part, MODELS, f"model.{key}")
    _check_generator(model.get("generator") or {})
    _check_perceptual_weights(model.get("perceptual_loss") or {})
    if model.get("gan_loss") and not isinstance(model.get("discriminator"), dict):
        raise OptionError(
            f"model.discriminator is {model.get('discriminator')!r}; a model with a gan_loss needs "
            "one. Give its type and options, or train the first stage, which has no gan_loss."
        )
    for index, hook in enumerate(cfg.get("custom_hooks") or ()):
        if isinstance(hook, dict):
            _check_type(hook, HOOKS, f"custom_hooks.{index}")
    for where, wrapper in _optim_wrappers(cfg.get("optim_wrapper") or {}, model):
        if optimizer := wrapper.get("optimizer"):
            _check_type(optimizer, OPTIMIZERS, f"{where}.optimizer")
            _check_number(optimizer, "lr", f"{where}.optimizer", above=0)
    schedule = cfg.get("param_scheduler") or ()
    for one in [schedule] if isinstance(schedule, dict) else schedule:
        _check_type(one, PARAM_SCHEDULERS, "param_scheduler")
    for key in ("max_iters", "val_interval"):
        _check_number(cfg.get("train_cfg") or {}, key, "train_cfg", above=0)
    for phase in ("train", "val", "test"):
        for where, loader in loaders(cfg, phase):
            _check_type(loader.get("dataset") or {}, DATASETS, f"{where}.dataset")


def check_start(runner: Runner) -> None:
    """Check that the file exists from which a runner is to start.

    Raises:
        OptionError: with the name of the file.
    """
    path = runner._load_from
    if not path or "://" in str(path) or os.path.isfile(os.path.expanduser(path)):
        return
    if runner._resume and latest_checkpoint(Path(runner.work_dir)):
        return  # ResumeOwnHook takes that one
    raise OptionError(
        f"The checkpoint {path} does not exist (looked from {Path.cwd()}). If it is the result of "
        "another training, run that one first, or name another file: --cfg-options load_from=FILE."
    )


def check_data(cfg: Any, phases: Iterable[str]) -> None:
    """Check the data sets and loaders of some phases.

    Args:
        cfg: a config of MMEngine's.
        phases: some of 'train', 'val' and 'test'.

    Raises:
        OptionError: with the name of the option, or of the missing files.
    """
    for phase in phases:
        for where, loader in loaders(cfg, phase):
            check_loader(loader, where, scale=cfg.get("scale", 4))


def loaders(cfg: Any, phase: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """A phase's loaders with their names in the config; a loop over several sets has several."""
    found = cfg.get(f"{phase}_dataloader") or ()
    if isinstance(found, dict):
        yield f"{phase}_dataloader", found
    else:
        yield from ((f"{phase}_dataloader.{i}", one) for i, one in enumerate(found))


def _check_type(section: dict[str, Any], registry: Registry, where: str) -> None:
    name = section.get("type")
    if isinstance(name, str) and registry.get(name) is None:
        known = [*registry.module_dict, *(registry.parent.module_dict if registry.parent else ())]
        raise OptionError(f"{where}.type '{name}' is not registered. {nearest(name, known)}")
    found = registry.get(name) if isinstance(name, str) else None
    # Of other packages only models and losses are checked: their options all go to __init__.
    is_ours = inspect.isclass(found) and found.__module__.startswith(f"{PLUGIN}.")
    if is_ours or (registry is MODELS and inspect.isclass(found) and not _takes_more(found)):
        known = [*_arguments(found), "type", "priority", "_scope_"]
        check_keys(section, known, f"{where} ({name})")


def _takes_more(cls: type) -> bool:
    """Whether a class accepts arguments that it does not name."""
    parameters = inspect.signature(cls.__init__).parameters.values()
    return any(x.kind is x.VAR_KEYWORD for x in parameters)


def _arguments(cls: type) -> list[str]:
    """The arguments of a class, and of its bases as long as each passes others on to the next."""
    found: list[str] = []
    for base in cls.__mro__:
        if "__init__" in vars(base):
            parameters = inspect.signature(base.__init__).parameters.values()
            found += [
                x.name for x in parameters if x.kind in (x.POSITIONAL_OR_KEYWORD, x.KEYWORD_ONLY)
            ]
            if not _takes_more(base):
                break
    return [name for name in found if name != "self"]


def _optim_wrappers(section: dict[str, Any], model: dict[str, Any]) -> Iterator[tuple[str, dict]]:
    """The optimizer wrappers of a config with their names; a model's parts may have their own."""
    where = "optim_wrapper"
    yield where, section
    for key, value in section.items():
        if isinstance(value, dict) and "optimizer" in value:
            check_keys([key], [k for k in model if k != "type"], where)
            yield f"{where}.{key}", value


def _check_perceptual_weights(loss: dict[str, Any]) -> None:
    path = loss.get("pretrained", TORCHVISION)
    if not isinstance(path, str):
        raise OptionError(
            f"model.perceptual_loss.pretrained is {path!r}; it must be a file, or "
            f"'{TORCHVISION}{loss.get('vgg_type', 'vgg19')}' to download it."
        )
    if not path.startswith(TORCHVISION) and not os.path.isfile(path):
        raise OptionError(
            f"model.perceptual_loss.pretrained names {path}, which does not exist (looked from "
            f"{Path.cwd()}). Give torchvision's file of {loss.get('vgg_type', 'vgg19')}, or "
            f"'{TORCHVISION}{loss.get('vgg_type', 'vgg19')}' to download it."
        )


def _check_number(section: dict[str, Any], key: str, where: str, above: float) -> None:
    value = section.get(key, above + 1)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > above:
        raise OptionError(f"{where}.{key} is {value!r}; it must be a number above {above}.")


def _check_generator(generator: dict[str, Any]) -> None:
    """Build one of this package's networks as a trial, so that it refuses wrong options."""
    network = MODELS.get(generator["type"]) if isinstance(generator.get("type"), str) else None
    if network is None or not network.__module__.startswith("iart_plugin."):
        return
    options = {key: value for key, value in generator.items() if key not in ("type", "init_cfg")}
    where = f"model.generator ({network.__name__})"
    check_keys(options, list(inspect.signature(network).parameters), where)
    options.pop("spynet_path", None)
    try:
        # The trial takes no memory for weights, and does not change the random numbers of the run.
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            network(**options)
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise OptionError(f"{where}: {error}") from error

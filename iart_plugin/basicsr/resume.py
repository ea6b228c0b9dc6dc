"""Chooses and reads the training state from which a run resumes."""

from __future__ import annotations

import copy
import math
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from basicsr.models.lr_scheduler import MultiStepRestartLR
from basicsr.utils import check_resume

from iart_plugin.basicsr.random_state import of_first_process
from iart_plugin.files import remove_left_overs
from iart_plugin.option_errors import OptionError
from iart_plugin.resuming import check_same_everywhere
from iart_plugin.weight_files import CheckpointMismatch, read_file, save_whole

VALIDATIONS = "validations.pth"
"""The record of validations, beside the training states because BasicSR validates after it has
saved: for each iteration, which sets were validated and the best figures at that time."""

_PROGRESS = ("last_epoch", "_step_count", "_last_lr", "_get_lr_called_within_step", "_is_initial")


def load_resume_state(opt: dict[str, Any]) -> dict[str, Any] | None:
    """Read the training state from which the run resumes.

    Args:
        opt: BasicSR's options. ``path.resume_state`` and the networks' paths are set in it.

    Returns:
        The training state on the CPU (optimizers move it to their parameters' device), or None for
        a new run.

    Raises:
        OptionError: if the state or one of its networks is missing or unreadable.
        ValueError: if the processes do not find the same state.
    """
    path = _newest_state(opt) if opt["auto_resume"] else opt["path"].get("resume_state")
    if not path:
        return None
    path = Path(path)
    try:
        state = _read_state(path)
        if opt["auto_resume"]:
            _check_networks(opt, path.stem)
    except OptionError as error:
        raise OptionError(f"{error}{_way_out(opt, path)}") from error
    opt["path"]["resume_state"] = str(path)
    check_resume(opt, state["iter"])
    # BasicSR resets only `params_ema`; with `~` or another name the average would be read.
    ignored = opt["path"].get("ignore_resume_networks") or []
    for key in opt["path"]:
        if key.startswith("param_key") and key.replace("param_key", "network", 1) not in ignored:
            opt["path"][key] = "params"
    return state


def _states(opt: dict[str, Any]) -> list[Path]:
    """The run's training states, the newest first."""
    folder = Path(opt["path"]["training_states"])
    states = [path for path in folder.glob("*.state") if path.stem.isdecimal()]  # BasicSR's own
    return sorted(states, key=lambda path: int(path.stem), reverse=True)


def _newest_state(opt: dict[str, Any]) -> Path | None:
    """The state that ``--auto_resume`` takes, the same on every process."""
    newest = next(iter(_states(opt)), None)
    check_same_everywhere(newest, Path(opt["path"]["training_states"]))
    named = opt["path"].get("resume_state")
    if named and (newest is None or Path(named).resolve() != newest.resolve()):
        warnings.warn(
            f"--auto_resume takes {newest or 'no state, for there is none yet'}, not "
            f"path.resume_state {named}. To go back to that one, leave out --auto_resume once "
            "and move newer states away.",
            stacklevel=3,
        )
        opt["path"]["resume_state"] = None
    return newest


def _read_state(path: Path) -> dict[str, Any]:
    """Read one ``.state`` file."""
    state = _read(path)
    if not {"iter", "epoch", "optimizers", "schedulers"} <= state.keys():
        raise OptionError(
            f"The run cannot be resumed: {path} is no training state of BasicSR (a file "
            "ITERATION.state with the optimizers, below experiments/NAME/training_states). To "
            "start from a file of weights, name it as path.pretrain_network_g."
        )
    return state


def _check_networks(opt: dict[str, Any], iteration: str) -> None:
    """The networks that were saved with a state must be readable too."""
    ignored = opt["path"].get("ignore_resume_networks") or []
    for section in opt:
        if section.startswith("network_") and section not in ignored:
            name = section.replace("network_", "net_", 1)
            _read(Path(opt["path"]["models"]) / f"{name}_{iteration}.pth")


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_file(path)
    except FileNotFoundError as error:
        raise OptionError(f"The run cannot be resumed: {path} does not exist.") from error
    except CheckpointMismatch as error:
        raise OptionError(
            f"The run cannot be resumed: {path} is unreadable, perhaps damaged ({error})."
        ) from error


def _way_out(opt: dict[str, Any], refused: Path) -> str:
    """Say how to go on where ``--auto_resume`` found a state that it cannot use."""
    if not opt["auto_resume"]:
        return ""
    anew = "To start anew, leave out --auto_resume."
    for path in _states(opt):
        try:
            _read_state(path)
            _check_networks(opt, path.stem)
        except OptionError:
            continue
        return (
            f" The newest whole checkpoint is {path}: to go on from it, move {refused} and every "
            f"later state away and start again. {anew}"
        )
    return f" No other checkpoint of the run is whole. {anew}"


def check_groups(optimizers: list[Any], states: list[dict[str, Any]]) -> None:
    """Refuse a state whose optimizers group the weights differently from the options.

    Raises:
        OptionError: if the numbers of weights in the groups differ.
    """
    ours = [[len(g["params"]) for g in one.param_groups] for one in optimizers]
    saved = [[len(g["params"]) for g in state["param_groups"]] for state in states]
    if ours != saved:
        raise OptionError(
            f"The training state has weights in groups of {saved}, the option file makes {ours}. "
            "For a resumed run train.lr_mul must name the same weights as at its start, and "
            "train.flow_lr_mul may not change to or from 0 or 1."
        )


def settings_of(optimizers: Iterable[Any], schedulers: Iterable[Any]) -> list[dict[str, Any]]:
    """Copy the settings of optimizers and schedulers, but not their progress or current rate."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    settings = [{k: v for k, v in g.items() if k not in ("params", "lr")} for g in groups]
    for scheduler in schedulers:
        state = scheduler.state_dict()
        settings.append({k: v for k, v in state.items() if k not in _PROGRESS})
    return copy.deepcopy(settings)


def apply_settings(
    settings: list[dict[str, Any]], optimizers: Iterable[Any], schedulers: Iterable[Any]
) -> str:
    """Restore the options' settings, which loading a state has replaced by the saved ones.

    Args:
        settings: what :func:`settings_of` returned before the state was loaded.
        optimizers: the optimizers, in the same order as then.
        schedulers: the schedulers, in the same order as then.

    Returns:
        The settings that differed from the state's, for a message; empty if none did.
    """
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    schedulers = list(schedulers)
    changed = {}
    for owner, wanted in zip([*groups, *map(vars, schedulers)], settings, strict=True):
        for key, value in wanted.items():
            before = owner.setdefault(key, value)  # the state of another version may lack the key
            if before != value:
                changed[key] = f"{key} {value} in place of {before}"
                owner[key] = value
    for scheduler, wanted in zip(schedulers, settings[len(groups) :], strict=True):
        foreign = scheduler.state_dict().keys() - wanted.keys() - set(_PROGRESS)
        if isinstance(scheduler, MultiStepRestartLR) and (changed or foreign):
            # This scheduler multiplies the current rate. The others compute the rate from scratch.
            for group in scheduler.optimizer.param_groups:
                rate = _multi_step_rate(scheduler, group["initial_lr"])
                if not math.isclose(rate, group["lr"], rel_tol=1e-6):
                    changed["lr"] = f"lr {rate} in place of {group['lr']}"
                group["lr"] = rate
    return ", ".join(changed.values())


def _multi_step_rate(scheduler: MultiStepRestartLR, initial: float) -> float:
    """The rate that the scheduler would have now if its settings had been so from the start."""
    now = scheduler.last_epoch
    restarts = zip(scheduler.restarts, scheduler.restart_weights, strict=True)
    start, weight = max((pair for pair in restarts if pair[0] <= now), default=(0, 1))
    passed = sum(count for at, count in scheduler.milestones.items() if start < at <= now)
    return initial * weight * scheduler.gamma**passed


def read_validations(state: str | os.PathLike | None) -> dict[int, dict[str, Any]]:
    """Read the record of validations of the run that saved a training state.

    Args:
        state: the training state's file, or None.

    Returns:
        The record by iteration, as the first process reads it, on every process.
    """
    path = Path(state).parent / VALIDATIONS if state else None
    found = {}
    if path and path.is_file():
        try:
            found = read_file(path)
        except CheckpointMismatch as error:
            warnings.warn(f"{error}; the best figures so far are the state's.", stacklevel=2)
    return of_first_process(found)


def save_atomically(payload: Any, path: Path) -> None:
    """Save a file completely or not at all, and remove what a killed process left in its folder.

    Only one process may write to the folder at a time.
    """
    remove_left_overs(path.parent)
    save_whole(payload, path)

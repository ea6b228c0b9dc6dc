"""Exact resume: a run that was killed and taken up again ends with the same weights.

BasicSR takes a resumed run to the start of the epoch and lets every worker's augmentation depend on
what that worker did before. Here the order of the data goes on where it stopped, and each sample's
random numbers depend only on the seed, the epoch and its place in the epoch. They are the same for
any number of workers, and of processes at the same total batch size.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import math
import os
import random
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from basicsr.data.data_sampler import EnlargedSampler
from basicsr.models.lr_scheduler import MultiStepRestartLR
from basicsr.utils.dist_util import get_dist_info
from torch import distributed as dist
from torch.utils.data import DataLoader, Dataset

from iart_plugin import compat
from iart_plugin.basicsr.checks import OptionError
from iart_plugin.files import remove_left_overs
from iart_plugin.weight_files import CheckpointMismatch, read_file, save_whole

VALIDATIONS = "validations.pth"
"""Beside the training states, for BasicSR validates after saving: by iteration, which sets were
validated, and the best figures then."""

_PROGRESS = ("last_epoch", "_step_count", "_last_lr", "_get_lr_called_within_step", "_is_initial")

_current_loader: DataLoader | None = None  # the training data of this process's pipeline


class SamplePlace(int):
    """A data set's index that also knows its place: epoch, and position among all processes'."""

    def __new__(cls, index: int, place: tuple[int, int]) -> SamplePlace:
        self = super().__new__(cls, index)
        self.place = place
        return self

    def __reduce__(self) -> tuple:
        return SamplePlace, (int(self), self.place)


class ResumableSampler(EnlargedSampler):
    """BasicSR's sampler, in the same order, able to start in the middle of one epoch."""

    _start: tuple[int, int] = (-1, 0)  # (epoch, number of samples already used)

    def start_at(self, epoch: int, used: int) -> None:
        """Leave out the first ``used`` samples of ``epoch``; other epochs are complete."""
        self._start = (epoch, used)

    def __iter__(self) -> Iterator[SamplePlace]:
        first = self._start[1] if self.epoch == self._start[0] else 0
        for position, index in enumerate(super().__iter__()):
            if position >= first:
                yield SamplePlace(index, (self.epoch, position * self.num_replicas + self.rank))


class SeededDataset(Dataset):
    """A data set whose random choices follow from the seed and the sample's place alone.

    Args:
        dataset: A map-style data set that draws from ``random``, ``numpy`` or ``torch``.
        seed: The run's seed.
    """

    def __init__(self, dataset: Dataset, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        if not isinstance(index, SamplePlace):
            return self.dataset[index]
        with seeded(self.seed, *index.place):
            sample = self.dataset[int(index)]
        # BasicSR's Vimeo-90K sets reverse this list in place and leave it so.
        if isinstance(getattr(self.dataset, "neighbor_list", None), list):
            self.dataset.neighbor_list.sort()
        return sample


@contextlib.contextmanager
def seeded(*entropy: int) -> Iterator[None]:
    """Random numbers that depend on ``entropy`` only, without disturbing those outside."""
    before = random_state()
    words = np.random.SeedSequence(entropy).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))  # noqa: NPY002  what data sets use
    torch.random.default_generator.manual_seed(int(words[2]))
    try:
        yield
    finally:
        set_random_state(before)


def random_state() -> dict[str, Any]:
    """The states of Python's, numpy's and torch's generators, in types that weights-only loads."""
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Undo :func:`random_state`, CUDA's generator included where the state has one."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def gather_random_states() -> list[dict[str, Any]]:
    """Every process's random state, by rank, on every process."""
    state = random_state()
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    if get_dist_info()[1] == 1:
        return [state]
    states: list[Any] = [None] * get_dist_info()[1]
    dist.all_gather_object(states, state)
    return states


def of_first_process(value: Any) -> Any:
    """The first process's value, on every process."""
    if get_dist_info()[1] == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def restore_random_state(states: list[dict[str, Any]]) -> None:
    """Take up this process's own random state out of :func:`gather_random_states`'s."""
    rank, world_size = get_dist_info()
    if len(states) != world_size:
        warnings.warn(
            f"The run was saved by {len(states)} processes and goes on with {world_size}: "
            "its random numbers start anew.",
            stacklevel=2,
        )
        return
    set_random_state(states[rank])


def continue_data(epoch: int, iteration: int, seed: int) -> None:
    """Let the training data go on after ``iteration``, which was in ``epoch``."""
    if _current_loader is None:
        return
    _current_loader.dataset.seed = seed
    used = iteration - epoch * len(_current_loader)
    if 0 <= used <= len(_current_loader):
        _current_loader.sampler.start_at(epoch, used * _current_loader.batch_size)
    else:
        warnings.warn(
            f"Iteration {iteration} does not lie in epoch {epoch} of {len(_current_loader)} "
            "iterations: the data or the batch size changed. The epoch starts from its beginning.",
            stacklevel=2,
        )


def check_groups(optimizers: list[Any], states: list[dict[str, Any]]) -> None:
    """Weights must be grouped as when the state was saved.

    Raises:
        OptionError: if they are not.
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
    """What the options say of optimizers and schedulers, without how far they are."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    settings = [{k: v for k, v in g.items() if k not in ("params", "lr")} for g in groups]
    for scheduler in schedulers:
        state = scheduler.state_dict()
        settings.append({k: v for k, v in state.items() if k not in _PROGRESS})
    return copy.deepcopy(settings)


def apply_settings(
    settings: list[dict[str, Any]], optimizers: Iterable[Any], schedulers: Iterable[Any]
) -> str:
    """Give optimizers and schedulers that took up a state the options' settings again.

    Args:
        settings: of :func:`settings_of`, before they took it up.
        optimizers: in the same order.
        schedulers: in the same order.

    Returns:
        What the state had otherwise, for a message; empty if nothing.
    """
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    schedulers = list(schedulers)
    changed = {}
    for owner, wanted in zip([*groups, *map(vars, schedulers)], settings, strict=True):
        for key, value in wanted.items():
            before = owner.setdefault(key, value)  # another version's state may lack it
            if before != value:
                changed[key] = f"{key} {value} in place of {before}"
                owner[key] = value
    for scheduler, wanted in zip(schedulers, settings[len(groups) :], strict=True):
        foreign = scheduler.state_dict().keys() - wanted.keys() - set(_PROGRESS)
        if isinstance(scheduler, MultiStepRestartLR) and (changed or foreign):
            # It multiplies the rate that it finds, where others compute theirs anew.
            for group in scheduler.optimizer.param_groups:
                rate = _multi_step_rate(scheduler, group["initial_lr"])
                if not math.isclose(rate, group["lr"], rel_tol=1e-6):
                    changed["lr"] = f"lr {rate} in place of {group['lr']}"
                group["lr"] = rate
    return ", ".join(changed.values())


def _multi_step_rate(scheduler: MultiStepRestartLR, initial: float) -> float:
    """The rate where the scheduler is now, had it been so from the beginning."""
    now = scheduler.last_epoch
    restarts = zip(scheduler.restarts, scheduler.restart_weights, strict=True)
    start, weight = max((pair for pair in restarts if pair[0] <= now), default=(0, 1))
    passed = sum(count for at, count in scheduler.milestones.items() if start < at <= now)
    return initial * weight * scheduler.gamma**passed


def read_validations(state: str | os.PathLike | None) -> dict[int, dict[str, Any]]:
    """What the run that saved a training state had validated, as the first process finds it."""
    path = Path(state).parent / VALIDATIONS if state else None
    found = {}
    if path and path.is_file():
        try:
            found = read_file(path)
        except CheckpointMismatch as error:
            warnings.warn(f"{error}; the best figures so far are the state's.", stacklevel=2)
    return of_first_process(found)


def save_atomically(payload: Any, path: Path) -> None:
    """``torch.save`` to a temporary name, then rename: a reader sees the whole file or none.

    One process writes to a folder at a time. What a killed one has left there is removed.
    """
    remove_left_overs(path.parent)
    save_whole(payload, path)


def install() -> None:
    """Have BasicSR's training pipeline of this process read its data resumably. Idempotent."""
    compat.replace_in_basicsr_pipelines("EnlargedSampler", lambda _original: ResumableSampler)
    compat.replace_in_basicsr_pipelines("create_train_val_dataloader", _with_seeded_data)
    compat.replace_in_basicsr_pipelines("init_tb_loggers", _continuing_curves)


def _with_seeded_data(create: Callable) -> Callable:
    @functools.wraps(create)
    def create_train_val_dataloader(opt: dict[str, Any], logger: Any):
        global _current_loader
        # BasicSR draws one for each process where none is set.
        opt["manual_seed"] = of_first_process(opt["manual_seed"])
        loader, sampler, val_loaders, _, iterations = create(opt, logger)
        if not len(loader):
            raise OptionError(
                f"The training data set has {len(loader.dataset)} samples, fewer than one batch of "
                "all processes. Lower batch_size_per_gpu or raise dataset_enlarge_ratio."
            )
        _current_loader = loader
        _current_loader.dataset.seed = opt["manual_seed"]
        # Of its own: the workers' seeds are not drawn from the generator that the network uses.
        _current_loader.generator = torch.Generator().manual_seed(opt["manual_seed"])
        # BasicSR counts incomplete batches, which are left out: too few epochs for small sets.
        return loader, sampler, val_loaders, math.ceil(iterations / len(loader)), iterations

    return create_train_val_dataloader


def _continuing_curves(init: Callable) -> Callable:
    @functools.wraps(init)
    def init_tb_loggers(opt: dict[str, Any]):
        writer = init(opt)
        resumed = Path(opt["path"].get("resume_state") or "").stem
        if writer is not None and resumed.isdecimal():
            # The next value opens it again, and marks what a stopped run has logged since.
            writer.purge_step = int(resumed) + 1
            writer.close()
        return writer

    return init_tb_loggers

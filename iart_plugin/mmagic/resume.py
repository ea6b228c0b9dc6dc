"""Restores the checkpoint, the data order and the random numbers when MMagic resumes a training."""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice, repeat
from pathlib import Path

import numpy as np
import torch
from mmagic.registry import HOOKS
from mmengine.dataset import InfiniteSampler
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner

from iart_plugin.option_errors import OptionError
from iart_plugin.resuming import check_same_everywhere
from iart_plugin.weight_files import CheckpointMismatch, read_file


@HOOKS.register_module()
class ResumeOwnHook(Hook):
    """Lets ``--resume`` take one of the run's own checkpoints, and only if it is complete.

    If ``load_from`` is set, MMEngine resumes from that file. A training that started from another
    training's weights would then continue at the other training's iteration, at every resume. With
    this hook, ``load_from`` only gives the starting weights. The run resumes from that file only if
    the file is one of the run's own checkpoints.

    MMEngine gives no error in three more cases, which this hook refuses: if the file holds only
    weights (``best_*.pth``), with which the learning rate would start again; if the config's
    periods differ from the run's, which MMEngine ignores; and if processes find different files. It
    also deletes the best checkpoint that a resumed file names when a better one comes, even if it
    belongs to another run. This hook prevents that.
    """

    priority = "VERY_HIGH"

    def before_run(self, runner: Runner) -> None:
        """Chooses what MMEngine resumes right after this hook.

        Raises:
            OptionError: if the checkpoint cannot be read, or processes find different ones.
        """
        if not _resumes(runner):
            return
        self._periods = _periods(runner)  # the config's; loading the checkpoint replaces them
        chosen = latest = latest_checkpoint(Path(runner.work_dir))
        self._own_folders = {Path(runner.work_dir).resolve()}
        if latest is not None:  # it may be elsewhere, if CheckpointHook has another out_dir
            self._own_folders.add(Path(latest).resolve().parent)
        if runner._load_from and Path(runner._load_from).resolve().parent in self._own_folders:
            chosen = runner._load_from
        elif runner._load_from and latest is None:
            runner.logger.info(
                f"{runner.work_dir} has no checkpoint to resume: the training starts from the "
                f"weights of {runner._load_from}."
            )
            runner._resume = False
        else:
            runner._load_from = None if latest is None else str(latest)
        check_same_everywhere(chosen and Path(chosen), Path(runner.work_dir))
        if chosen is not None:
            _check_whole(Path(chosen), self._own_folders)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Refuses to resume from a file of weights.

        Raises:
            OptionError: if the file holds no optimizer or no schedule.
        """
        if not _resumes(runner):
            return
        needed = {"optimizer"}
        if runner.param_schedulers is not None:
            needed.add("param_schedulers")
        if missing := needed - checkpoint.keys():
            raise OptionError(
                f"The checkpoint to resume holds no {' and no '.join(sorted(missing))}: the "
                "learning rate would begin anew in the middle of the run. Resume from an "
                "iter_*.pth, or start from these weights with load_from and without --resume."
            )

    def before_train(self, runner: Runner) -> None:
        """Compares the schedules, and forgets another run's best checkpoint.

        Raises:
            OptionError: if the config's periods differ from the run's.
        """
        if not _resumes(runner):
            return
        for given, periods in zip(self._periods, _periods(runner), strict=False):
            if given != periods:
                raise OptionError(
                    f"The run's learning rate follows periods of {periods} iterations and keeps "
                    f"them when resumed; the config says {given}. Give the options of its start "
                    f"again: --cfg-options param_scheduler.periods={periods} "
                    f"train_cfg.max_iters={sum(periods)}."
                )
        hub = runner.message_hub
        for key in [key for key in hub.runtime_info if key.startswith("best_ckpt")]:
            if Path(hub.get_info(key)).resolve().parent not in self._own_folders:
                hub.pop_info(key)
                hub.pop_info(key.replace("ckpt", "score"))


@HOOKS.register_module()
class ResumeDataHook(Hook):
    """Lets a resumed training continue at once with the clips that come next.

    To find its place, MMEngine reads and drops one batch for each finished iteration. With REDS'
    configs a batch has 15 frames of 1280x720 and their inputs, so after 100,000 iterations this
    takes hours. MMEngine also shuffles in another order unless the config fixes the seed.

    This hook restores the order of the run's first start, if the sampler uses the run's seed. It
    skips the indices of the clips that were already used, without reading any clip. The workers
    start again, so they draw other augmentations. The hook changes no sampler other than MMEngine's
    ``InfiniteSampler``.
    """

    def before_train(self, runner: Runner) -> None:
        """Moves the sampler to its place before MMEngine reads any batch."""
        loop = runner.train_loop
        loader, done = loop.dataloader, runner.iter
        known = isinstance(loop, IterBasedTrainLoop) and isinstance(loader.sampler, InfiniteSampler)
        if not (known and done and loader.batch_size):
            return
        sampler, init_worker = loader.sampler, loader.worker_init_fn
        first_seed = getattr(init_worker, "keywords", {}).get("seed")
        if first_seed is not None:
            if sampler.seed == first_seed:  # otherwise the config gives the sampler a seed
                sampler.seed = runner.seed
            loader.worker_init_fn = functools.partial(init_worker, seed=first_seed + done)
        sampler.indices = islice(sampler._indices_of_rank(), done * loader.batch_size, None)
        # The workers have already begun to read the first batches, so these are dropped.
        batches = type(loop.dataloader_iterator)
        loop.dataloader_iterator = loader._iterator = None
        loop.dataloader_iterator = chain(repeat(None, done), batches(loader))
        runner.logger.info(f"The data goes on after batch {done}; none is read again.")


@HOOKS.register_module()
class ProcessSeedHook(Hook):
    """Gives every process its own random numbers, which also differ after a resume.

    MMEngine gives all processes the same seed, so that stochastic depth would leave out the same
    blocks for all clips of a batch. BasicSR adds the process's rank to the seed.
    """

    def before_train(self, runner: Runner) -> None:
        """Seeds the generators of Python, NumPy and PyTorch."""
        entropy = np.random.SeedSequence((runner.seed, runner.rank, runner.iter))
        words = [int(word) for word in entropy.generate_state(3)]
        random.seed(words[0])
        np.random.seed(words[1])  # noqa: NPY002  without workers, transforms use this generator
        torch.manual_seed(words[2])


def latest_checkpoint(work_dir: Path) -> Path | None:
    """The checkpoint that MMEngine has recorded as its last, or else the newest one in the folder.

    MMEngine writes the record after the checkpoint, and an interrupted run may leave it empty.
    """
    note = work_dir / "last_checkpoint"
    named = note.read_text().strip() if note.is_file() else ""
    return Path(named) if named else next(_checkpoints({work_dir}), None)


def _checkpoints(folders: Iterable[Path]) -> Iterator[Path]:
    """A run's own checkpoints in these folders, the newest first."""
    found = [
        (int(match[1]), path)
        for folder in folders
        for path in folder.glob("*.pth")
        if (match := re.fullmatch(r"(?:iter|epoch)_(\d+)\.pth", path.name))
    ]
    return (path for _, path in sorted(found, reverse=True))


def _check_whole(path: Path, folders: Iterable[Path]) -> None:
    """Refuse a checkpoint that cannot be read, and name the newest one that can."""
    reason = _unreadable(path)
    if reason is None:
        return
    whole = next((other for other in _checkpoints(folders) if not _unreadable(other)), None)
    way_out = "No other checkpoint of the run is whole."
    if whole is not None:
        way_out = (
            f"The newest whole checkpoint is {whole}: to go on from it, give --resume "
            f"--cfg-options load_from={whole}."
        )
    raise OptionError(
        f"The run cannot be resumed: {path} {reason}. {way_out} To start anew, leave out --resume."
    )


def _unreadable(path: Path) -> str | None:
    """Why a checkpoint cannot be read; None if it can."""
    try:
        read_file(path)
    except FileNotFoundError:
        return "does not exist"
    except CheckpointMismatch:
        return "is unreadable, perhaps damaged"
    return None


def _periods(runner: Runner) -> list[list[int]]:
    """The periods of every learning rate schedule that has periods."""
    schedulers = runner.param_schedulers or []
    if isinstance(schedulers, dict):
        schedulers = chain(*schedulers.values())
    return [list(one.periods) for one in schedulers if hasattr(one, "periods")]


def _resumes(runner: Runner) -> bool:
    training = isinstance(runner._train_loop, BaseLoop)  # only train() has built it
    return training and runner._resume

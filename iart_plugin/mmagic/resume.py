"""Resuming a training in MMagic: which checkpoint, and going on in the data."""

from __future__ import annotations

from itertools import chain, islice, repeat
from pathlib import Path

from mmagic.registry import HOOKS
from mmengine.dataset import InfiniteSampler
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner, find_latest_checkpoint


@HOOKS.register_module()
class ResumeOwnHook(Hook):
    """Lets ``--resume`` go on with the run's own newest checkpoint where ``load_from`` is set.

    MMEngine resumes ``load_from`` itself then: a training that starts from another one's weights
    would take up that one's iteration, each time anew. Here ``load_from`` is where such a training
    starts, and is resumed only if it lies among the run's own checkpoints.
    """

    priority = "VERY_HIGH"

    def before_run(self, runner: Runner) -> None:
        """Chooses what MMEngine resumes right after this hook."""
        training = isinstance(runner._train_loop, BaseLoop)  # only train() has built it
        if not (training and runner._resume and runner._load_from):
            return
        latest = find_latest_checkpoint(runner.work_dir)
        own = {Path(runner.work_dir).resolve()}
        if latest is not None:  # MMagic's configs have them written elsewhere
            own.add(Path(latest).resolve().parent)
        if Path(runner._load_from).resolve().parent in own:
            return
        if latest is None:
            runner.logger.info(
                f"{runner.work_dir} has no checkpoint to resume: the training starts from the "
                f"weights of {runner._load_from}."
            )
            runner._resume = False
        else:
            runner._load_from = None


@HOOKS.register_module()
class ResumeDataHook(Hook):
    """Lets a resumed training go on in its data at once, with the clips that come next.

    MMEngine reads and drops a batch for each iteration that was done: 15 frames of 1280x720 and
    their inputs each in REDS' configs, for hours after 100,000. It also shuffles anew unless the
    config fixes the seed. Here the sampler takes up the order of the run's first start and passes
    over what was trained on, which reads nothing. Augmentations are drawn anew: with a fixed seed,
    MMEngine's own way repeats those of a run that was not stopped.

    Of samplers it knows MMEngine's ``InfiniteSampler``; with others, MMEngine's way stays.
    """

    def before_train(self, runner: Runner) -> None:
        """Moves the data on, after MMEngine has loaded the checkpoint and before it reads any."""
        loop = runner.train_loop
        done, batch_size = runner.iter, loop.dataloader.batch_size
        sampler = loop.dataloader.sampler
        known = isinstance(loop, IterBasedTrainLoop) and isinstance(sampler, InfiniteSampler)
        if not (known and done and batch_size):
            return
        sampler.seed = runner.seed
        sampler.indices = islice(sampler._indices_of_rank(), done * batch_size, None)
        # What its workers have begun to read is from the beginning.
        batches = type(loop.dataloader_iterator)
        loop.dataloader_iterator = None
        loop.dataloader_iterator = chain(repeat(None, done), batches(loop.dataloader))
        runner.logger.info(f"The data goes on after batch {done}; none is read again.")

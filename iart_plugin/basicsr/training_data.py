"""Training data that a resumed run can continue at any iteration.

In BasicSR, a resumed run goes back to the start of the epoch, and a worker's augmentation depends
on what that worker did before. Here a resumed run continues where the data stopped. Each sample's
random numbers depend only on the seed, the epoch and the sample's position in the epoch. So they
are the same for any number of workers, and for any number of processes with the same total batch.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from basicsr.data import build_dataloader, build_dataset
from basicsr.data.data_sampler import EnlargedSampler
from basicsr.data.prefetch_dataloader import CPUPrefetcher, CUDAPrefetcher
from torch.utils.data import Dataset

from iart_plugin.basicsr.random_state import seeded
from iart_plugin.option_errors import OptionError


class SamplePlace(int):
    """A data set's index that also holds (epoch, position among the samples of all processes)."""

    def __new__(cls, index: int, place: tuple[int, int]) -> SamplePlace:
        """The index ``index`` with its place."""
        self = super().__new__(cls, index)
        self.place = place
        return self

    def __reduce__(self) -> tuple:
        return SamplePlace, (int(self), self.place)


class ResumableSampler(EnlargedSampler):
    """BasicSR's sampler with the same order, which can also start in the middle of one epoch."""

    _start: tuple[int, int] = (-1, 0)  # (epoch, number of samples already used)

    def start_at(self, epoch: int, used: int) -> None:
        """Skip the first ``used`` samples of ``epoch``. Other epochs are complete."""
        self._start = (epoch, used)

    def __iter__(self) -> Iterator[SamplePlace]:
        first = self._start[1] if self.epoch == self._start[0] else 0
        for position, index in enumerate(super().__iter__()):
            if position >= first:
                yield SamplePlace(index, (self.epoch, position * self.num_replicas + self.rank))


class SeededDataset(Dataset):
    """A data set whose random choices depend only on the seed and on the sample's place.

    Args:
        dataset: a map-style data set that draws from ``random``, ``numpy`` or ``torch``.
        seed: the run's seed.
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
        # BasicSR's Vimeo-90K sets reverse this list in place and do not restore it.
        if isinstance(getattr(self.dataset, "neighbor_list", None), list):
            self.dataset.neighbor_list.sort()
        return sample


class TrainingData:
    """The batches of one process, epoch after epoch without end.

    Args:
        opt: BasicSR's options. ``manual_seed`` must be the same on every process.

    Raises:
        OptionError: if the data set is smaller than one batch over all processes.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        data = opt["datasets"]["train"]
        dataset = SeededDataset(build_dataset(data), opt["manual_seed"])
        ratio = data.get("dataset_enlarge_ratio", 1)
        self.sampler = ResumableSampler(dataset, opt["world_size"], opt["rank"], ratio)
        self.loader = build_dataloader(
            dataset,
            data,
            num_gpu=opt["num_gpu"],
            dist=opt["dist"],
            sampler=self.sampler,
            seed=opt["manual_seed"],
        )
        if not len(self.loader):
            raise OptionError(
                f"The training data set has {len(dataset)} samples, fewer than one batch of all "
                "processes. Lower batch_size_per_gpu or raise dataset_enlarge_ratio."
            )
        # The loader has its own generator, so that its workers' seeds do not use the network's.
        self.loader.generator = torch.Generator().manual_seed(opt["manual_seed"])
        on_gpu = data.get("prefetch_mode") == "cuda" and torch.cuda.is_available()
        self._prefetcher = (
            CUDAPrefetcher(self.loader, opt) if on_gpu else CPUPrefetcher(self.loader)
        )
        self._first_epoch = 0

    def continue_after(self, epoch: int, iteration: int, seed: int) -> None:
        """Go on after ``iteration``, which was in ``epoch`` of a run with this ``seed``."""
        self._first_epoch = epoch
        self.loader.dataset.seed = seed
        used = iteration - epoch * len(self.loader)
        if 0 <= used <= len(self.loader):
            self.sampler.start_at(epoch, used * self.loader.batch_size)
        else:
            warnings.warn(
                f"Iteration {iteration} does not lie in epoch {epoch} of {len(self.loader)} "
                "iterations: the data or the batch size changed. The epoch starts from its "
                "beginning.",
                stacklevel=2,
            )

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (epoch, batch) from the start, or from where :meth:`continue_after` moved it."""
        for epoch in itertools.count(self._first_epoch):
            self.sampler.set_epoch(epoch)
            self._prefetcher.reset()
            while (batch := self._prefetcher.next()) is not None:
                yield epoch, batch

"""Stores the features of a long clip until the next branch of a recurrent network needs them."""

import tempfile
from typing import NamedTuple

import torch
from torch import Tensor

CACHES = ("device", "cpu", "disk")


class CacheOptions(NamedTuple):
    """Where features are stored.

    Attributes:
        cache: 'device' stores them on the clip's device, 'cpu' in main memory, and 'disk' in a
            temporary file. The file is in the folder that Python's ``tempfile`` chooses
            (``TMPDIR``), and disappears with the process however it ends.
        limit: the most bytes of features on the clip's device; further ones go to the disk with
            'disk', and to main memory otherwise. None means no limit with 'device', and 0 bytes
            with 'cpu' and 'disk'.
    """

    cache: str = "device"
    limit: int | None = None

    def check(self) -> "CacheOptions":
        """Returns the options, or raises ValueError if one of them has an impossible value."""
        if self.cache not in CACHES:
            raise ValueError(f"cache must be one of {', '.join(CACHES)}, got {self.cache!r}")
        if self.limit is not None and self.limit < 0:
            raise ValueError(f"cache_limit must be a number of bytes, got {self.limit}")
        return self


class CacheBudget:
    """Counts the bytes that all caches of one clip may still store on the device."""

    def __init__(self, options: CacheOptions) -> None:
        self.options = options
        default = float("inf") if options.cache == "device" else 0
        self.free = default if options.limit is None else options.limit

    def claim(self, size: int) -> bool:
        """Reserves ``size`` bytes; returns False if fewer are left."""
        if size > self.free:
            return False
        self.free -= size
        return True


class FeatureCache:
    """Stores numbered features; each is put once and taken once, which frees its memory.

    Args:
        budget: the budget that the caches of one clip share.
    """

    def __init__(self, budget: CacheBudget) -> None:
        self._budget = budget
        self._kept: dict[int, tuple[Tensor, int]] = {}
        self._away: dict[int, Tensor | int] = {}  # a tensor on the CPU, or a slot of the file
        self._file = None
        self._like: Tensor | None = None
        self._free_slots: list[int] = []
        self._num_slots = 0

    def put(self, number: int, feature: Tensor) -> None:
        """Stores a feature. All must have the same size; those with gradients stay in memory."""
        size = 0 if torch.compiler.is_compiling() else feature.nbytes  # unknown to compilers
        if self._budget.claim(size):
            self._kept[number] = (feature, size)
        elif self._budget.options.cache == "disk" and not feature.requires_grad:
            self._away[number] = self._write(feature)
        else:
            # A GPU copies to pinned memory while it computes, and its copies keep their order.
            self._away[number] = feature.to("cpu", non_blocking=feature.is_cuda)

    def take(self, number: int, device: torch.device) -> Tensor:
        """Returns a feature on ``device`` and removes it from the cache."""
        if number in self._kept:
            feature, size = self._kept.pop(number)
            self._budget.free += size
            return feature
        place = self._away.pop(number)
        feature = self._read(place) if isinstance(place, int) else place
        return feature.to(device, non_blocking=device.type == "cuda")

    def _write(self, feature: Tensor) -> int:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="iart_plugin-")  # noqa: SIM115 lives as long
            self._like = torch.empty_like(feature, device="meta")  # dense, in the same layout
        if self._free_slots:
            slot = self._free_slots.pop()
        else:
            slot = self._num_slots
            self._num_slots += 1
        self._file.seek(slot * feature.nbytes)
        dense = torch.empty_like(self._like, device="cpu").copy_(feature)
        self._file.write(memoryview(_bytes_of(dense)))
        return slot

    def _read(self, slot: int) -> Tensor:
        feature = torch.empty_like(self._like, device="cpu")
        self._file.seek(slot * feature.nbytes)
        self._file.readinto(memoryview(_bytes_of(feature)))
        self._free_slots.append(slot)
        return feature


def _bytes_of(tensor: Tensor):
    """The bytes of a dense CPU tensor in memory order, as a NumPy array without a copy."""
    return tensor.detach().as_strided((tensor.numel(),), (1,)).view(torch.uint8).numpy()

"""Several processes on one video, as torchrun starts them.

The processes share only the plan and a few barriers. Each process upscales its own segments into
the folder of the unfinished run, which all of them must see. The first one puts the file together.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")
# A process may be done hours before the others.
_PATIENCE = timedelta(days=30)


@dataclass(frozen=True)
class Group:
    """This process's place among the processes of the run.

    Attributes:
        rank: The number of this process.
        size: The number of processes.
        local_rank: The number of this process on its machine, which selects the GPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def join(cls) -> Group:
        """The group that the environment describes; a group of one where it describes none."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        # gloo, also with GPUs: only small objects are exchanged.
        dist.init_process_group("gloo", timeout=_PATIENCE)
        rank = dist.get_rank()
        return cls(rank, size, int(os.environ.get("LOCAL_RANK", rank)))

    @property
    def is_first(self) -> bool:
        """Whether this process speaks for all of them."""
        return self.rank == 0

    def owns(self, segment: int) -> bool:
        """Whether a segment is this process's work."""
        return segment % self.size == self.rank

    def device(self, device: torch.device) -> torch.device:
        """``device``, or this process's own GPU where it has no number."""
        if self.size > 1 and device.type == "cuda" and device.index is None:
            return torch.device("cuda", self.local_rank % torch.cuda.device_count())
        return device

    def share(self, value: T) -> T:
        """The first process's value."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            dist.barrier()

    def leave(self) -> None:
        """End the group."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

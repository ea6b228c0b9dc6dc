"""Saves and restores the states of the random generators of all processes."""

from __future__ import annotations

import contextlib
import random
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from basicsr.utils.dist_util import get_dist_info
from torch import distributed as dist


def random_state() -> dict[str, Any]:
    """The states of Python's, numpy's and torch's generators, in types that weights-only loads."""
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restore what :func:`random_state` returned, and CUDA's generator if it is in the state."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@contextlib.contextmanager
def seeded(*entropy: int) -> Iterator[None]:
    """Make random numbers depend on ``entropy`` only in this block, and restore the state after."""
    before = random_state()
    words = np.random.SeedSequence(entropy).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))  # noqa: NPY002  what data sets use
    torch.random.default_generator.manual_seed(int(words[2]))
    try:
        yield
    finally:
        set_random_state(before)


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


def restore_random_state(states: list[dict[str, Any]]) -> None:
    """Restore this process's random state from what :func:`gather_random_states` returned.

    If the number of processes has changed, a warning says that random numbers start anew.
    """
    rank, world_size = get_dist_info()
    if len(states) != world_size:
        warnings.warn(
            f"The run was saved by {len(states)} processes and goes on with {world_size}: "
            "its random numbers start anew.",
            stacklevel=2,
        )
        return
    set_random_state(states[rank])


def of_first_process(value: Any) -> Any:
    """The first process's value, on every process."""
    if get_dist_info()[1] == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]

"""A progress bar inside a clip, which BasicSR's own bar counts as one step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from tqdm import tqdm

SHORT = 2.0
"""Seconds: a clip done sooner shows no bar."""


@contextmanager
def clip_progress(network: nn.Module, frames: int) -> Iterator[None]:
    """Shows how far a clip of ``frames`` frames is, while ``network`` works on it inside.

    Args:
        network: one of this package's recurrent networks; for any other nothing is shown.
        frames: the clip's length.
    """
    branches = getattr(network, "branches", list)()
    with tqdm(
        total=frames * len(branches),
        unit="step",
        desc="clip",
        delay=SHORT,
        leave=False,
        disable=not branches,
    ) as bar:

        def step(*_: object) -> None:
            bar.update()  # what it returns must not become the branch's output

        hooks = [branch.register_forward_hook(step) for branch in branches]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

"""A progress bar for the frames of one clip. BasicSR's own bar only counts whole clips."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from tqdm import tqdm

SHORT = 2.0
"""A clip that takes fewer seconds than this shows no bar."""


@contextmanager
def clip_progress(network: nn.Module, frames: int) -> Iterator[None]:
    """Show a progress bar while a network works on a clip inside the ``with`` block.

    Args:
        network: one of this package's recurrent networks. For any other network no bar is shown.
        frames: the number of frames in the clip.
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
            bar.update()  # its result is not returned, or it would replace the branch's output

        hooks = [branch.register_forward_hook(step) for branch in branches]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

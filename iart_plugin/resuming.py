"""A check that both frameworks need before they resume a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from iart_plugin.option_errors import OptionError


def check_same_everywhere(path: Path | None, folder: Path) -> None:
    """Check that all processes of a training resume from the same saved state.

    Otherwise each process would continue from a different iteration.

    Args:
        path: the file of the state that this process has chosen; None if it found none.
        folder: the folder that it searched, for the message.

    Raises:
        OptionError: on every process, if they did not all choose a file of the same name.
    """
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, path and path.name)
    if len(set(found)) > 1:
        listed = "; ".join(f"process {rank}: {name or 'none'}" for rank, name in enumerate(found))
        raise OptionError(
            f"The run cannot be resumed: its processes find different newest states in {folder} "
            f"({listed}). All machines need to see the same folder."
        )

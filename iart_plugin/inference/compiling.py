"""Compiles the parts of a network that run once for every frame, with ``torch.compile``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

logger = logging.getLogger(__name__)


def compile_branches(network: nn.Module) -> None:
    """Compiles a network's branches in place; their first frame then takes a minute or more.

    They are compiled for each size of frames, since a clip's frames, and a frame's tiles, repeat
    few sizes. A network without branches stays as it is.
    """
    branches = network.branches() if hasattr(network, "branches") else []
    for branch in branches:
        if not isinstance(branch.forward, Compiled):  # hooks on the module still run uncompiled
            branch.forward = Compiled(branch.forward)


class Compiled:
    """A compiled function. If it cannot be compiled, a warning says why, and it runs as it is.

    Args:
        function: what is compiled.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._plain = function
        self._fast: Callable[..., Any] | None = torch.compile(function, dynamic=False)

    def __call__(self, *args: Any) -> Any:
        """Calls the function."""
        if self._fast is not None:
            from torch._dynamo.exc import TorchDynamoException  # takes seconds to import

            try:
                return self._fast(*args)
            except TorchDynamoException as error:
                self._fast = None
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                logger.warning("the network cannot be compiled and runs as it is: %s", reason)
        return self._plain(*args)

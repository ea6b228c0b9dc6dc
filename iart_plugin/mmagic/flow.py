"""Loads the flow network's weights in MMagic's training, and freezes it at the start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmagic.registry import HOOKS, WEIGHT_INITIALIZERS
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from mmengine.runner.checkpoint import _load_checkpoint
from torch import nn

from iart_plugin.mmagic.checkpoint import model_of


@WEIGHT_INITIALIZERS.register_module()
class PretrainedFlow:
    """Loads the flow network's weights when training starts.

    A model's ``init_cfg`` names this class, so it runs only before training. Tests and demos do not
    need the file, because a checkpoint of the whole network holds these weights too.

    Args:
        checkpoint: a path or an address that MMEngine can load, in MMagic's or BasicSR's layout.
        name: the attribute of the network that holds the flow network.
    """

    def __init__(self, checkpoint: str, name: str = "spynet") -> None:
        self.checkpoint = checkpoint
        self.name = name

    def __call__(self, module: nn.Module) -> None:
        """Loads the weights into every child of ``module`` that is called ``name``.

        Raises:
            ValueError: if there is no such child.
            RuntimeError: if the file does not hold its weights.
        """
        networks = [m for key, m in module.named_modules() if key.split(".")[-1] == self.name]
        if not networks:
            raise ValueError(f"{type(module).__name__} has no module named '{self.name}'")
        loaded = _load_checkpoint(self.checkpoint, map_location="cpu")
        state = loaded.get("params", loaded.get("state_dict", loaded))
        for network in networks:
            buffers = dict(network.named_buffers())  # not every file has the mean and deviation
            network.load_state_dict({**buffers, **state})


@HOOKS.register_module()
class FrozenFlowHook(Hook):
    """Keeps the flow network's weights unchanged during the first iterations of a training.

    The gradients of the flow network are set to zero before they are reduced among the processes,
    clipped or checked for overflow, and the optimizer then skips these weights. ``requires_grad``
    never changes, so ``DistributedDataParallel`` sees the same parameters from start to end.

    Args:
        iterations: the number of these iterations. They are counted from the start of the training,
            also if it was resumed.
        name: the attribute of the network that holds the flow network.
    """

    priority = "VERY_HIGH"

    def __init__(self, iterations: int, name: str = "spynet") -> None:
        if iterations < 0:
            raise ValueError(f"iterations must be 0 or more, got {iterations}")
        self.iterations = iterations
        self.name = name
        self._handles: list[Any] = []

    def before_train(self, runner: Runner) -> None:
        """Freezes the flow network, unless a resumed training is already past that phase.

        Raises:
            ValueError: if the model has no parameters under ``name``.
        """
        model = model_of(runner)
        parameters = [p for key, p in model.named_parameters() if self.name in key.split(".")]
        if not parameters:
            raise ValueError(f"{type(model).__name__} has no parameters under '{self.name}'")
        if runner.iter >= self.iterations:
            return

        def skip(*_: Any) -> None:
            for parameter in parameters:
                parameter.grad = None

        self._handles = [parameter.register_hook(torch.zeros_like) for parameter in parameters]
        self._handles += [
            wrapper.optimizer.register_step_pre_hook(skip) for wrapper in optim_wrappers(runner)
        ]

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Sequence[dict] | None = None
    ) -> None:
        """Releases the flow network once its frozen iterations are over."""
        if self._handles and runner.iter >= self.iterations:
            self._release()
            runner.logger.info(f"The flow network is trained from iteration {runner.iter} on.")

    def after_train(self, runner: Runner) -> None:
        """Removes the hooks that the freezing has added."""
        self._release()

    def _release(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []


def optim_wrappers(runner: Runner) -> list[OptimWrapper]:
    """The wrapper of a runner's optimizer, or of each if the model's parts have their own."""
    wrapper = runner.optim_wrapper
    return list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]

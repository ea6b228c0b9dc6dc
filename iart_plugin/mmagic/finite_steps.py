"""Skips training steps with a loss or gradient that is not finite, in MMagic."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmagic.registry import HOOKS
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor

from iart_plugin.mmagic.flow import optim_wrappers


@HOOKS.register_module()
class FiniteStepsHook(Hook):
    """Skips a step whose loss or gradient is not finite, and ends a training with many such steps.

    MMEngine would take the step and so turn every weight into NaN. Computing the gradient may also
    crash the process in an operation that indexes memory by a NaN.

    Args:
        max_skipped: skipped steps in a row after which the training stops.
    """

    def __init__(self, max_skipped: int = 50) -> None:
        if max_skipped < 1:
            raise ValueError(f"max_skipped must be 1 or more, got {max_skipped}")
        self.max_skipped = max_skipped
        self.skipped_in_a_row = 0
        self._skipped = False  # whether this step was skipped
        self._undo: list[Callable[[], None]] = []

    def before_train(self, runner: Runner) -> None:
        """Watches the optimizer, or each if the model's parts have their own."""
        for wrapper in optim_wrappers(runner):
            self._watch(wrapper)

    def _watch(self, wrapper: OptimWrapper) -> None:
        update = wrapper.update_params

        def update_params(loss: Tensor, *arguments: Any, **options: Any) -> None:
            if self._on_every_process(torch.isfinite(loss.detach()).all()):
                update(loss, *arguments, **options)
                return
            self._skipped = True
            wrapper._inner_count += 1  # the skipped backward pass would have done this
            if wrapper.should_update():
                wrapper.zero_grad()

        def drop_gradients(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            gradients = [p.grad for p in parameters if p.grad is not None]
            # Gradients are averaged over the processes, so all processes decide the same.
            if gradients and not torch.isfinite(torch.nn.utils.get_total_norm(gradients)):
                self._skipped = True
                for parameter in parameters:
                    parameter.grad = None

        wrapper.update_params = update_params
        self._undo.append(wrapper.optimizer.register_step_pre_hook(drop_gradients).remove)
        self._undo.append(functools.partial(delattr, wrapper, "update_params"))

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Sequence[dict] | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Counts the skipped steps.

        Raises:
            FloatingPointError: after ``max_skipped`` in a row.
        """
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if self._skipped else 0
        if not self._skipped:
            return
        self._skipped = False
        runner.logger.warning(
            f"Iteration {runner.iter + 1}: loss or gradient is not finite, the step is skipped "
            f"({self.skipped_in_a_row} in a row)."
        )
        if self.skipped_in_a_row >= self.max_skipped:
            raise FloatingPointError(
                f"Stopped at iteration {runner.iter + 1}: {self.skipped_in_a_row} steps in a row "
                "had a loss or gradient that is not finite. Resume from an earlier checkpoint with "
                "a lower learning rate, or clip gradients (optim_wrapper.clip_grad)."
            )

    def after_train(self, runner: Runner) -> None:
        """Stops watching the optimizers."""
        for undo in self._undo:
            undo()
        self._undo = []

    @staticmethod
    def _on_every_process(condition: Tensor) -> bool:
        """Whether a condition holds on every process, so that all processes act alike."""
        condition = condition.float()
        all_reduce(condition, "min")
        return bool(condition)

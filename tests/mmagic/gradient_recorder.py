"""A hook for the stock trainer that writes down the gradients of every step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmagic.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner


@HOOKS.register_module()
class GradientRecorder(Hook):
    """Saves one dict a process: ``gradients_<rank>.pth`` in the work directory."""

    priority = "LOWEST"

    def before_train(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        parameters = dict(model.generator.named_parameters())
        self.steps: list[dict[str, torch.Tensor]] = []
        self.requires_grad: list[list[bool]] = []

        def record(*_: Any) -> None:
            self.requires_grad.append([p.requires_grad for p in parameters.values()])
            self.steps.append(
                {
                    name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
                    for name, p in parameters.items()
                }
            )

        runner.optim_wrapper.optimizer.register_step_pre_hook(record)

    def after_train(self, runner: Runner) -> None:
        content = {"steps": self.steps, "requires_grad": self.requires_grad}
        torch.save(content, Path(runner.work_dir) / f"gradients_{runner.rank}.pth")

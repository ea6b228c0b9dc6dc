"""Steps whose loss or gradient is not finite: skipped, counted, and in the end refused."""

from __future__ import annotations

from uuid import uuid4

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import iart_plugin.mmagic

NAN, INF = float("nan"), float("inf")


class _Root(BaseModel):
    """One weight; at an input of 0 its loss is finite and its gradient is not."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, inputs, mode="tensor"):
        return {"loss": (self.weight * inputs).abs().sqrt().sum()}


def train(tmp_path, inputs: list[float], **options) -> tuple[Runner, list[float]]:
    """Train on one input a step; returns the weight after each."""
    weights: list[float] = []

    class Recorder(iart_plugin.mmagic.ResumeDataHook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            weights.append(runner.model.weight.item())

    hook = iart_plugin.mmagic.FiniteStepsHook(**options)
    runner = Runner(
        _Root(),
        work_dir=str(tmp_path),
        train_dataloader=DataLoader(TensorDataset(torch.tensor(inputs)[:, None])),
        train_cfg={"by_epoch": False, "max_iters": len(inputs)},
        optim_wrapper={"optimizer": {"type": "Adam", "lr": 0.1}},
        custom_hooks=[Recorder(), hook],
        default_scope="mmagic",
        experiment_name=f"finite-{uuid4()}",
        log_level="ERROR",
    )
    runner.train()
    return runner, weights


@pytest.mark.parametrize("bad", [NAN, INF, 0.0], ids=["NaN", "infinite", "gradient alone"])
def test_a_bad_step_changes_no_weight(tmp_path, bad) -> None:
    runner, weights = train(tmp_path, [1.0, bad, 1.0])
    assert weights[0] == weights[1] != weights[2]
    assert torch.isfinite(runner.model.weight).all()


def test_many_in_a_row_stop_the_training(tmp_path) -> None:
    train(tmp_path, [NAN, 1.0, NAN], max_skipped=2)
    with pytest.raises(FloatingPointError, match=r"Stopped at iteration 3: 2 steps in a row"):
        train(tmp_path, [1.0, NAN, NAN, 1.0], max_skipped=2)

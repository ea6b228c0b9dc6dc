"""Which checkpoint a resumed training takes up, and with which data it goes on."""

from __future__ import annotations

import os
import random
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import numpy as np
import pytest
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import iart_plugin.mmagic


class _Line(BaseModel):
    """One weight, for MMEngine's own runner."""

    def __init__(self):
        super().__init__()
        self.line = nn.Linear(1, 1)

    def forward(self, inputs, mode="tensor"):
        return {"loss": self.line(inputs).square().mean()}


class _Numbers(Dataset):
    """Five samples, each its number; notes in a file which were read, also by workers."""

    def __init__(self, reads: Path) -> None:
        self.reads = reads

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[torch.Tensor]:
        with self.reads.open("a") as file:
            file.write(f"{index}\n")
        return (torch.tensor([float(index)]),)


def _train(work_dir, iterations, data=None, periods=20, **options):
    """Trains and returns the samples of each iteration that ran."""
    ran = {}

    class Recorder(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            ran[runner.iter] = data_batch[0].flatten().tolist()

    schedule = {"type": "CosineRestartLR", "by_epoch": False, "end": 100}
    schedule |= {"periods": [periods], "eta_min": 0}
    runner = Runner(
        _Line(),
        work_dir=str(work_dir),
        # More samples than iterations: MMEngine sleeps between epochs.
        train_dataloader=data or DataLoader(TensorDataset(torch.ones(9, 1))),
        train_cfg={"by_epoch": False, "max_iters": iterations},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1}},
        default_hooks={"checkpoint": {"type": "CheckpointHook", "interval": 1, "by_epoch": False}},
        param_scheduler=schedule,
        custom_hooks=[
            iart_plugin.mmagic.ResumeOwnHook(),
            iart_plugin.mmagic.ResumeDataHook(),
            Recorder(),
        ],
        default_scope="mmagic",
        experiment_name=f"resume-{uuid4()}",
        log_level="ERROR",
        **options,
    )
    runner.train()
    return runner, ran


def test_resume_takes_the_runs_own_checkpoint_before_load_from(tmp_path):
    other, _ = _train(tmp_path / "other", 3)
    load_from = {"resume": True, "load_from": str(tmp_path / "other/iter_3.pth")}
    started, ran = _train(tmp_path / "own", 0, **load_from)
    assert not ran
    assert torch.equal(started.model.line.weight, other.model.line.weight)
    assert _train(tmp_path / "own", 2, **load_from)[1].keys() == {0, 1}
    assert _train(tmp_path / "own", 4, **load_from)[1].keys() == {2, 3}
    # One of the run's own, which the user names, is resumed.
    load_from["load_from"] = str(tmp_path / "own/iter_1.pth")
    assert _train(tmp_path / "own", 3, **load_from)[1].keys() == {1, 2}


def test_resume_refuses_what_would_start_the_rate_anew(tmp_path):
    runner, _ = _train(tmp_path, 2)
    weights = tmp_path / "best_PSNR_iter_1.pth"
    torch.save({"state_dict": runner.model.state_dict(), "meta": {"iter": 1}}, weights)
    with pytest.raises(ValueError, match="holds no optimizer and no param_schedulers"):
        _train(tmp_path, 4, resume=True, load_from=str(weights))
    # To start from it is something else.
    assert _train(tmp_path / "other", 1, load_from=str(weights))[1].keys() == {0}
    with pytest.raises(ValueError, match=r"follows periods of \[20\].*the config says \[30\]"):
        _train(tmp_path, 4, resume=True, periods=30)


def test_the_best_checkpoint_of_another_run_is_let_go(tmp_path):
    best = {"best_ckpt": "best_PSNR_iter_1.pth", "best_score": 30.0}

    def copied(source: str, target: str) -> dict:
        """What a run in ``target`` knows of its best, from a file of ``source``'s."""
        content = torch.load(tmp_path / source / "iter_2.pth", weights_only=False)
        content["message_hub"]["runtime_info"] |= {
            **best,
            "best_ckpt": f"{tmp_path}/{source}/a.pth",
        }
        content["message_hub"]["resumed_keys"] |= dict.fromkeys(best, True)
        (tmp_path / target).mkdir(exist_ok=True)
        torch.save(content, tmp_path / target / "iter_2.pth")
        load_from = str(tmp_path / target / "iter_2.pth")
        runner, _ = _train(tmp_path / target, 3, resume=True, load_from=load_from)
        return {key: runner.message_hub.runtime_info.get(key) for key in best}

    _train(tmp_path / "first", 2)
    assert copied("first", "second") == {"best_ckpt": None, "best_score": None}
    kept = {"best_ckpt": f"{tmp_path}/first/a.pth", "best_score": 30.0}
    assert copied("first", "first") == kept


def test_each_process_draws_its_own(tmp_path):
    drawn = []
    for seed, rank, iteration in ((3, 0, 0), (3, 1, 0), (3, 0, 1), (4, 0, 0), (3, 0, 0)):
        runner = SimpleNamespace(seed=seed, rank=rank, iter=iteration)
        iart_plugin.mmagic.ProcessSeedHook().before_train(runner)
        drawn.append((torch.rand(1).item(), random.random(), np.random.rand()))  # noqa: NPY002
    assert drawn.pop() == drawn[0]
    assert all(len(set(numbers)) == 4 for numbers in zip(*drawn, strict=True))


def test_a_seed_of_the_samplers_own_is_kept(tmp_path):
    def data() -> dict:
        return {
            "batch_size": 2,
            "sampler": {"type": "InfiniteSampler", "seed": 11},
            "collate_fn": {"type": "default_collate"},
            "dataset": _Numbers(tmp_path / "reads.txt"),
        }

    order = iter(InfiniteSampler(range(5), seed=11))
    expected = [[next(order), next(order)] for _ in range(5)]
    parts = [_train(tmp_path, stop, data(), resume=stop > 3)[1] for stop in (3, 5)]
    assert [*parts[0].values(), *parts[1].values()] == expected


@pytest.mark.parametrize(("workers", "stops"), [(0, (4, 6, 9)), (2, (4, 9))])
def test_resumed_data_goes_on_and_is_not_read_again(tmp_path, workers, stops):
    """Over the boundaries of epochs, in the order of the first start, which chose the seed."""
    parts = []
    for stop in stops:
        reads = tmp_path / f"{stop}.txt"
        data = {
            "batch_size": 2,
            "num_workers": workers,
            "sampler": {"type": "InfiniteSampler"},
            "collate_fn": {"type": "default_collate"},
            "dataset": _Numbers(reads),
        }
        randomness = {"seed": None}  # MMEngine writes a resumed run's into its default
        runner, ran = _train(tmp_path, stop, data, resume=bool(parts), randomness=randomness)
        parts.append(ran)
        if not workers:  # which read ahead
            assert [int(number) for number in reads.read_text().split()] == [*chain(*ran.values())]
    assert [len(part) for part in parts] == [4, *np.diff(stops)]
    order = iter(InfiniteSampler(range(5), seed=runner.seed))
    samples = [[next(order), next(order)] for _ in range(stops[-1])]
    assert dict(enumerate(samples)) == {i: batch for part in parts for i, batch in part.items()}


def test_an_unreadable_checkpoint_is_refused_and_the_newest_whole_one_named(tmp_path):
    _train(tmp_path, 3)
    last = tmp_path / "iter_3.pth"
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"iter_3\.pth is unreadable.*load_from=.*iter_2\.pth"):
        _train(tmp_path, 5, resume=True)
    load_from = str(tmp_path / "iter_2.pth")  # as the message says
    assert _train(tmp_path, 4, resume=True, load_from=load_from)[1].keys() == {2, 3}
    for path in tmp_path.glob("iter_*.pth"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="No other checkpoint of the run is whole. To start anew"):
        _train(tmp_path, 5, resume=True)


@pytest.mark.parametrize("note", [None, ""])
def test_a_lost_note_of_the_last_checkpoint_is_made_good(tmp_path, note):
    """MMEngine writes it after the checkpoint; a run may be stopped in between."""
    _train(tmp_path, 2)
    (tmp_path / "last_checkpoint").unlink()
    if note is not None:
        (tmp_path / "last_checkpoint").write_text(note)
    assert _train(tmp_path, 3, resume=True)[1].keys() == {2}


@pytest.mark.parametrize("operation", ["save", "fsync", "replace"])
def test_every_fault_while_a_checkpoint_is_saved_is_survived(tmp_path, monkeypatch, operation):
    """The write, fsync and rename of each of three checkpoints fail once in turn."""

    def trained(folder, **options):
        torch.manual_seed(0)
        return _train(folder, 3, **options)

    expected = trained(tmp_path / "whole")[0].model.line.weight
    module = torch if operation == "save" else os
    original = getattr(module, operation)
    for at in (1, 2, 3):
        calls = []

        def fail(*arguments, calls=calls, at=at, **options):
            calls.append(arguments)
            if len(calls) == at:
                raise OSError(28, "No space left on device")
            return original(*arguments, **options)

        folder = tmp_path / f"{operation} {at}"
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
            patch.setattr(module, operation, fail)
            trained(folder)
        runner, ran = trained(folder, resume=True)
        assert ran.keys() == set(range(at - 1, 3))
        assert torch.equal(runner.model.line.weight, expected)
        assert not [path for path in folder.iterdir() if path.suffix == ".part"]

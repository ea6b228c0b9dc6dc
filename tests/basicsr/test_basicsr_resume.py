"""Exact resume: what is saved, what is skipped, and that ten kills lose nothing."""

from __future__ import annotations

import copy
import random
import re
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed as dist
from torch.utils.data import DataLoader, Dataset

import iart_plugin.basicsr  # noqa: F401  registers
from iart_plugin.basicsr import pipeline, random_state, resume, training_data
from iart_plugin.basicsr.resume import load_resume_state
from iart_plugin.option_errors import OptionError
from tests.basicsr.basicsr_driver import SMALL_IART, environment, saved_weights, write_options
from tests.programs import run_program

KILLS = 10


class Draws(Dataset):
    """Samples that are random numbers of all three kinds."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[int, float, float, float]:
        return index, random.random(), np.random.rand(), torch.rand(()).item()  # noqa: NPY002


def batches(num_workers: int, *, used: int = 0, replicas: int = 1) -> list:
    """Two epochs of ``Draws``, the first without its first ``used`` samples."""
    data = training_data.SeededDataset(Draws(), seed=3)
    streams = []
    for rank in range(replicas):
        sampler = training_data.ResumableSampler(data, replicas, rank)
        sampler.start_at(0, used)
        loader = DataLoader(data, 2 // replicas, sampler=sampler, num_workers=num_workers)
        loader.generator = torch.Generator()  # as the pipeline gets one
        rows = []
        for epoch in range(2):
            sampler.set_epoch(epoch)
            rows += [torch.stack([v.double() for v in batch], 1) for batch in loader]
        streams.append(rows)
    return [torch.cat(parts) for parts in zip(*streams, strict=True)]


def test_samples_depend_on_their_place_only() -> None:
    """Not on workers, processes, what was drawn before, or where the run was taken up."""
    reference = batches(0)
    assert len(reference) == 10
    drawn = torch.cat(reference)
    assert len(drawn[:, 1].unique()) == 20, "every sample draws anew, in both epochs"
    torch.rand(5)
    for other in (batches(2), batches(1, replicas=2)):
        assert all(torch.equal(a, b) for a, b in zip(reference, other, strict=True))
    later = batches(1, used=6)
    assert all(torch.equal(a, b) for a, b in zip(reference[3:], later, strict=True))


def test_drawing_samples_leaves_the_networks_random_numbers_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    batches(0)
    assert torch.equal(torch.rand(3), expected)


def test_random_states_survive_a_file(tmp_path) -> None:
    state = random_state.gather_random_states()
    expected = (random.random(), np.random.rand(), torch.rand(2))  # noqa: NPY002
    resume.save_atomically({"random": state}, tmp_path / "s.state")
    random_state.restore_random_state(torch.load(tmp_path / "s.state", weights_only=True)["random"])
    found = (random.random(), np.random.rand(), torch.rand(2))  # noqa: NPY002
    assert found[:2] == expected[:2]
    assert torch.equal(found[2], expected[2])


def test_a_failed_save_keeps_the_file_before(tmp_path) -> None:
    path = tmp_path / "net.pth"
    resume.save_atomically({"value": 1}, path)
    with pytest.raises(Exception, match="pickle|local object"):
        resume.save_atomically({"value": lambda: 1}, path)
    assert torch.load(path, weights_only=True) == {"value": 1}
    resume.save_atomically({"value": 2}, path)
    assert [p.name for p in tmp_path.iterdir()] == ["net.pth"], "nothing is left lying about"


def options_of(samples: int, monkeypatch, **train) -> dict:
    """Options of a run whose training data set is the numbers below ``samples``."""
    monkeypatch.setattr(training_data, "build_dataset", lambda _opt: range(samples))
    data = {"phase": "train", "batch_size_per_gpu": 2, "num_worker_per_gpu": 0, **train}
    whole = {"datasets": {"train": data}, "manual_seed": 3, "num_gpu": 0, "dist": False}
    return {**whole, "rank": 0, "world_size": 1}


def test_batches_go_on_over_the_end_of_an_epoch(monkeypatch) -> None:
    """BasicSR counts incomplete batches, which are left out, and would stop too early."""
    data = training_data.TrainingData(options_of(7, monkeypatch))
    epochs = [epoch for epoch, _ in islice(data, 10)]
    assert epochs == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]
    data.continue_after(epoch=1, iteration=5, seed=3)
    assert [epoch for epoch, _ in islice(data, 3)] == [1, 2, 2]


def test_less_data_than_one_batch_is_refused(monkeypatch) -> None:
    with pytest.raises(OptionError, match="1 samples, fewer than one batch"):
        training_data.TrainingData(options_of(1, monkeypatch))


def test_cuda_prefetch_reads_on_a_cpu(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    data = training_data.TrainingData(options_of(4, monkeypatch, prefetch_mode="cuda"))
    assert sorted(torch.cat([batch for _, batch in islice(data, 2)]).tolist()) == [0, 1, 2, 3]


def test_curves_of_a_resumed_run_do_not_go_back(tmp_path, monkeypatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    monkeypatch.setattr(pipeline, "init_tb_loggers", lambda _opt: SummaryWriter(str(tmp_path)))
    for state, values in ((None, [(1, 1.0), (2, 2.0), (3, 3.0)]), ("states/2.state", [(3, 4.0)])):
        writer = pipeline._open_board({"path": {"resume_state": state}})
        for step, value in values:
            writer.add_scalar("l_pix", value, step)
        writer.close()
    found = EventAccumulator(str(tmp_path)).Reload().Scalars("l_pix")
    assert [(event.step, event.value) for event in found] == [(1, 1.0), (2, 2.0), (3, 4.0)]


@pytest.fixture
def two_checkpoints(tmp_path) -> dict:
    """Options of a run that has saved at 2 and at 10."""
    states, models = tmp_path / "states", tmp_path / "models"
    for folder in (states, models):
        folder.mkdir()
    for iteration in (2, 10):
        state = {"iter": iteration, "epoch": 0, "optimizers": [], "schedulers": []}
        torch.save(state, states / f"{iteration}.state")
        torch.save({"params": {}}, models / f"net_g_{iteration}.pth")
    path = {"training_states": str(states), "models": str(models), "resume_state": None}
    return {"auto_resume": True, "path": path, "network_g": {}}


def test_auto_resume_takes_the_newest(two_checkpoints) -> None:
    assert load_resume_state(two_checkpoints)["iter"] == 10
    assert two_checkpoints["path"]["pretrain_network_g"].endswith("net_g_10.pth")


def test_auto_resume_says_that_it_takes_another_state_than_the_named(two_checkpoints) -> None:
    path = two_checkpoints["path"]
    path["resume_state"] = path["training_states"] + "/2.state"
    with pytest.warns(UserWarning, match=r"takes .*10\.state, not path\.resume_state .*2\.state"):
        assert load_resume_state(two_checkpoints)["iter"] == 10
    path["resume_state"] = path["training_states"] + "/10.state"
    assert load_resume_state(two_checkpoints)["iter"] == 10


@pytest.mark.parametrize("key", [None, "state_dict", "params_ema"])
def test_resume_goes_on_with_the_trained_weights(two_checkpoints, key) -> None:
    """Whatever entry of another file the run has started from."""
    two_checkpoints["path"].update(param_key_g=key, param_key_d=key)
    two_checkpoints["path"]["ignore_resume_networks"] = ["network_d"]
    load_resume_state(two_checkpoints)
    assert two_checkpoints["path"]["param_key_g"] == "params"
    if key != "params_ema":  # which BasicSR changes
        assert two_checkpoints["path"]["param_key_d"] == key


def _resume_in_one_of_two(rank: int, options: list[dict], folder: Path) -> None:
    """A process of a run; writes down what came of resuming."""
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    try:
        state = load_resume_state(options[rank])
        said = f"resumed at {state['iter']}"
    except ValueError as error:
        said = str(error)
    (folder / f"said {rank}").write_text(said)
    dist.destroy_process_group()


@pytest.mark.parametrize("shared", [True, False])
def test_machines_that_see_different_states_are_told(two_checkpoints, tmp_path, shared) -> None:
    other = copy.deepcopy(two_checkpoints)
    if not shared:
        other["path"]["training_states"] = str(tmp_path / "elsewhere")
    # The processes start as copies of this one: importing BasicSR again takes seconds.
    torch.multiprocessing.start_processes(
        _resume_in_one_of_two, ([two_checkpoints, other], tmp_path), nprocs=2, start_method="fork"
    )
    for rank in range(2):
        said = (tmp_path / f"said {rank}").read_text()
        if shared:
            assert said == "resumed at 10"
        else:
            assert "process 0: 10.state; process 1: none" in said
            assert "need to see the same folder" in said


def test_auto_resume_ignores_states_that_are_no_iteration(two_checkpoints, tmp_path) -> None:
    (tmp_path / "states/backup.state").write_bytes((tmp_path / "states/2.state").read_bytes())
    assert load_resume_state(two_checkpoints)["iter"] == 10


@pytest.mark.parametrize(
    ("broken", "kept"),
    [
        ("states/10.state", 0.5),
        ("models/net_g_10.pth", 0.5),
        ("states/10.state", 0.0),
        ("models/net_g_10.pth", None),
    ],
)
def test_auto_resume_refuses_half_a_checkpoint_and_names_the_newest_whole_one(
    two_checkpoints, tmp_path, broken, kept
) -> None:
    """Truncated, empty, or not there at all."""
    path = tmp_path / broken
    content = path.read_bytes()
    path.unlink()
    if kept is not None:
        path.write_bytes(content[: int(len(content) * kept)])
    way_out = r"newest whole checkpoint is .*/2\.state.* move .*/10\.state .*away"
    with pytest.raises(OptionError, match=f"{path.name} .*{way_out}"):
        load_resume_state(two_checkpoints)
    (tmp_path / "states" / "10.state").unlink(missing_ok=True)  # as the message says
    assert load_resume_state(two_checkpoints)["iter"] == 2
    (tmp_path / "states" / "2.state").write_bytes(b"half")
    with pytest.raises(OptionError, match="No other checkpoint .* To start anew, leave out"):
        load_resume_state(two_checkpoints)


def test_a_named_state_that_cannot_be_read_is_an_error(two_checkpoints, tmp_path) -> None:
    two_checkpoints["auto_resume"] = False
    two_checkpoints["path"]["resume_state"] = str(tmp_path / "no.state")
    with pytest.raises(OptionError, match=r"no\.state does not exist"):
        load_resume_state(two_checkpoints)


def test_weights_are_no_training_state(two_checkpoints, tmp_path) -> None:
    two_checkpoints["auto_resume"] = False
    two_checkpoints["path"]["resume_state"] = str(tmp_path / "models" / "net_g_2.pth")
    with pytest.raises(OptionError, match=r"net_g_2\.pth is no training state.*pretrain_network_g"):
        load_resume_state(two_checkpoints)


def test_killed_at_random_moments_a_run_ends_with_the_same_weights(tmp_path, options) -> None:
    """SIGKILL, ten times in a row; stochastic depth, augmentation and a worker included."""
    folders = {}
    for name, kills in (("whole", 0), ("killed", KILLS)):
        opt = options(network_g={**SMALL_IART, "use_checkpoint": False})
        opt["train"].update(total_iter=40, fix_flow=20)
        opt["datasets"]["train"].update(num_worker_per_gpu=1, num_frame=2, gt_size=32)
        meta = tmp_path / "one clip.txt"  # and so 33 iterations an epoch
        meta.write_text("001 100 (64,64,3)\n")
        opt["datasets"]["train"].update(batch_size_per_gpu=3, meta_info_file=str(meta))
        opt["logger"].update(print_freq=10, save_checkpoint_freq=1)
        del opt["val"], opt["datasets"]["val"]
        folders[name] = tmp_path / name
        folders[name].mkdir()
        script = Path(__file__).with_name("kill_and_resume.py")
        file = write_options(opt, folders[name] / "train.yml")
        done = run_program(
            [sys.executable, str(script), str(file), str(kills), "5"],
            folders[name],
            environment(),
            timeout=400,
        )
        assert done.returncode == 0, done.stdout[-3000:]
        moments = [int(v) for v in re.findall(r"newest state (\d+)", done.stdout)]
        assert len(moments) == kills
        if kills:
            assert 0 < moments[0] < moments[-1] < 40, "the kills must fall into the run"
    for key in ("params", "params_ema"):
        whole, killed = (saved_weights(folder, key=key) for folder in folders.values())
        different = [name for name in whole if not torch.equal(whole[name], killed[name])]
        assert not different, key


def test_every_fault_while_a_checkpoint_is_saved_is_survived(tmp_path, options) -> None:
    """Each write, fsync and rename fails once in turn, in a training of its own."""
    opt = options(train__total_iter=2, train__fix_flow=0)
    opt["datasets"]["train"].update(batch_size_per_gpu=1, num_frame=2, gt_size=32)
    opt["logger"].update(print_freq=10, save_checkpoint_freq=1)
    opt["val"].update(val_freq=1, metrics=None)
    script = Path(__file__).with_name("fail_and_resume.py")
    done = run_program(
        [
            sys.executable,
            str(script),
            str(write_options(opt, tmp_path / "train.yml")),
            "alternating",
        ],
        tmp_path,
        environment(),
        timeout=400,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "21 faults, each survived" in done.stdout

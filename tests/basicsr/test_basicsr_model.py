"""``RecurrentMixPrecisionRTModel`` step by step: precision, skipped steps, clipping, its state."""

from __future__ import annotations

import math

import pytest
import torch

import iart_plugin.basicsr  # noqa: F401  registers
from iart_plugin.basicsr.checks import OptionError
from tests.basicsr.basicsr_driver import SMALL_IART
from tests.basicsr.model_steps import batch, resumed, state_of, train

CPU = torch.device("cpu")


def test_flow_is_frozen_up_to_fix_flow_without_touching_requires_grad(make) -> None:
    model = make(train__fix_flow=2, train__flow_lr_mul=1, train__optim_g=adam(weight_decay=0.1))
    before = state_of(model)
    flow = [key for key, _ in model.net_g.named_parameters() if key.startswith("spynet")]
    train(model, [1, 2])
    after = state_of(model)
    assert all(torch.equal(before[key], after[key]) for key in flow)
    assert not torch.equal(before["conv_last.weight"], after["conv_last.weight"])
    assert all(parameter.requires_grad for parameter in model.net_g.parameters())
    train(model, [3])
    assert all(not torch.equal(before[key], model.net_g.state_dict()[key]) for key in flow)


def adam(**changes) -> dict:
    return {"type": "Adam", "lr": 1e-3, "weight_decay": 0, "betas": [0.9, 0.99], **changes}


def test_flow_has_its_own_learning_rate(make) -> None:
    model = make(train__flow_lr_mul=0.125)
    assert model.get_current_learning_rate() == [1e-3, 0.125e-3]


def test_parts_have_their_own_learning_rates(make) -> None:
    model = make(train__lr_mul={"spynet": 0, "conv_": 0.5, "conv_last": 0.25})
    before = state_of(model)
    assert sorted(model.get_current_learning_rate()) == [0.25e-3, 0.5e-3, 1e-3]
    train(model, [1])
    after = state_of(model)
    moved = {key.partition(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert "conv_last" in moved
    assert "spynet" not in moved
    assert all(p.grad is None for p in model.net_g.spynet.parameters())
    groups = model.optimizer_g.param_groups
    last = next(g for g in groups if any(p is model.net_g.conv_last.weight for p in g["params"]))
    assert last["initial_lr"] == 0.25e-3


def test_flow_at_no_rate_keeps_its_weights(make) -> None:
    """Where a rate of 0 would follow the schedule up to its lowest."""
    model = make(train__flow_lr_mul=0, train__fix_flow=0)
    before = state_of(model)
    train(model, [1])
    after = state_of(model)
    moved = {key.partition(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert "conv_last" in moved
    assert "spynet" not in moved
    assert model.get_current_learning_rate() == [1e-3]


@pytest.mark.parametrize(
    ("factors", "message"),
    [({"trunk": 0.1}, "starts with 'trunk'"), ({"conv_": -1}, r"train\.lr_mul\.conv_ is -1")],
)
def test_impossible_learning_rates_are_refused(make, factors, message) -> None:
    with pytest.raises(OptionError, match=message):
        make(train__lr_mul=factors)


def test_a_non_finite_step_changes_nothing_and_is_counted(make) -> None:
    model = make(train__max_skipped_steps=3)
    train(model, [1])
    before = state_of(model)
    train(model, [2, 3], value=math.nan)
    assert all(torch.equal(value, model.net_g.state_dict()[key]) for key, value in before.items())
    assert model.log_dict["skipped_steps"] == 2
    train(model, [4])
    assert (model.skipped_steps, model.skipped_in_a_row) == (2, 0)
    assert not torch.equal(before["conv_last.weight"], model.net_g.conv_last.weight)


def test_too_many_in_a_row_stop_the_run(make) -> None:
    model = make(train__max_skipped_steps=3)
    with pytest.raises(FloatingPointError, match=r"iteration 3: 3 steps in a row.*001/3.*finite"):
        train(model, [1, 2, 3], value=math.inf)


def test_a_loss_that_is_not_finite_gets_no_gradient(make, monkeypatch) -> None:
    """A flow that is NaN would let `grid_sample`'s gradient index by it, and end the process."""
    model = make(train__max_skipped_steps=3, train__fix_flow=0)
    for parameter in model.net_g.spynet.parameters():
        parameter.data.fill_(math.nan)
    monkeypatch.setattr(torch.Tensor, "backward", None)
    with pytest.raises(FloatingPointError, match=r"iteration 3: 3 steps in a row.*loss or grad"):
        train(model, [1, 2, 3])
    assert model.log_dict["skipped_steps"] == 2  # of the step before
    assert math.isnan(model.log_dict["l_pix"])


def test_one_part_that_is_not_finite_skips_the_whole_step(make) -> None:
    model = make(train__accumulate=2, train__fix_flow=0)
    data = {key: torch.cat([value] * 2) for key, value in batch().items() if key != "key"}
    data["gt"][1] = math.nan
    before = state_of(model)
    model.feed_data(data)
    model.optimize_parameters(1)
    assert model.skipped_steps == 1
    assert all(torch.equal(value, model.net_g.state_dict()[key]) for key, value in before.items())


def test_scaler_lowers_its_scale_and_is_kept_in_the_training_state(make, tmp_path) -> None:
    """The scaler itself runs on a CPU too, which stands in for fp16 here."""
    steep = {"type": "CharbonnierLoss", "loss_weight": 1e6, "reduction": "mean"}
    model = make(train__pixel_opt=steep)  # its gradient overflows float32 at this scale
    model.scaler = torch.amp.GradScaler("cpu", enabled=True, init_scale=2.0**127)
    before = state_of(model)
    train(model, [1])
    assert model.skipped_steps == 1
    assert model.scaler.get_scale() == 2.0**126
    assert torch.equal(before["conv_last.weight"], model.net_g.conv_last.weight)

    model.save(0, 1)
    state = torch.load(tmp_path / "training_states" / "1.state", weights_only=True)
    other = make()
    other.scaler = torch.amp.GradScaler("cpu", enabled=True, init_scale=1.0)
    other.resume_training(state)
    assert other.scaler.get_scale() == 2.0**126
    assert other.skipped_steps == 1


def test_clipping_acts_on_unscaled_gradients(make) -> None:
    norms = []
    for scale in (1.0, 1024.0):
        model = make(train__grad_clip_norm=1e-4, train__fix_flow=0)
        model.scaler = torch.amp.GradScaler("cpu", enabled=True, init_scale=scale)
        train(model, [1])
        grads = [p.grad.flatten() for p in model.net_g.parameters() if p.grad is not None]
        norms.append(torch.cat(grads).norm().item())
    assert norms == pytest.approx([1e-4, 1e-4], rel=1e-3)


def test_bfloat16_keeps_flow_loss_and_weights_in_float32(make) -> None:
    model = make(train__amp_dtype="bf16", network_g=SMALL_IART)
    seen = {}
    model.net_g.spynet.register_forward_hook(lambda _m, _i, out: seen.update(flow=out.dtype))
    model.net_g.conv_first.register_forward_hook(lambda _m, _i, out: seen.update(feat=out.dtype))
    model.cri_pix.register_forward_hook(
        lambda _m, inputs, _o: seen.update(loss={x.dtype for x in inputs})
    )
    train(model, [1])
    assert seen["flow"] == torch.float32
    assert seen["feat"] == torch.bfloat16
    assert seen["loss"] == {torch.float32}
    assert {p.dtype for p in model.net_g.parameters()} == {torch.float32}
    assert {p.grad.dtype for p in model.net_g.parameters() if p.grad is not None} == {torch.float32}


def test_accumulated_parts_give_the_whole_batch_s_step(make) -> None:
    one, two = batch(), {k: v.flip(-1) for k, v in batch().items() if k != "key"}
    both = {key: torch.cat((one[key], two[key])) for key in two}
    found = []
    for parts in (1, 2):
        model = make(train__accumulate=parts, train__fix_flow=0)
        model.feed_data(both)
        model.optimize_parameters(1)
        grads = [p.grad.flatten() for p in model.net_g.parameters() if p.grad is not None]
        found.append((torch.cat(grads), model.log_dict["l_pix"]))
    (whole, loss), (parts, loss_of_parts) = found
    assert (whole - parts).norm() < 1e-4 * whole.norm()
    assert loss == pytest.approx(loss_of_parts, rel=1e-5)


def test_parts_must_divide_the_batch(make) -> None:
    with pytest.raises(ValueError, match="accumulate is 3; it must divide batch_size_per_gpu, 2"):
        make(train__accumulate=3)


def test_a_resumed_run_has_the_option_files_rates(make, tmp_path, caplog) -> None:
    model = make()
    train(model, [1])
    model.save(0, 1)
    with caplog.at_level("WARNING", "basicsr"):
        rates = resumed(make, tmp_path, 1).get_current_learning_rate()
        assert not caplog.messages
        scheduler = {**model.opt["train"]["scheduler"], "type": "CosineAnnealingRestartLR"}
        scheduler["periods"] = [1000]
        changed = {"train__optim_g": adam(lr=1e-4, weight_decay=0.1), "train__scheduler": scheduler}
        other = resumed(make, tmp_path, 1, **changed)
    assert rates == pytest.approx([1e-3, 0.125e-3])
    assert other.optimizer_g.param_groups[0]["weight_decay"] == 0.1
    train(other, [2])
    for _ in range(500):
        other.schedulers[0].step()
    assert other.get_current_learning_rate() == pytest.approx([5e-5, 0.125 * 5e-5], rel=1e-2)
    assert "initial_lr 1.25e-05 in place of 0.000125" in caplog.text
    assert "periods [1000] in place of [100]" in caplog.text


def test_resume_takes_up_everything(make, tmp_path) -> None:
    model = make(network_g=SMALL_IART)
    train(model, [1, 2, 3])
    model.save(0, 3)
    train(model, [4, 5])
    state = torch.load(tmp_path / "training_states" / "3.state", weights_only=True)
    pretrained = str(tmp_path / "models" / "net_g_3.pth")
    other = make(network_g=SMALL_IART, path__pretrain_network_g=pretrained)
    other.resume_training(state)
    train(other, [4, 5])
    for one, two in ((model.net_g, other.net_g), (model.net_g_ema, other.net_g_ema)):
        same = (torch.equal(v, two.state_dict()[k]) for k, v in one.state_dict().items())
        assert all(same)


@pytest.mark.parametrize("first", ["steps", "cosine"])
def test_a_resumed_run_has_the_rate_that_its_steps_give(make, tmp_path, first) -> None:
    """That schedule multiplies the rate it finds: one that was passed would have no effect."""
    steps = {"type": "MultiStepRestartLR", "milestones": [2, 50], "gamma": 0.5}
    kinds = {"steps": {**steps, "milestones": [50]}, "cosine": make().opt["train"]["scheduler"]}
    kinds["cosine"]["type"] = "CosineAnnealingRestartLR"
    model = make(train__scheduler=kinds[first])
    for iteration in (1, 2, 3, 4):
        model.update_learning_rate(iteration)
        train(model, [iteration])
    model.save(0, 4)
    other = resumed(make, tmp_path, 4, train__scheduler=steps)
    assert other.get_current_learning_rate() == pytest.approx([0.5e-3, 0.5 * 0.125e-3])
    other.update_learning_rate(5)
    assert other.get_current_learning_rate() == pytest.approx([0.5e-3, 0.5 * 0.125e-3])


def test_weights_in_other_groups_than_the_states_are_refused(make, tmp_path) -> None:
    make().save(0, 2)
    with pytest.raises(OptionError, match=r"may not change to or from 0 or 1"):
        resumed(make, tmp_path, 2, train__flow_lr_mul=0)


def test_state_of_another_model_is_taken_as_far_as_it_goes(make, tmp_path) -> None:
    model = make()
    train(model, [1])
    stock = {
        "epoch": 0,
        "iter": 1,
        "optimizers": [o.state_dict() for o in model.optimizers],
        "schedulers": [s.state_dict() for s in model.schedulers],
    }
    other = make()
    other.resume_training(stock)
    assert other.optimizers[0].state_dict()["state"]


def test_mmagics_checkpoint_is_a_start(make, tmp_path) -> None:
    """Its log buffers, pickled objects of MMEngine's, are in nobody's way."""
    logging = pytest.importorskip("mmengine.logging")
    buffer = logging.HistoryBuffer()
    buffer.update(0.5)
    weights = {key: value + 1 for key, value in state_of(make()).items()}
    state = {f"generator.{key}": value for key, value in weights.items()}
    hub = {"log_scalars": {"train/loss": buffer}}
    torch.save({"state_dict": state, "message_hub": hub}, tmp_path / "iter_4.pth")
    allowed = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()  # the MMagic adapter's, if it was imported here
    try:
        model = make(path__pretrain_network_g=str(tmp_path / "iter_4.pth"))
    finally:
        torch.serialization.add_safe_globals(allowed)
    assert torch.equal(model.net_g.conv_last.weight, weights["conv_last.weight"])


def test_saved_weights_are_read_by_basicsr_and_by_this_package(make, tmp_path) -> None:
    from iart_plugin.archs import load_checkpoint

    model = make()
    model.save(0, 7)
    path = tmp_path / "models" / "net_g_7.pth"
    assert set(torch.load(path, weights_only=True)) == {"params", "params_ema", "options"}
    network, info = load_checkpoint(path)
    assert info.container == "params_ema"
    assert network.options == model.get_bare_model(model.net_g).options
    assert torch.equal(network.conv_last.weight, model.net_g_ema.conv_last.weight)

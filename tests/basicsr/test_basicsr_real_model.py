"""``RealRecurrentModel`` step by step: its losses, its discriminator, and what it refuses."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

import iart_plugin.basicsr  # noqa: F401  registers
from iart_plugin.archs import IACNN, save_checkpoint
from iart_plugin.basicsr.checks import OptionError, check_options, check_weights
from iart_plugin.basicsr.real_model import RealRecurrentModel
from tests.basicsr.model_steps import batch, state_of
from tests.basicsr.real_world_options import first_stage, second_stage, write_vgg


@pytest.fixture(scope="module")
def vgg(tmp_path_factory):
    """A file of a seeded VGG-11."""
    return write_vgg(tmp_path_factory.mktemp("vgg") / "vgg11.pth")


@pytest.fixture
def make_options(options, vgg):
    """A maker of complete options of a stage; a dotted keyword changes one of them."""

    def make(stage: int = 2, **changes) -> dict:
        opt = first_stage(options()) if stage == 1 else second_stage(options(), vgg)
        for path, value in changes.items():
            section = opt
            *parents, last = path.split("__")
            for key in parents:
                section = section[key]
            section[last] = value
        opt.update(is_train=True, auto_resume=False, dist=False, rank=0, world_size=1)
        for phase, data in opt["datasets"].items():
            data.update(phase=phase, scale=4)
        return opt

    return make


@pytest.fixture
def make(make_options, tmp_path):
    """A maker of models of a stage; VGG takes seconds to build and is left out unless asked for."""

    def build(stage: int = 2, *, perceptual: bool = False, **changes) -> RealRecurrentModel:
        opt = make_options(stage, **changes)
        if not perceptual:
            opt["train"]["perceptual_opt"] = None
        for key in ("models", "training_states"):
            (tmp_path / key).mkdir(exist_ok=True)
            opt["path"][key] = str(tmp_path / key)
        torch.manual_seed(0)
        return RealRecurrentModel(opt)

    return build


def step(model, iteration: int = 1, clips: int = 1, **changes) -> None:
    data = {k: torch.cat([v] * clips) for k, v in batch().items() if k != "key"}
    data["gt_usm"] = (data["gt"] * 1.1).clamp(0, 1)
    for index in range(clips):  # the clips differ
        data["lq"][index] *= 1 - 0.1 * index
    model.feed_data({**data, **changes})
    model.optimize_parameters(iteration)


def weights(model) -> dict[str, torch.Tensor]:
    found = {f"d.{k}": v.clone() for k, v in model.net_d.named_parameters()}
    return found | {f"g.{k}": v.clone() for k, v in model.net_g.named_parameters()}


def test_losses_of_the_first_stage_are_those_of_realbasicvsr(make) -> None:
    model = make(1)
    network = copy.deepcopy(model.net_g)
    step(model)
    data = batch()
    sharp = (data["gt"] * 1.1).clamp(0, 1)
    output, cleaned = network(data["lq"], return_lqs=True)
    reduced = F.avg_pool2d(sharp.flatten(0, 1), 4).unflatten(0, sharp.shape[:2])
    assert model.log_dict["l_pix"] == pytest.approx(F.l1_loss(output, sharp).item(), rel=1e-5)
    assert model.log_dict["l_clean"] == pytest.approx(F.l1_loss(cleaned, reduced).item(), rel=1e-5)
    assert model.net_d is None


def test_losses_of_the_second_stage_and_who_learns_from_them(make) -> None:
    model = make(perceptual=True)
    net_g, net_d = copy.deepcopy(model.net_g), copy.deepcopy(model.net_d)
    before = weights(model)
    step(model)
    gt = batch()["gt"]
    output = net_g(batch()["lq"])
    fooled = F.softplus(-net_d(output.flatten(0, 1))).mean()
    assert model.log_dict["l_g_gan"] == pytest.approx(0.05 * fooled.item(), rel=1e-4)
    real, fake = net_d(torch.cat([gt, output]).detach().flatten(0, 1)).chunk(2)
    losses = F.softplus(-real).mean(), F.softplus(fake).mean()
    assert model.log_dict["l_d_real"] == pytest.approx(losses[0].item(), rel=1e-4)
    assert model.log_dict["l_d_fake"] == pytest.approx(losses[1].item(), rel=1e-4)
    assert model.log_dict["l_percep"] > 0
    after = weights(model)
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert {"d.conv0.weight", "d.conv9.weight", "g.image_cleaning.1.weight"} <= moved

    # The discriminator's gradient is that of its own losses alone.
    net_d.zero_grad()
    sum(losses).backward()
    theirs = net_d.conv9.weight.grad
    assert torch.allclose(model.net_d.conv9.weight.grad, theirs, rtol=1e-3, atol=1e-6)
    assert all(p.requires_grad for p in model.net_d.parameters())


@pytest.mark.parametrize("bad", ["lq", "gt", "discriminator"])
def test_a_step_that_is_not_finite_changes_no_network(make, bad) -> None:
    model = make(train__max_skipped_steps=3)
    step(model)
    before = weights(model)
    if bad == "discriminator":
        model.cri_gan.register_forward_hook(lambda _m, _i, loss: loss * math.nan)
        step(model, 2)
    else:
        step(model, 2, **{bad: batch(math.nan)["gt"] if bad == "gt" else batch()["lq"] * math.nan})
    assert model.skipped_steps == 1
    after = weights(model)
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_parts_of_a_batch_give_the_whole_batch_s_gradients(make) -> None:
    found = []
    for parts in (1, 2):
        model = make(train__accumulate=parts, datasets__train__batch_size_per_gpu=2)
        step(model, clips=2)
        found.append(torch.cat([p.grad.flatten() for p in model.net_g.parameters()]))
    # Not exactly, because each pass of the discriminator refines its spectral norms.
    assert (found[0] - found[1]).norm() < 1e-2 * found[0].norm()


def test_both_optimizers_share_the_scaler_and_clip_each_network(make) -> None:
    norms = []
    for scale in (1.0, 1024.0):
        model = make(train__grad_clip_norm=1e-4)
        model.scaler = torch.amp.GradScaler("cpu", enabled=True, init_scale=scale)
        step(model)
        assert model.skipped_steps == 0
        for net in (model.net_g, model.net_d):
            grads = [p.grad.flatten() for p in net.parameters() if p.grad is not None]
            norms.append(torch.cat(grads).norm().item())
    assert norms == pytest.approx([1e-4] * 4, rel=1e-2)

    model = make(train__pixel_opt__loss_weight=1e6)
    model.scaler = torch.amp.GradScaler("cpu", enabled=True, init_scale=2.0**127)
    before = weights(model)
    step(model)  # overflows
    assert model.skipped_steps == 1
    assert model.scaler.get_scale() == 2.0**126
    assert all(torch.equal(value, weights(model)[key]) for key, value in before.items())


def test_bfloat16_trains_both_networks(make) -> None:
    model = make(train__amp_dtype="bf16")
    seen = []
    model.net_d.conv1.register_forward_hook(lambda _m, _i, out: seen.append(out.dtype))
    model.cri_gan.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].dtype))
    before = weights(model)
    step(model)
    assert set(seen) == {torch.bfloat16, torch.float32}
    assert not torch.equal(before["d.conv0.weight"], weights(model)["d.conv0.weight"])


def test_the_second_stage_starts_from_the_first_ones_average(make, tmp_path) -> None:
    first = make(1)
    step(first)
    first.save(0, 1)
    path = tmp_path / "models" / "net_g_1.pth"
    second = make(path__pretrain_network_g=str(path), path__param_key_g="params_ema")
    average = first.net_g_ema.state_dict()
    assert all(torch.equal(value, average[key]) for key, value in state_of(second).items())


REFUSED = [
    ({"train__cleaning_op": None}, "'cleaning_op' in train.*mean 'cleaning_opt'"),
    ({"train__gan_opt__gan_type": "vanila"}, "gan_type is 'vanila'.*mean 'vanilla'"),
    ({"train__gan_opt__weight": 1}, r"'weight' in train\.gan_opt.*mean 'loss_weight'"),
    ({"train__optim_d__lr": "1e-4"}, r"optim_d\.lr is the text '1e-4'.*!!float 1e-4"),
    ({"train__optim_d": None}, "optim_d is not set: a training with a discriminator needs"),
    ({"network_d": {"type": "UNetDiscriminator"}}, "network_d.*mean 'UNetDiscriminatorSN'"),
    ({"network_d": {"type": "UNetDiscriminatorSN", "num_feats": 4}}, "'num_feats' in network_d"),
    ({"train__l1_gt_us": True}, "mean 'l1_gt_usm'"),
    ({"datasets__train__sharpen": False}, "l1_gt_usm is true, but .*no sharpened ground truth"),
    ({"network_g__clean_passes": 3}, "clean_passes must be 1 in a training"),
    ({"network_g__clean_pases": 3}, "mean 'clean_passes'"),
    ({"network_g": {"type": "IACNN"}}, "IACNN cleans no frames"),
    ({"train__cleaning_opt__type": "L1"}, "cleaning_opt.type 'L1' is not registered.*L1Loss"),
    ({"datasets__train__mirror": True}, "mean 'mirror_sequence'"),
    ({"model_type": "RealRecurentModel"}, "mean 'RealRecurrentModel'"),
    ({"network_g__num_clean_block": "2"}, "num_clean_block is '2'; it must be a whole number"),
    ({"network_g__clean_threshold": "x"}, "clean_threshold must be a number from 0 on, got 'x'"),
    ({"network_d__num_in_ch": 4}, "network_d .* cannot judge frames of 3 channels and 32x32"),
    ({"network_d__num_in_ch": "3"}, "network_d.num_in_ch is '3'; it must be a whole number"),
    ({"network_d__num_feat": 0}, "network_d.num_feat is 0; it must be a whole number from 1"),
    ({"network_d__skip_connection": "no"}, "skip_connection is 'no'; it must be true or false"),
    ({"network_d": {"type": "UNetDiscriminatorSN"}}, "cannot judge .*'num_in_ch'"),
    ({"network_d": {"type": "RealIACNN"}}, r"network_d \(RealIACNN\) cannot judge frames"),
    (
        {"network_d": {"type": "VGGStyleDiscriminator", "num_in_ch": 3, "num_feat": 4}},
        "cannot judge frames of 3 channels and 32x32 pixels: Input size must be",
    ),
    ({"train__perceptual_opt__criterion": "l2"}, "criterion is 'l2'; it can be"),
    ({"train__perceptual_opt__style_weight": "0"}, "style_weight is the text '0'"),
    ({"train__perceptual_opt__perceptual_weight": -1}, "perceptual_weight is -1"),
    ({"train__perceptual_opt__use_input_norm": "x"}, "use_input_norm is 'x'"),
    ({"train__cleaning_opt": {"type": "WeightedTVLoss"}}, "WeightedTVLoss, which cannot serve"),
    ({"train__pixel_opt": {"type": "GANLoss", "gan_type": "vanilla"}}, "which cannot serve.*L1"),
    ({"path__strict_load_d": "x"}, "path.strict_load_d is 'x'"),
    ({"datasets__train__degradation": {"first": {"resize_range": [1, 1e6]}}}, "equal to 8"),
    ({"datasets__train__degradation": {"second": {"bitrate_range": [1, 1e30]}}}, "range.1 is 1e"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=[repr(c)[:50] for c, _ in REFUSED])
def test_bad_options_are_refused_in_one_line(make_options, changes, message) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        check_options(make_options(**changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vgg_path": "nowhere.pth"}, r"vgg_path: nowhere\.pth does not exist"),
        ({"vgg_type": "vgg19"}, r"vgg11\.pth does not hold torchvision's vgg19 .*'features\.2"),
        ({"vgg_type": "vg11"}, "vgg_type is 'vg11'.*mean 'vgg11'"),
        ({"layer_weights": {"conv9_1": 1}}, "'conv9_1' in .*layer_weights"),
        ({"layer_weights": None}, "layer_weights is not set"),
    ],
)
def test_a_perceptual_loss_that_cannot_be_built_is_refused(make_options, changes, message) -> None:
    opt = make_options()
    opt["train"]["perceptual_opt"].update(changes)
    with pytest.raises(OptionError, match=message) as caught:
        check_weights(opt)
    assert "\n" not in str(caught.value)


def test_vgg_files_that_are_damaged_or_of_another_format_are_refused(make_options, vgg, tmp_path):
    opt = make_options()
    state = torch.load(vgg)
    state["features.3.bias"] = torch.full((128,), math.nan)
    torch.save(state, tmp_path / "nan.pth")
    opt["train"]["perceptual_opt"]["vgg_path"] = str(tmp_path / "nan.pth")
    with pytest.raises(OptionError, match=r"'features\.3\.bias' of .*nan\.pth holds NaN"):
        check_weights(opt)
    save_file({"features.0.weight": torch.ones(1)}, tmp_path / "vgg.safetensors")
    opt["train"]["perceptual_opt"]["vgg_path"] = str(tmp_path / "vgg.safetensors")
    with pytest.raises(OptionError, match=r"vgg\.safetensors is a safetensors file.*\.pth files"):
        check_weights(opt)


def test_weights_that_do_not_fit_are_refused(make_options, tmp_path) -> None:
    from basicsr.archs.discriminator_arch import UNetDiscriminatorSN

    path = tmp_path / "weights.pth"
    torch.save({"params": UNetDiscriminatorSN(3, 4).state_dict()}, path)
    check_weights(make_options(path__pretrain_network_d=str(path)))
    torch.save({"params": UNetDiscriminatorSN(3, 8).state_dict()}, path)
    with pytest.raises(OptionError, match=r"pretrain_network_d: .* UNetDiscriminatorSN.*size"):
        check_weights(make_options(path__pretrain_network_d=str(path)))
    save_checkpoint(IACNN(num_feat=8, num_block=1, num_heads=2, extractor=False,
                          alignment="flow_warp"), path)  # fmt: skip
    with pytest.raises(OptionError, match="it holds a BasicVSR, the network is a RealIACNN"):
        check_weights(make_options(path__pretrain_network_g=str(path)))

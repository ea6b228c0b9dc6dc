"""RealIACNN trained by MMagic's own RealBasicVSR model in both stages, and tested on VideoLQ."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch import Tensor

import iart_plugin.mmagic  # registers
from iart_plugin.archs import RealIACNN, load_checkpoint
from iart_plugin.mmagic.config_checks import check_config, check_data, check_start
from iart_plugin.option_errors import OptionError
from iart_plugin.weight_checks import CheckpointMismatch
from tests.mmagic.mmagic_driver import CONFIGS, TINY, run

FOLDER = CONFIGS / "real_ia_cnn"
FIRST = FOLDER / "real-ia-cnn_wogan-c64b20-2x30x8_8xb2-lr1e-4-300k_reds.py"
SECOND = FOLDER / "real-ia-cnn_c64b20-1x30x8_8xb1-lr5e-5-150k_reds.py"
VIDEOLQ = FOLDER / "real-ia-cnn_c64b20_videolq.py"
BASELINE = FOLDER / "realbasicvsr_c64b20_videolq.py"

Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def vgg(workspace: Path) -> Path:
    """A file of torchvision's VGG19 with seeded weights, of which a loss needs the features."""
    from torchvision.models import vgg19

    torch.manual_seed(0)
    with torch.device("meta"):
        sizes = {key: value.shape for key, value in vgg19().features.state_dict().items()}
    weights = {
        f"features.{key}": torch.randn(size) * (2 / size[1:].numel()) ** 0.5
        if len(size) == 4
        else torch.zeros(size)
        for key, size in sizes.items()
    }
    torch.save(weights, workspace / "vgg19.pth")
    return workspace / "vgg19.pth"


@pytest.fixture(scope="module")
def train(workspace: Path, spynet: Path) -> Callable[..., str]:
    """Trains a small network with MMagic's tool: ``train(config, work_dir, iterations, …)``."""

    def train(config: Path, work_dir: str, iterations: int, *arguments: str, **more: object) -> str:
        pipeline = "train_dataloader.dataset.pipeline."
        crop, last = (_position(config, n) for n in ("FixedCrop", "DegradationsWithShuffle"))
        settings = {
            "model.generator.num_clean_block": 1,
            "train_dataloader.num_workers": 0,
            "train_dataloader.dataset.num_input_frames": 2,
            f"{pipeline}{crop}.crop_size": "(64,64)",
            f"{pipeline}{last}.degradations.1.0.params.target_size": "(16,16)",
            "val_dataloader.num_workers": 0,
            "train_cfg.max_iters": iterations,
            "train_cfg.val_interval": 2,
            "default_hooks.logger.interval": 1,
            "default_hooks.checkpoint.interval": 1,
            **{name.replace("__", "."): value for name, value in more.items()},
        }
        return run(
            [
                *(
                    sys.executable,
                    "-m",
                    "iart_plugin.mmagic.train",
                    config,
                    "--work-dir",
                    work_dir,
                    *arguments,
                ),
                *("--cfg-options", *TINY, *(f"{k}={v}" for k, v in settings.items())),
            ],
            workspace,
        )

    return train


def _position(config: Path, transform: str) -> int:
    pipeline = Config.fromfile(config).train_dataloader.dataset.pipeline
    return next(i for i, step in enumerate(pipeline) if step.type == transform)


def _weights(path: Path) -> Weights:
    return torch.load(path, weights_only=True)["state_dict"]


def _part(state: Weights, prefix: str) -> Weights:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _changed(before: Weights, after: Weights) -> dict[str, bool]:
    """Whether each of a network's parts differs, by the first word of its keys."""
    assert before.keys() == after.keys()
    parts = {key.partition(".")[0] for key in before}
    return {
        part: any(
            not torch.equal(before[key], after[key])
            for key in before
            if key.partition(".")[0] == part
        )
        for part in parts
    }


@pytest.fixture(scope="module")
def first(train, workspace: Path, spynet: Path) -> Path:
    """The first stage's checkpoints: an iteration, then another one after a resume."""
    flow = {"model__init_cfg__checkpoint": spynet.name}
    train(FIRST, "first", 1, **flow)
    log = train(FIRST, "first", 2, "--resume", **flow)
    assert "resumed epoch: 0, iter: 1" in log and "Iter(train) [2/2]" in log
    return workspace / "first"


@pytest.fixture(scope="module")
def second(train, first: Path, vgg: Path, workspace: Path) -> Path:
    """The second stage's checkpoints, likewise; it starts from the first stage's last file."""
    options = {
        "load_from": f"{first.name}/iter_2.pth",
        "model__discriminator__mid_channels": 4,
        "model__perceptual_loss__pretrained": vgg.name,
    }
    log = train(SECOND, "second", 1, **options)
    losses = ("loss_pix", "loss_clean", "loss_perceptual", "loss_gan", "loss_d_real", "loss_d_fake")
    assert all(re.search(rf"\b{name}: \d", log) for name in losses)
    log = train(SECOND, "second", 2, "--resume", **options)
    assert "Iter(train) [2/2]" in log
    return workspace / "second"


@pytest.mark.parametrize("stage", ["first", "second"])
def test_every_part_is_trained_but_the_flow_network(stage, request):
    folder = request.getfixturevalue(stage)
    early, late = _weights(folder / "iter_1.pth"), _weights(folder / "iter_2.pth")
    for part in ("generator.", "generator_ema."):
        changed = _changed(_part(early, part), _part(late, part))
        assert changed.pop("spynet") is False
        assert changed.pop("image_cleaning") and changed.pop("alignment")
        assert all(changed.values()), changed
    if stage == "second":
        assert all(_changed(_part(early, "discriminator."), _part(late, "discriminator.")).values())
        loss = _part(early, "perceptual_loss.")
        assert not any(_changed(loss, _part(late, "perceptual_loss.")).values())


def test_the_second_stage_starts_from_the_first_ones_average(train, first, second, vgg):
    averaged = _part(_weights(first / "iter_2.pth"), "generator_ema.")
    assert any(_changed(averaged, _part(_weights(first / "iter_2.pth"), "generator.")).values())
    features = torch.load(vgg, weights_only=True)
    trained_with = _part(_weights(second / "iter_1.pth"), "perceptual_loss.vgg.vgg_layers.")
    assert trained_with
    assert all(torch.equal(v, features[f"features.{k}"]) for k, v in trained_with.items())
    # A step of Adam at 5e-5 moves no weight further than that.
    moved = _part(_weights(second / "iter_1.pth"), "generator.")
    assert max((moved[k] - v).abs().max().item() for k, v in averaged.items()) < 6e-5


def test_upscale_takes_the_average_of_a_checkpoint(second):
    network, info = load_checkpoint(second / "iter_2.pth")
    assert info.recognised.network == "RealIACNN"
    assert (network.options["num_heads"], network.clean_passes) == (2, 3)
    averaged = _part(_weights(second / "iter_2.pth"), "generator_ema.")
    assert all(torch.equal(v, averaged[k]) for k, v in network.state_dict().items())


@pytest.fixture(scope="module")
def niqe_of_videolq(second, workspace: Path) -> float:
    """What MMagic's test tool measures on the folder of clips, with the second stage's weights."""
    log = run(
        [
            *(
                sys.executable,
                "-m",
                "iart_plugin.mmagic.test",
                VIDEOLQ,
                f"{second.name}/iter_2.pth",
                "--work-dir",
                "videolq",
            ),
            *("--cfg-options", *TINY, "model.generator.num_clean_block=1"),
            *("test_dataloader.num_workers=0", "custom_hooks.0.type=BasicVisualizationHook"),
        ],
        workspace,
    )
    return float(re.findall(r"NIQE: ([\d.]+)", log)[-1])


def test_videolq_is_measured_on_three_frames_of_the_average(second, workspace, niqe_of_videolq):
    from mmagic.evaluation.metrics.niqe import niqe

    network, _ = load_checkpoint(second / "iter_2.pth")
    files = sorted((workspace / "data" / "VideoLQ" / "000").iterdir())
    clip = [cv2.imread(str(path))[..., ::-1].copy() for path in files]
    lqs = torch.from_numpy(np.stack(clip)).permute(0, 3, 1, 2).unsqueeze(0) / 255
    with torch.no_grad():
        frames = network(lqs)[0].clamp(0, 1) * 255
    three = [frames[i].flip(0).numpy() for i in (0, len(files) // 2, len(files) - 1)]
    values = [float(niqe(frame, 0, "CHW", "y")) for frame in three]
    assert niqe_of_videolq == pytest.approx(np.mean(values), abs=2e-3)


def test_niqe_of_clips_that_have_none_or_only_a_part():
    metric = iart_plugin.mmagic.VideoLQNIQE(input_order="CHW", convert_to="Y")
    torch.manual_seed(0)
    one, black = torch.rand(1, 3, 192, 192) * 255, torch.zeros(1, 3, 192, 192)
    for clip in (one, one[0], torch.cat((black, one)), black):
        metric.process([], [{"output": {"pred_img": clip}}])
    single, frame, mixed, none = (result["NIQE"] for result in metric.results)
    assert single == frame == mixed > 0
    assert none != none  # NaN
    with pytest.raises(OptionError, match="96x96 pixels, and those of clip 007 are 64x64"):
        metric.process([], [{"key": "007", "output": {"pred_img": torch.rand(3, 3, 64, 64)}}])


@pytest.mark.parametrize("resuming", [False, True])
def test_both_generators_start_alike_unless_resumed(resuming):
    def load(state: Weights) -> Weights:
        runner = SimpleNamespace(
            _resume=resuming, model=SimpleNamespace(generator=None, generator_ema=object())
        )
        iart_plugin.mmagic.StartFromAverageHook().after_load_checkpoint(
            runner, {"state_dict": state}
        )
        return {key: int(value) for key, value in state.items()}

    one, two = torch.tensor(1), torch.tensor(2)
    both = {"generator.a": one, "generator_ema.a": two, "discriminator.a": one}
    start = {"generator.a": 1 if resuming else 2, "generator_ema.a": 2, "discriminator.a": 1}
    assert load(both) == start
    if not resuming:  # a file of one network
        assert load({"generator.a": one}) == {"generator.a": 1, "generator_ema.a": 1}


def test_stages_are_mmagics_but_for_the_generator():
    """Losses, discriminator, rates, data and degradations, by comparing the configs as a whole."""
    import mmagic

    theirs = Path(mmagic.__file__).parent / ".mim" / "configs" / "real_basicvsr"
    hooks = {"custom_hooks", "custom_imports", "default_hooks", "vis_backends", "visualizer"}
    names = {"experiment_name", "work_dir", "load_from", "save_dir"}
    for config, name in ((FIRST, "realbasicvsr_wogan"), (SECOND, "realbasicvsr_c64b20")):
        (path,) = theirs.glob(f"{name}*.py")
        ours, given = (_plain(Config.fromfile(p)._cfg_dict.to_dict()) for p in (config, path))
        assert ours["custom_hooks"][1] == given["custom_hooks"][1]  # the moving average
        for one in (ours, given):
            one["model"] = {
                k: v for k, v in one["model"].items() if k not in ("generator", "init_cfg")
            }
            if config is SECOND:  # MMagic's file has 1 in its name, and its base's 2
                assert one["train_dataloader"].pop("batch_size") == (1 if one is ours else 2)
                one["model"]["perceptual_loss"].pop("pretrained", None)
        differing = {key for key in {*ours, *given} if ours.get(key) != given.get(key)}
        assert differing <= hooks | names
        generator = Config.fromfile(config).model.generator
        assert (generator.type, generator.clean_passes) == ("RealIACNN", 1)


def _plain(value: object) -> object:
    """A config without the scope that MMEngine notes in what another package's file holds."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if k != "_scope_"}
    return [_plain(v) for v in value] if isinstance(value, list) else value


def test_baseline_is_realbasicvsr():
    from mmagic.registry import MODELS
    from mmagic.utils import register_all_modules

    register_all_modules()
    network = MODELS.build(Config.fromfile(BASELINE).model.generator)
    assert isinstance(network, RealIACNN) and network.extractor is None
    assert (network.clean_passes, network.clean_threshold) == (3, pytest.approx(5 / 255))
    theirs = MODELS.build({"type": "RealBasicVSRNet", "num_propagation_blocks": 20})
    network.load_state_dict(theirs.state_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.perceptual_loss.pretrained": "no.pth"}, r"no\.pth, which does not exist.*vgg19"),
        ({"model.perceptual_loss.pretrained": None}, "pretrained is None; it must be a file"),
        ({"model.perceptual_loss.type": "PerceptualLos"}, "mean 'PerceptualLoss'"),
        ({"model.discriminator.type": "UNetDiscriminatorWithNorm"}, "mean 'UNetDiscriminator"),
        ({"model.discriminator": None}, "discriminator is None; a model with a gan_loss needs one"),
        ({"model.gan_loss.gan_typ": "vanilla"}, "'gan_typ'.*mean 'gan_type'"),
        ({"model.pixel_loss.loss_wieght": 2}, "'loss_wieght'.*mean 'loss_weight'"),
        ({"model.is_use_ema2": True}, "'is_use_ema2'.*mean 'is_use_ema'"),
        ({"model.generator.clean_pass": 1}, "'clean_pass'.*mean 'clean_passes'"),
        ({"model.generator.clean_passes": -1}, "clean_passes"),
        ({"optim_wrapper.discriminator.optimizer.lr": 0}, r"discriminator\.optimizer\.lr is 0"),
        ({"optim_wrapper.generator.optimizer.type": "Adm"}, "mean 'Adam'"),
        ({"optim_wrapper.descriminator": {"optimizer": {}}}, "mean 'discriminator'"),
        ({"custom_hooks.3.iteration": 1}, r"'iteration' in custom_hooks\.3.*mean 'iterations'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_mistakes_are_refused_in_a_line(changes, message):
    config = Config.fromfile(SECOND)
    check_config(config)
    config.merge_from_dict(changes)
    with pytest.raises(OptionError, match=message) as caught:
        check_config(config)
    assert "\n" not in str(caught.value)


def test_missing_files_are_refused_in_a_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    videolq = Config.fromfile(VIDEOLQ)
    with pytest.raises(OptionError, match=r"data/VideoLQ does not exist"):
        check_data(videolq, ["test"])
    (tmp_path / "data" / "VideoLQ").mkdir(parents=True)
    with pytest.raises(OptionError, match=r"there is no clip in data/VideoLQ"):
        check_data(videolq, ["test"])
    (tmp_path / "data" / "VideoLQ" / "README.txt").touch()
    with pytest.raises(OptionError, match=r"README\.txt lies among the folders of frames"):
        check_data(videolq, ["test"])
    second = Config.fromfile(SECOND)
    runner = SimpleNamespace(_load_from=second.load_from, _resume=False, work_dir="here")
    with pytest.raises(OptionError, match=r"iter_300000\.pth does not exist.*run that one first"):
        check_start(runner)
    (tmp_path / "here").mkdir()
    runner._resume = True
    with pytest.raises(OptionError):
        check_start(runner)
    (tmp_path / "here" / "iter_5.pth").touch()  # which is taken instead
    check_start(runner)


def test_perceptual_weights_of_another_network_are_refused(tmp_path):
    from mmagic.models.losses import PerceptualLoss

    torch.save({"features.0.weight": torch.ones(64, 3, 3, 3)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointMismatch, match="other.pth does not hold .* vgg19"):
        PerceptualLoss({"2": 1.0}, pretrained=str(tmp_path / "other.pth"))


def test_weights_of_the_plain_basicvsr_are_refused(tmp_path):
    from iart_plugin.archs import IACNN

    plain = IACNN(num_feat=8, num_block=1, alignment="flow_warp", extractor=False)
    network = RealIACNN(8, 1, 1, "flow_warp", extractor=False)
    runner = SimpleNamespace(model=SimpleNamespace(generator=network), _load_from="plain.pth")
    state = {f"generator.{key}": value for key, value in plain.state_dict().items()}
    hook = iart_plugin.mmagic.CheckpointFitHook()
    with pytest.raises(CheckpointMismatch, match="holds a BasicVSR, the network is a RealBasicVSR"):
        hook.after_load_checkpoint(runner, {"state_dict": state})

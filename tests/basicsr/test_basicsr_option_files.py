"""Option files are read without running anything, and every bad one is refused in one line."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import yaml

import iart_plugin.basicsr  # noqa: F401  registers
from iart_plugin.basicsr.checks import OptionError, check_options
from iart_plugin.basicsr.checks.schema import check_schema
from iart_plugin.basicsr.option_files import change_options, read_option_file
from iart_plugin.basicsr.schema import RealTrainOptions, TrainOptions, train_table
from tests.basicsr.basicsr_driver import PLUGIN_LINE, ROOT, run, test_options, write_options

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 10)}]\n" for i in range(9)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !!python/object/apply:os.system ['touch ran']", "!!python/object/apply:os.system"),
        ("a: !!python/object/new:os.system ['touch ran']", "!!python/object/new:os.system"),
        ("a: !!python/name:os.system", "!!python/name:os.system"),
        ("a: !!python/name:iart_plugin.basicsr.register", "iart_plugin.basicsr.register"),
        ("a: !!python/module:this", "!!python/module:this"),
        ("a: !mine 3", "the tag !mine"),
        (BOMB, "100,000 values once its aliases are written out"),
        ("a: &a [*a]", "contains itself"),
        ("a: 1\nb: {c: 2, c: 3}", "'c' is given twice, in lines 2 and 2"),
        ("a: 1\ntrain: {}\na: 2", "'a' is given twice, in lines 1 and 3"),
        ("a: [1", "not readable as YAML"),
        ("a: !!float x", "not readable as YAML"),
        ("[1, 2]", "holds a list"),
        ("", "is empty"),
        ("[" * 5000, "nested too deeply"),
        ("# " + "x" * 1_000_001, "1,000,003 bytes"),
    ],
)
def test_what_is_no_option_file(tmp_path, monkeypatch, text, message) -> None:
    monkeypatch.chdir(tmp_path)
    Path("o.yml").write_text(text)
    with pytest.raises(OptionError, match=message) as caught:
        read_option_file(Path("o.yml"))
    assert "\n" not in str(caught.value)
    assert not Path("ran").exists()
    assert "this" not in sys.modules


def test_missing_option_file(tmp_path) -> None:
    with pytest.raises(OptionError, match=r"no\.yml cannot be read: No such file"):
        read_option_file(tmp_path / "no.yml")


def test_the_plugins_line_floats_and_merges_are_read(tmp_path) -> None:
    (tmp_path / "o.yml").write_text(
        PLUGIN_LINE + "base: &b {x: 1, y: 2}\nlr: !!float 1e-3\nz: {<<: *b, y: 3}\n"
    )
    opt = read_option_file(tmp_path / "o.yml")
    assert opt["plugin"] == "iart_plugin.basicsr"
    assert opt["lr"] == 1e-3
    assert opt["z"] == {"x": 1, "y": 3}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("none", None), ("~", None), ("true", True), ("12", 12), ("-1", -1), ("0.5", 0.5)],
        *[("!!float1e-3", 1e-3), ("!!float 2e3", 2e3), ("[1,2]", [1, 2]), ('"none"', "none")],
        *[("a/b=c.pth", "a/b=c.pth"), ("{a: 1}", {"a": 1}), ("a: b", "a: b"), ("x#1", "x#1")],
        ("[__import__('os')]", ["__import__('os')"]),
    ],
)
def test_changes_of_the_command_line(text, value) -> None:
    opt = {"train": {"key": 0}}
    change_options(opt, [f"train:key={text}"])
    assert opt["train"]["key"] == value


@pytest.mark.parametrize(
    ("change", "message"),
    [("train", "SECTION:KEY=VALUE"), ("trian:lr=1", "no section 'trian'. Did you mean 'train'")],
)
def test_changes_that_mean_nothing(change, message) -> None:
    with pytest.raises(OptionError, match=message):
        change_options({"train": {}}, [change])


REDS = "datasets__train__"
CHANGES = [
    # Misspelt names, each with the nearest one.
    ({"model_typ": "x"}, "Unknown key 'model_typ' in the options.*mean 'model_type'"),
    ({"model_type": "RecurrentMixPrecisionModel"}, "mean 'RecurrentMixPrecisionRTModel'"),
    ({"network_h": {"typ": 1}}, "network_h must be a section with a 'type'"),
    ({REDS + "use_hflp": True}, r"'use_hflp' in datasets\.train.*mean 'use_hflip'"),
    ({REDS + "gt_sise": 64}, "mean 'gt_size'"),
    ({REDS + "type": "RedsRecurentDataset"}, "mean 'REDSRecurrentDataset'"),
    ({"datasets__vall": {}}, "section 'vall'.*mean 'val'"),
    ({"logger__print_frequ": 3}, "mean 'print_freq'"),
    ({"val__val_frq": 3}, "mean 'val_freq'"),
    ({"path__resume_stat": 3}, "mean 'resume_state'"),
    ({"train__optim_g__type": "Adm"}, r"train\.optim_g\.type is 'Adm'; it can be Adam"),
    ({"train__optim_g__weight_dcay": 0}, r"in train\.optim_g .*mean 'weight_decay'"),
    ({"train__scheduler__type": "CosineAnealing"}, "mean 'CosineAnnealingRestartLR'"),
    ({"train__scheduler__period": [1]}, r"in train\.scheduler .*mean 'periods'"),
    ({"train__pixel_opt__type": "CharbonierLoss"}, "mean 'CharbonnierLoss'"),
    ({"train__pixel_opt__los_weight": 1}, r"train\.pixel_opt.*mean 'loss_weight'"),
    ({"val__metrics__psnr__type": "calculate_psmr"}, "mean 'calculate_psnr'"),
    ({"val__metrics__psnr__crop_boarder": 0}, r"val\.metrics\.psnr.*mean 'crop_border'"),
    ({"network_g__alignment": "implict"}, "implict"),
    # Text for numbers, and other wrong types.
    ({"train__optim_g__lr": "1e-3"}, r"lr is the text '1e-3'.*Write !!float 1e-3"),
    ({"train__total_iter": "300k"}, "total_iter is the text '300k', and must be a number"),
    ({REDS + "gt_size": "64"}, "gt_size is the text '64'.*Write 64"),
    ({REDS + "use_rot": 1}, "use_rot is 1: it must be a valid boolean"),
    ({"scale": 4.5}, "scale is 4.5"),
    ({"datasets__train": None}, r"datasets\.train is None"),
    ({"train": None}, "train is None"),
    ({"train__optim_g": None}, r"train\.optim_g is None"),
    # Numbers out of range.
    ({REDS + "batch_size_per_gpu": 0}, "batch_size_per_gpu is 0"),
    ({REDS + "batch_size_per_gpu": -1}, "batch_size_per_gpu is -1"),
    ({REDS + "gt_size": 0}, "gt_size is 0"),
    ({REDS + "num_frame": 0}, "num_frame is 0"),
    ({REDS + "num_frame": -1}, "num_frame is -1"),
    ({REDS + "num_worker_per_gpu": -1}, "num_worker_per_gpu is -1"),
    ({REDS + "interval_list": []}, "interval_list is .*at least 1 item"),
    ({REDS + "interval_list": [0]}, r"interval_list\.0 is 0"),
    ({REDS + "dataset_enlarge_ratio": 0}, "dataset_enlarge_ratio is 0"),
    ({"train__grad_clip_norm": -1}, "grad_clip_norm is -1"),
    ({"train__ema_decay": 2}, "ema_decay is 2"),
    ({"train__total_iter": 0}, "total_iter is 0"),
    ({"train__total_iter": 2.5}, "total_iter is 2.5: it must be a whole number"),
    ({"train__fix_flow": -1}, "fix_flow is -1"),
    ({"train__max_skipped_steps": 0}, "max_skipped_steps is 0"),
    ({"train__accumulate": 0}, "accumulate is 0"),
    ({"train__accumulate": 3}, "accumulate is 3; it must divide batch_size_per_gpu, 2"),
    ({"train__optim_g__lr": 0}, "lr is 0"),
    ({"train__optim_g__lr": float("nan")}, "lr is nan"),
    ({"train__optim_g__betas": [0.9]}, "betas is"),
    ({"train__optim_g__betas": [0.9, 1.5]}, r"betas\.1 is 1.5"),
    ({"train__scheduler__periods": []}, "periods is"),
    ({"train__scheduler__periods": [0]}, r"periods\.0 is 0"),
    ({"val__metrics__psnr__crop_border": -1}, "crop_border is -1"),
    ({"val__val_freq": 0}, "val_freq is 0"),
    ({"logger__print_freq": 0}, "print_freq is 0"),
    ({"logger__save_checkpoint_freq": 0}, "save_checkpoint_freq is 0"),
    ({"manual_seed": -1}, "manual_seed is -1"),
    ({"num_gpu": -1}, "num_gpu"),
    ({"network_g__num_heads": 3}, "num_heads|heads"),
    ({"network_g__num_heads": 0}, "network_g"),
    ({"network_g__num_feat": -8}, "network_g"),
    ({"network_g__num_block": 10**9}, "num_block is 1000000000; no network has over 10,000"),
    # What would leave the folder, or train nothing.
    ({"name": "../../x"}, "name is '../../x'.*without a slash"),
    ({"name": ""}, "name is ''"),
    ({"name": "x" * 251}, "at most 200 bytes"),
    ({"train__pixel_opt": None}, "train has no loss"),
    ({REDS + "prefetch_mode": "cuda"}, "needs pin_memory: true"),
    ({REDS + "prefetch_mode": "gpu"}, "prefetch_mode"),
    ({REDS + "persistent_workers": True}, "persistent_workers needs"),
]


@pytest.mark.parametrize(("changes", "message"), CHANGES, ids=[repr(c)[:60] for c, _ in CHANGES])
def test_bad_options_are_refused_in_one_line(options, changes, message) -> None:
    opt = options(**changes)
    opt.update(is_train=True, auto_resume=False, dist=False, rank=0, world_size=1)
    before = copy.deepcopy(opt)
    with pytest.raises(OptionError, match=message) as caught:
        check_options(opt)
    assert "\n" not in str(caught.value)
    assert repr(opt) == repr(before)


@pytest.mark.parametrize(
    "missing",
    [
        *["name", "model_type", "scale", "num_gpu", "datasets", "network_g", "train", "logger"],
        *["train__total_iter", "train__optim_g", "train__optim_g__lr", "train__scheduler"],
        *["logger__print_freq", "logger__use_tb_logger", "val__save_img", "val__val_freq"],
        *["datasets__train__" + key for key in ("gt_size", "use_hflip", "num_frame", "io_backend")],
        *["datasets__train__num_worker_per_gpu", "datasets__val__cache_data", "datasets__train"],
    ],
)
def test_every_key_that_is_needed_is_named(options, missing) -> None:
    opt = options()
    opt.update(is_train=True, dist=False, rank=0)
    *parents, last = missing.split("__")
    section = opt
    for key in parents:
        section = section[key]
    del section[last]
    with pytest.raises(OptionError, match=last):
        check_options(opt)


def test_a_test_needs_no_training_sections(options) -> None:
    opt = test_options(options(), "weights.pth")
    check_schema({**opt, "is_train": False})
    opt["val"].pop("save_img")
    with pytest.raises(OptionError, match=r"val\.save_img is not set"):
        check_schema({**opt, "is_train": False})


def test_models_of_others_may_read_other_keys(options) -> None:
    opt = options(model_type="ESRGANModel", network_d={"type": "VGGStyleDiscriminator"})
    opt["train"].update(gan_opt={"type": "GANLoss"}, optim_d={"type": "Adam", "lr": 1e-3})
    check_schema(opt)
    opt["train"]["total_iter"] = "many"
    with pytest.raises(OptionError, match="total_iter"):
        check_schema(opt)


def test_the_documentation_shows_the_tables() -> None:
    text = (ROOT / "docs" / "basicsr.md").read_text()
    assert train_table(TrainOptions) in text
    assert train_table(RealTrainOptions, TrainOptions) in text


def test_a_tool_runs_no_code_and_writes_nothing(options, tmp_path) -> None:
    file = write_options(options(), tmp_path / "train.yml")
    file.write_text(file.read_text() + "evil: !!python/object/apply:os.system ['touch ran']\n")
    output = run("basicsr_train", file, fails=True)
    assert "error: " in output and "!!python/object/apply:os.system" in output
    assert "Traceback" not in output
    assert [path.name for path in tmp_path.iterdir()] == ["train.yml"]


def test_yaml_that_is_valid_stays_what_it_was(options, tmp_path) -> None:
    opt = options()
    file = write_options(opt, tmp_path / "train.yml", plugin=False)
    assert read_option_file(file) == yaml.safe_load(file.read_text()) == opt

"""The shipped configs and the model zoo entry that lists them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import iart_plugin.mmagic  # noqa: F401  (registers)
from tests.mmagic.mmagic_driver import CONFIGS, ROOT

PATHS = sorted(path for path in CONFIGS.glob("*/*.py") if path.parent.name != "_base_")
METAFILES = sorted(CONFIGS.glob("*/metafile.yml"))


@pytest.fixture(scope="module")
def configs() -> dict[Path, object]:
    from mmengine.config import Config

    return {path: Config.fromfile(path) for path in PATHS}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_experiment_is_called_as_its_file(configs, path):
    config = configs[path]
    assert config.experiment_name == path.stem
    assert config.work_dir == f"./work_dirs/{path.stem}"
    assert config.default_scope == "mmagic"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_network_is_the_one_that_the_metafile_counts(configs, path):
    from mmagic.registry import MODELS

    (entry,) = [m for m in _models() if m["Config"] == path.relative_to(ROOT).as_posix()]
    network = MODELS.build(configs[path].model.generator)
    assert sum(p.numel() for p in network.parameters()) == entry["Metadata"]["Parameters"]
    assert entry["Name"] == path.stem


def _models() -> list[dict]:
    return [m for path in METAFILES for m in yaml.safe_load(path.read_text())["Models"]]


TRAININGS = [p for p in PATHS if "8xb1" in p.stem and p.parent.name != "real_ia_cnn"]


@pytest.mark.parametrize("path", TRAININGS, ids=lambda path: path.stem)
def test_training_is_the_supplements(configs, path):
    """Sec. B.2: Adam, 2e-4 to 1e-7 on one cosine, batch 8, the iterations that the name says."""
    config = configs[path]
    iterations = int(path.stem.split("8xb1-")[1].split("k_")[0]) * 1000
    optim = config.optim_wrapper
    assert (optim.optimizer.type, optim.optimizer.lr) == ("Adam", 2e-4)
    assert optim.paramwise_cfg.custom_keys.spynet.lr_mult == 0.125
    assert config.param_scheduler.type == "CosineRestartLR"
    assert config.param_scheduler.eta_min == 1e-7
    assert config.param_scheduler.periods == [iterations]
    assert config.train_cfg.max_iters == iterations
    assert config.train_dataloader.batch_size == 1
    assert config.model.pixel_loss.type == "CharbonnierLoss"
    assert config.model.train_cfg.fix_iter == -1
    hooks = {hook.type: hook for hook in config.custom_hooks}
    assert {"ResumeOwnHook", "ResumeDataHook", "ProcessSeedHook"} <= hooks.keys()
    assert hooks["FrozenFlowHook"].iterations == 5000
    assert hooks["EMAHook"].momentum == 0.001


FRAMES = {  # Table 2 and Sec. B.2; a mirrored septuplet counts 14
    "ia-cnn_c64b30_8xb1-300k_reds4": 15,
    "ia-cnn_c64b30_8xb1-300k_vimeo90k-bi": 14,
    "ia-cnn_c64b30_8xb1-300k_vimeo90k-bd": 14,
    "ia-rt_c120_8xb1-600k_reds4": 16,
    "ia-rt_c120n6_8xb1-300k_reds4": 6,
    "ia-rt_c120_8xb1-300k_vimeo90k-bi": 7,
    "ia-rt_c120_8xb1-300k_vimeo90k-bd": 7,
    "psrt-recurrent_c120_8xb1-600k_reds4": 16,
}


@pytest.mark.parametrize("path", TRAININGS, ids=lambda path: path.stem)
def test_number_of_training_frames(configs, path):
    dataset = configs[path].train_dataloader.dataset
    mirrored = any(transform.type == "MirrorSequence" for transform in dataset.pipeline)
    assert dataset.num_input_frames * (1 + mirrored) == FRAMES[path.stem]


@pytest.mark.parametrize("path", TRAININGS, ids=lambda path: path.stem)
def test_degradation_is_the_one_in_the_name(configs, path):
    config = configs[path]
    folders = {
        loader.dataset.data_prefix.img
        for loader in (config.train_dataloader, config.val_dataloader)
    }
    kind = path.stem.rsplit("-", 1)[-1]
    expected = {"bi": "BIx4", "bd": "BDx4"}.get(kind, "train_sharp_bicubic/X4")
    assert folders == {expected}


@pytest.mark.parametrize("path", TRAININGS, ids=lambda path: path.stem)
def test_test_loops_are_those_of_mmagics_basicvsr(configs, path):
    from mmengine.config import Config

    own = configs[path]
    theirs = Config.fromfile(_installed("basicvsr/basicvsr_2xb4_reds4.py"))
    for name in ("test_dataloader", "test_evaluator"):
        assert _without_scope(own[name]) == _without_scope(theirs[name])
        assert len(own[name]) == 6


def _without_scope(value: object) -> object:
    """A config without the scope that MMEngine notes in what another package's file holds."""
    if isinstance(value, dict):
        return {k: _without_scope(v) for k, v in value.items() if k != "_scope_"}
    return [_without_scope(v) for v in value] if isinstance(value, list) else value


def _installed(name: str) -> Path:
    import mmagic

    return Path(mmagic.__file__).parent / ".mim" / "configs" / name


def test_vid4_alone_is_a_loop_of_the_full_test(configs):
    by_name = {path.stem: config for path, config in configs.items()}
    full = by_name["ia-cnn_c64b30_8xb1-300k_vimeo90k-bi"]
    for kind, index in (("bd", 4), ("bi", 5)):
        config = by_name[f"ia-cnn_c64b30_vid4-{kind}"]
        assert config.test_dataloader == [full.test_dataloader[index]]
        assert config.test_evaluator == [full.test_evaluator[index]]


def test_model_index_is_valid_and_complete():
    """Checked by OpenMMLab's own loader, and against the files."""
    loader = pytest.importorskip("modelindex.load_model_index")
    index = loader.load(str(ROOT / "model-index.yml"))
    errors = [item for item in index.collect_check_errors() if item["errors"]]
    assert not errors
    assert {m.config for m in index.models} == {p.relative_to(ROOT).as_posix() for p in PATHS}
    collections = {c.name for c in index.collections}
    assert {m.in_collection for m in index.models} == collections


def test_model_index_check_notices_a_mistake(tmp_path):
    """The loader's errors are collected, not raised: see that there are any to collect."""
    loader = pytest.importorskip("modelindex.load_model_index")
    broken = METAFILES[0].read_text().replace("README: README.md", "README: MISSING.md")
    path = tmp_path / "metafile.yml"
    path.write_text(broken)
    assert any(item["errors"] for item in loader.load(str(path)).collect_check_errors())


def test_study_is_the_supplements(configs):
    """Sec. B.1: Adam, 2e-4 to 1e-7, 100k iterations, batch 8, crops of 256."""
    rows = [path for path in PATHS if path.parent.name == "alignment_study"]
    assert len(rows) == 7
    for config in (configs[path] for path in rows):
        assert config.train_cfg.max_iters == 100_000
        assert config.param_scheduler.periods == [100_000]
        assert (config.optim_wrapper.optimizer.lr, config.param_scheduler.eta_min) == (2e-4, 1e-7)
        assert config.train_dataloader.batch_size == 8
        assert config.train_dataloader.dataset.augment.crop_size == 64
        assert "FrozenFlowHook" not in {hook.type for hook in config.custom_hooks}

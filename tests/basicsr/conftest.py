"""A tiny data set and a maker of option files for it."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.basicsr.basicsr_driver import base_options, load_tool


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """What is this small gains nothing from more."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def logger() -> None:
    """BasicSR's, set up before a test: pytest hears what a logger says as it finds it."""
    importlib.import_module("iart_plugin.basicsr")  # lets BasicSR be imported
    importlib.import_module("basicsr.utils").get_root_logger()


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory, big_buck_bunny: Path) -> Path:
    """Two training clips of 100 frames and one for validation, 64 x 64, in REDS' layout."""
    root = tmp_path_factory.mktemp("tiny")
    tool = load_tool("make_tiny_dataset")
    tool.make_tiny_dataset(big_buck_bunny, root, size=64)
    return root


@pytest.fixture(scope="session")
def options(data: Path) -> Callable[..., dict[str, Any]]:
    """A maker of training options; a dotted keyword such as ``train__fix_flow`` changes one."""

    def make(**changes: Any) -> dict[str, Any]:
        opt = copy.deepcopy(base_options(data))
        for path, value in changes.items():
            section = opt
            *parents, last = path.split("__")
            for key in parents:
                section = section[key]
            section[last] = value
        return opt

    return make


@pytest.fixture
def make(options, tmp_path):
    """A maker of training models whose checkpoints go to the test's folder."""
    model = importlib.import_module("iart_plugin.basicsr.model")

    def build(**changes) -> Any:
        opt = copy.deepcopy(options(**changes))
        opt.update(is_train=True, auto_resume=False, dist=False, rank=0, world_size=1)
        for key in ("models", "training_states"):
            (tmp_path / key).mkdir(exist_ok=True)
            opt["path"][key] = str(tmp_path / key)
        torch.manual_seed(0)
        return model.RecurrentMixPrecisionRTModel(opt)

    return build

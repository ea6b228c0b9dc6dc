"""Malformed BasicSR option files: each is found in order, or refused in one line."""

from __future__ import annotations

import copy
import importlib.util
import warnings
from itertools import chain
from pathlib import Path

import pytest

from tests.fuzz.malformed_options import every_key, malformed_option_files

COUNT = 150

if importlib.util.find_spec("basicsr") is None:
    pytest.skip("BasicSR is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, big_buck_bunny: Path) -> dict:
    """Options of a training and data that they fit."""
    from tests.basicsr.basicsr_driver import base_options, load_tool

    root = tmp_path_factory.mktemp("tiny")
    load_tool("make_tiny_dataset").make_tiny_dataset(big_buck_bunny, root, size=64)
    return base_options(root)


def look_at(path: Path) -> None:
    """Read, complete and check an option file, as a training does before it writes anything."""
    from iart_plugin.basicsr.checks import check_datasets, check_options, check_weights
    from iart_plugin.basicsr.checks.schema import check_schema
    from iart_plugin.basicsr.option_files import (
        _complete_datasets,
        _complete_paths,
        read_option_file,
    )

    opt = read_option_file(path)
    opt["is_train"] = True
    check_schema(opt)
    opt.update(auto_resume=False, dist=False, rank=0, world_size=1)
    opt["num_gpu"] = 0 if opt["num_gpu"] == "auto" else opt["num_gpu"]
    _complete_datasets(opt)
    _complete_paths(opt)
    check_options(opt)
    check_weights(opt)
    check_datasets(opt)


def test_option_files(good, tmp_path, monkeypatch, fuzz_seed) -> None:
    import iart_plugin.basicsr  # noqa: F401  registers
    from iart_plugin.option_errors import OptionError

    monkeypatch.chdir(tmp_path)
    (tmp_path / "options.yml").write_text("")
    tried, passed, failed = 0, 0, []
    files = malformed_option_files(tmp_path, copy.deepcopy(good), seed=fuzz_seed, count=COUNT)
    for done, path in chain(files, every_key(tmp_path, good, seed=fuzz_seed)):
        tried += 1
        with warnings.catch_warnings(action="ignore"):
            try:
                look_at(path)
                passed += 1
            except OptionError as error:
                if "\n" in str(error):
                    failed.append(f"{done}: several lines: {error}")
            except Exception as error:
                failed.append(f"{done}: {type(error).__name__}: {error}")
    assert [file.name for file in tmp_path.iterdir()] == ["options.yml"]
    held = tried - len(failed)
    print(f"option files, seed {fuzz_seed}: {tried} tried, {held} held, {passed} in order")
    assert not failed, "\n".join(failed)

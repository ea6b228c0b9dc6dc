"""What `pip install` brings: the wheel is built, installed into a folder and used from there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import iart_plugin

ROOT = Path(__file__).parents[1]
SOURCES = (
    *("iart_plugin", "configs", "requirements"),
    *("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "CITATION.cff"),
    *("Makefile", "model-index.yml", "hubconf.py"),
)


def run(*command: str | Path, **options) -> str:
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from the source archive as a release is."""
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, source / name)
    program = "import sys; from setuptools.build_meta import *; print(build_{}(sys.argv[1]))"
    made = tmp_path_factory.mktemp("dist")
    archive = run(sys.executable, "-c", program.format("sdist"), made, cwd=source)
    shutil.unpack_archive(made / archive.split()[-1], made, filter="data")
    unpacked = made / archive.split()[-1].removesuffix(".tar.gz")
    name = run(sys.executable, "-c", program.format("wheel"), made, cwd=unpacked)
    return made / name.split()[-1]


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder with the unpacked wheel, and no clone in reach."""
    folder = tmp_path_factory.mktemp("site-packages")
    shutil.unpack_archive(wheel, folder, "zip")
    return folder


def test_its_name_and_metadata(wheel):
    assert wheel.name == f"iart_plugin-{iart_plugin.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as file:
        folder = f"iart_plugin-{iart_plugin.__version__}.dist-info"
        metadata = file.read(f"{folder}/METADATA").decode()
        scripts = file.read(f"{folder}/entry_points.txt").decode()
    assert f"Version: {iart_plugin.__version__}\n" in metadata
    assert "iart-plugin = iart_plugin.__main__:main" in scripts
    assert "License-Expression: Apache-2.0" in metadata


def test_it_holds_the_package_and_every_config_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if ".dist-info/" not in name}
    wanted = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "iart_plugin").rglob("*.py")
    } | {
        f"iart_plugin/.mim/{path.relative_to(ROOT).as_posix()}"
        for path in [*(ROOT / "configs").rglob("*"), ROOT / "model-index.yml"]
        if path.is_file() and path.suffix != ".pyc"
    }
    assert names == wanted


def test_configs_are_found_without_a_clone(installed, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = (sys.executable, "-m", "iart_plugin", "configs")
    options = {"cwd": tmp_path, "env": environment}
    path = run(*command, "ia-cnn_c64b30_vid4-bi", "--path", **options).strip()
    assert Path(path).is_relative_to(installed / "iart_plugin" / ".mim" / "configs")
    copy = run(*command, "IACNN_Vid4", "--copy", tmp_path, **options).strip()
    original = ROOT / "configs" / "basicsr" / "test" / "IACNN_Vid4.yml"
    assert Path(copy).read_text(encoding="utf-8") == original.read_text(encoding="utf-8")


def test_mim_reads_the_model_index(installed, tmp_path):
    """As ``mim search`` does for an installed package: its index and every file it names."""
    modelindex = pytest.importorskip("modelindex")
    index = modelindex.load(str(installed / "iart_plugin" / ".mim" / "model-index.yml"))
    index.build_models_with_collections()
    models = index.models
    assert models
    missing = [
        model.config
        for model in models
        if not (installed / "iart_plugin" / ".mim" / model.config).is_file()
    ]
    assert not missing

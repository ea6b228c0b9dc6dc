"""The study's committed option files and configs are what the source says."""

from pathlib import Path

import pytest
import yaml

from iart_plugin.archs import AlignmentStudyNet
from iart_plugin.study.configs import BASICSR_FOLDER, MMAGIC_BASE, MMAGIC_FOLDER, all_files

ROOT = Path(__file__).resolve().parents[2]
FILES = dict(all_files())


@pytest.mark.parametrize("path", FILES, ids=str)
def test_committed_file_is_current(path):
    assert (ROOT / path).read_text(encoding="utf-8") == FILES[path], (
        "run tools/make_study_configs.py"
    )


def test_no_file_is_left_over():
    found = {p.relative_to(ROOT) for p in (ROOT / BASICSR_FOLDER).rglob("*.yml")}
    found |= {p.relative_to(ROOT) for p in (ROOT / MMAGIC_FOLDER).glob("*.py")}
    assert found - set(FILES) == {MMAGIC_FOLDER / f"{MMAGIC_BASE}.py"}


def _options(path):
    text = FILES[path].replace("!!python/name:iart_plugin.basicsr.PLUGIN", "plugin")
    return yaml.safe_load(text.replace("!!float ", ""))


@pytest.mark.parametrize("path", [p for p in FILES if BASICSR_FOLDER in p.parents], ids=str)
def test_basicsr_network_builds(path):
    network = _options(path)["network_g"]
    assert network.pop("type") == "AlignmentStudyNet"
    parameters = sum(p.numel() for p in AlignmentStudyNet(**network).parameters())
    if "cpu" not in path.parts:
        assert parameters >= 1_209_427
        assert _options(path)["datasets"]["train"]["batch_size_per_gpu"] == 8
    else:
        assert parameters < 400_000

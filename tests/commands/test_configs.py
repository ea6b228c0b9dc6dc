"""The command ``configs``: what it lists, prints and copies."""

from __future__ import annotations

from pathlib import Path

import pytest

from iart_plugin.commands.configs import bases, configs_folder, find_config, list_configs, main

CONFIGS = Path(__file__).parents[2] / "configs"


def test_lists_what_can_be_run(capsys):
    assert main([]) == 0
    names = capsys.readouterr().out.split()
    assert "basicsr/test/IACNN_Vid4.yml" in names
    assert "mmagic/ia_cnn/ia-cnn_c64b30_vid4-bi.py" in names
    assert not [name for name in names if "_base_" in name or "metafile" in name]


@pytest.mark.parametrize("name", ["IACNN_Vid4", "IACNN_Vid4.yml", "test/IACNN_Vid4.yml"])
def test_prints_one_by_the_end_of_its_path(name, capsys):
    assert main([name]) == 0
    expected = CONFIGS / "basicsr" / "test" / "IACNN_Vid4.yml"
    assert capsys.readouterr().out == expected.read_text(encoding="utf-8")


def test_every_listed_name_finds_its_file():
    folder = configs_folder()
    for name in list_configs(folder):
        assert find_config(folder, name) == folder / name


def test_an_unknown_name_is_answered_with_the_nearest(capsys):
    assert main(["IACNN_Vid5.yml", "--path"]) == 1
    assert "did you mean basicsr/test/IACNN_Vid4.yml" in capsys.readouterr().err


def test_a_copied_option_file_is_not_overwritten(tmp_path, capsys):
    assert main(["IACNN_Vid4", "--copy", str(tmp_path)]) == 0
    assert (tmp_path / "IACNN_Vid4.yml").is_file()
    assert main(["IACNN_Vid4", "--copy", str(tmp_path)]) == 1
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    [name for name in list_configs(CONFIGS) if name.startswith("mmagic/ia_")],
)
def test_a_copied_config_reads_as_the_original(name, tmp_path, capsys):
    pytest.importorskip("mmengine")
    from mmengine.config import Config

    assert main([name, "--copy", str(tmp_path)]) == 0
    copy = Path(capsys.readouterr().out.strip())
    assert copy.is_relative_to(tmp_path)
    options = {"import_custom_modules": False}
    copied, original = (Config.fromfile(str(file), **options) for file in (copy, CONFIGS / name))
    assert copied._cfg_dict == original._cfg_dict
    assert all(base.is_file() for base in bases(copy))

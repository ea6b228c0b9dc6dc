"""What importing the adapter does to BasicSR's registries and modules."""

from __future__ import annotations

import copy
import importlib
import subprocess
import sys

import pytest
import yaml

import iart_plugin.basicsr
from iart_plugin import archs, ops
from tests.basicsr.basicsr_driver import PLUGIN_LINE, environment


def test_names_lead_to_the_core_classes() -> None:
    from basicsr.utils.registry import ARCH_REGISTRY, MODEL_REGISTRY

    assert ARCH_REGISTRY.get("IART") is archs.IART
    assert ARCH_REGISTRY.get("IACNN") is archs.IACNN
    assert ARCH_REGISTRY.get("ImplicitAlignment") is ops.ImplicitAlignment
    assert "RecurrentMixPrecisionRTModel" in MODEL_REGISTRY


def test_importing_twice_changes_nothing() -> None:
    from basicsr.models.sr_model import SRModel
    from basicsr.models.video_recurrent_model import VideoRecurrentModel

    before = (VideoRecurrentModel.dist_validation, SRModel.feed_data)
    importlib.reload(iart_plugin.basicsr)
    iart_plugin.basicsr.register()
    after = (VideoRecurrentModel.dist_validation, SRModel.feed_data)
    assert all(x is y for x, y in zip(before, after, strict=True))


def test_a_name_taken_by_another_package_is_said(monkeypatch) -> None:
    from basicsr.utils.registry import ARCH_REGISTRY

    class IART:
        pass

    monkeypatch.setitem(ARCH_REGISTRY._obj_map, "IART", IART)
    with pytest.raises(RuntimeError, match="already has a 'IART'"):
        iart_plugin.basicsr.register()


def test_the_line_in_an_option_file_is_a_plain_string() -> None:
    from basicsr.utils.options import dict2str, ordered_yaml

    opt = yaml.load(PLUGIN_LINE, Loader=ordered_yaml()[0])
    assert opt["plugin"] == "iart_plugin.basicsr"
    assert copy.deepcopy(opt) == opt
    assert "iart_plugin.basicsr" in dict2str(opt)


def test_the_line_alone_registers() -> None:
    """In a process that has imported BasicSR only, as the stock entry point has."""
    code = (
        "import iart_plugin.compat.startup\n"
        "import sys, yaml\n"
        "from basicsr.utils.options import ordered_yaml\n"
        "from basicsr.utils.registry import ARCH_REGISTRY\n"
        "assert 'IART' not in ARCH_REGISTRY\n"
        "assert 'iart_plugin.basicsr' not in sys.modules\n"
        f"yaml.load({PLUGIN_LINE!r}, Loader=ordered_yaml()[0])\n"
        "assert 'IART' in ARCH_REGISTRY and 'IACNN' in ARCH_REGISTRY\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=environment(), timeout=120)


def test_the_package_alone_registers_nothing() -> None:
    code = "import sys, iart_plugin; sys.exit('basicsr' in sys.modules or 'torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=environment(), timeout=60)


def test_basicsrs_own_functions_lead_to_the_same_pipelines(monkeypatch) -> None:
    """For programs that call ``train_pipeline`` themselves; its command calls the first step."""
    from iart_plugin.basicsr import pipeline

    ran = []
    opt, arguments = {"name": "run"}, type("Arguments", (), {"opt": "o.yml"})
    monkeypatch.setattr(pipeline, "parse_options", lambda root, is_train: (opt, arguments))
    for kind in ("train", "test"):
        monkeypatch.setitem(pipeline.PIPELINES, kind, lambda *given: ran.append(given))
        getattr(sys.modules[f"basicsr.{kind}"], f"{kind}_pipeline")("root")
    assert ran == [({"name": "run", "root_path": "root"}, "o.yml")] * 2

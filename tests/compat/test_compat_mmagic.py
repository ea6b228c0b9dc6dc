"""The mends for MMagic and MMEngine, each where it is needed and where it is not."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from iart_plugin.compat import mmagic as compat

pytest.importorskip("mmengine")

ROOT = Path(__file__).parents[2]


def _python(script: str, **environment: str) -> str:
    """Runs a script in a fresh interpreter, where nothing is mended yet."""
    paths = [environment.pop("PYTHONPATH", ""), str(ROOT)]
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


def _lite() -> bool:
    import importlib.util

    return compat.stand_in_for_mmcv_ops() or importlib.util.find_spec("mmcv._ext") is None


@pytest.mark.skipif(not _lite(), reason="a full mmcv is installed")
def test_missing_op_is_named():
    """A deformable convolution of MMagic's BasicVSR++ builds, and says what it lacks when run."""
    compat.stand_in_for_mmcv_ops()
    from mmcv.ops import ModulatedDeformConv2d

    layer = ModulatedDeformConv2d(1, 1, 3)
    x = torch.zeros(1, 1, 4, 4)
    with pytest.raises(NotImplementedError, match=r"'modulated_deform_conv_forward'.*mmcv-lite"):
        layer(x, torch.zeros(1, 18, 2, 2), torch.zeros(1, 9, 2, 2))


def test_full_mmcv_is_left_alone(tmp_path):
    """With a compiled extension in mmcv, nothing is put in its place."""
    package = tmp_path / "mmcv"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "_ext.py").write_text("compiled = True\n")
    script = (
        "from iart_plugin.compat.mmagic import stand_in_for_mmcv_ops\n"
        "import sys\n"
        "assert stand_in_for_mmcv_ops() is False\n"
        "assert 'mmcv._ext' not in sys.modules\n"
        "import mmcv._ext\n"
        "assert stand_in_for_mmcv_ops() is False\n"
        "print(mmcv._ext.compiled)\n"
    )
    assert _python(script, PYTHONPATH=str(tmp_path)) == "True\n"


def test_without_mmcv_nothing_is_put_there():
    script = (
        "import sys\n"
        "sys.modules['mmcv'] = None\n"
        "from iart_plugin.compat.mmagic import stand_in_for_mmcv_ops\n"
        "print(stand_in_for_mmcv_ops(), 'mmcv._ext' in sys.modules)\n"
    )
    assert _python(script) == "False False\n"


def test_importing_compat_changes_nothing():
    script = (
        "import sys\n"
        "import iart_plugin.compat.basicsr, iart_plugin.compat.startup\n"
        "print([name for name in sys.modules if name.startswith(('mm', 'basicsr', 'torch'))])\n"
    )
    assert _python(script) == "[]\n"


def test_numpy_keeps_its_names(monkeypatch):
    monkeypatch.delitem(np.__dict__, "bool8", raising=False)
    monkeypatch.setattr(np, "__version__", "1.26.4")
    assert compat.restore_numpy_bool8.function() is False
    monkeypatch.setattr(np, "__version__", "2.1.0")
    assert compat.restore_numpy_bool8.function() is True
    assert np.bool8 is np.bool_
    assert compat.restore_numpy_bool8.function() is False


def _history():
    from mmengine.logging import HistoryBuffer

    buffer = HistoryBuffer()
    for value in (1.0, 2.0):
        buffer.update(value)
    return buffer


def test_own_log_buffers_load_as_weights(tmp_path):
    compat.allow_mmengine_checkpoints()
    content = {"loss": _history(), "lr": np.float64(0.5), "n": np.int64(3), "mask": np.ones(2)}
    torch.save(content, tmp_path / "run.pth")
    loaded = torch.load(tmp_path / "run.pth", weights_only=True)
    assert loaded["loss"].mean() == 1.5
    assert (loaded["lr"], loaded["n"]) == (0.5, 3)


class _Reads:
    """Pickles as getattr(owner, name)."""

    def __init__(self, owner: object, name: str) -> None:
        self.arguments = (owner, name)

    def __reduce__(self):
        return getattr, self.arguments


@pytest.mark.parametrize("name", ["__init__", "update", "__globals__"])
def test_nothing_else_may_be_looked_up(tmp_path, name):
    from mmengine.logging import HistoryBuffer

    compat.allow_mmengine_checkpoints()
    torch.save(
        {"x": _Reads(HistoryBuffer, name)},
        tmp_path / "evil.pth",
        _use_new_zipfile_serialization=True,
    )
    with pytest.raises(Exception, match="may not read"):
        torch.load(tmp_path / "evil.pth", weights_only=True)


def test_launch_on_the_cpu_takes_gloo(monkeypatch):
    from mmengine.dist import utils

    if torch.cuda.is_available():
        assert compat.launch_without_cuda.function() is False
        return
    assert compat.launch_without_cuda() is True
    calls = []
    monkeypatch.setattr(
        torch.distributed, "init_process_group", lambda *a, **k: calls.append((a, k))
    )
    utils._init_dist_pytorch("nccl", timeout=3)
    utils._init_dist_pytorch("mpi")
    assert calls == [(("gloo",), {"timeout": 3}), (("mpi",), {})]
    with pytest.raises(ValueError, match="deepspeed"):
        utils._init_dist_pytorch("nccl", init_backend="deepspeed")


def test_device_ids_are_dropped_for_modules_on_the_cpu_alone():
    given = []

    class Wrapper:
        def __init__(self, module, device_ids=None):
            given.append(device_ids)

    compat._drop_device_ids(Wrapper)
    Wrapper(torch.nn.Linear(1, 1), device_ids=[0])
    on_device = types.SimpleNamespace(
        parameters=lambda: [types.SimpleNamespace(device=torch.device("cuda:1"))]
    )
    Wrapper(on_device, device_ids=[1])
    assert given == [None, [1]]


def test_with_cuda_the_launch_is_left_alone(monkeypatch):
    from mmengine.dist import utils

    before = utils._init_dist_pytorch
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert compat.launch_without_cuda.function() is False
    assert utils._init_dist_pytorch is before


def test_mmagic_is_imported_with_numpy_2_after_the_start_up_hook():
    """Names of numpy 1.26 that numpy 2 lacks are taken away, as far as MMagic reads them."""
    script = (
        "import numpy\n"
        "numpy.__version__ = '2.1.0'\n"
        "numpy.__dict__.pop('bool8', None)\n"
        "import iart_plugin.compat.startup\n"
        "assert 'bool8' not in numpy.__dict__\n"
        "import importlib.util\n"
        "assert importlib.util.find_spec('mmagic')\n"
        "print(numpy.bool8 is numpy.bool_)\n"
    )
    assert _python(script) == "True\n"


@pytest.mark.parametrize("version", ["2.5.1", "1.13.0+cu117"])
def test_pytorch_that_loads_unsafely_is_refused(monkeypatch, version):
    compat.refuse_unsafe_torch()
    monkeypatch.setattr(torch, "__version__", version)
    with pytest.raises(ImportError, match="PyTorch 2.6 or newer, and .* is installed"):
        compat.refuse_unsafe_torch()


@pytest.mark.parametrize("codec", ["libx264", "h264", "mpeg4"])
def test_training_video_is_compressed(codec):
    """MMagic's degradation, with every encoder that its RealBasicVSR configs name."""
    pytest.importorskip("av")
    from mmagic.datasets.transforms import RandomVideoCompression

    import iart_plugin.mmagic  # noqa: F401  mends

    params = {"codec": [codec], "codec_prob": [1.0], "bitrate": [1e4, 1e5]}
    y, x = np.mgrid[:32, :48]
    clip = [np.stack([x + 3 * i, y, x * y / 8], -1).astype(np.float32) % 256 for i in range(4)]
    result = RandomVideoCompression(params, ["img"])({"img": clip})["img"]
    assert [frame.shape for frame in result] == [(32, 48, 3)] * 4
    errors = [np.abs(a - b).mean() for a, b in zip(result, clip, strict=True)]
    assert 0 < max(errors) < 60


def test_perceptual_weights_that_cannot_be_downloaded(tmp_path, monkeypatch):
    from mmagic.models.losses import PerceptualLoss

    import iart_plugin.mmagic  # noqa: F401  mends
    from iart_plugin.option_errors import OptionError

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # where nothing answers
    with pytest.raises(OptionError, match=r"vgg11.*model\.perceptual_loss\.pretrained=FILE"):
        PerceptualLoss({"0": 1.0}, vgg_type="vgg11", pretrained="torchvision://vgg11")

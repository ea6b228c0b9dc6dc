"""Repairs of MMagic 1.2.0 and MMEngine 0.10.7, for today's PyTorch, numpy and mmcv-lite."""

from __future__ import annotations

import functools
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from iart_plugin.compat.mend import Mend, listed_in

MENDS: list[Mend] = []
"""Every repair of this module. All of them must run before ``mmagic.models`` is imported."""

MMAGIC = "MMagic 1.2.0"
MMENGINE = "MMEngine 0.10.7"

SAFE_TORCH = (2, 6)
"""The first PyTorch version in which ``torch.load`` reads only weights by default."""


def mend() -> None:
    """Apply every repair."""
    for one in MENDS:
        one()


def refuse_unsafe_torch() -> None:
    """Refuse a PyTorch with which a checkpoint file can run code when MMEngine loads it.

    MMEngine calls ``torch.load`` without ``weights_only``. Before PyTorch 2.6 that unpickles
    whatever the file holds, for ``load_from``, ``test.py`` and ``--resume`` alike.

    Raises:
        ImportError: if the installed PyTorch is older than 2.6.
    """
    import torch

    if _version(torch.__version__) < SAFE_TORCH:
        raise ImportError(
            f"iart_plugin.mmagic needs PyTorch 2.6 or newer, and {torch.__version__} is installed: "
            "with older versions MMEngine runs any code that a checkpoint file holds. "
            "Upgrade PyTorch, or use BasicSR's option files, whose files are read safely."
        )


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


class _MissingOps(ModuleType):
    """Takes the place of mmcv's compiled extension; an op that is called fails and is named."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*_args: Any, **_kwargs: Any) -> None:
            raise NotImplementedError(
                f"mmcv's compiled op '{name}' is needed here, and the installed mmcv has no "
                "compiled ops (mmcv-lite). To use it, install a full mmcv: "
                "pip install 'mmcv>=2.0,<2.2'. No network of iart_plugin's own needs one."
            )

        missing.__name__ = missing.__qualname__ = name
        return missing

    @staticmethod
    def get_compiler_version() -> str:
        return "no compiled ops"

    @staticmethod
    def get_compiling_cuda_version() -> str:
        return "not available"


@listed_in(MENDS, MMAGIC)
def stand_in_for_mmcv_ops() -> bool:
    """Let ``import mmagic.models`` succeed on mmcv-lite.

    ``basicvsr_plusplus_net``, ``edvr_net``, ``tdan_net``, ``stylegan1`` and ``stylegan2`` import
    ``mmcv.ops`` unconditionally, which imports the compiled ``mmcv._ext``. If mmcv is absent or has
    compiled ops, this function changes nothing.
    """
    if "mmcv._ext" in sys.modules:
        return False
    if importlib.util.find_spec("mmcv") is None or importlib.util.find_spec("mmcv._ext"):
        return False
    stand_in = _MissingOps("mmcv._ext", _MissingOps.__doc__)
    # mmcv.utils.check_ops_exist calls pkgutil, which refuses a module without a spec.
    stand_in.__spec__ = ModuleSpec("mmcv._ext", loader=None)
    sys.modules["mmcv._ext"] = stand_in
    return True


@listed_in(MENDS, MMAGIC)
def restore_numpy_bool8() -> bool:
    """Give numpy 2 back the name ``bool8``, which MMagic reads while it is imported.

    ``utils/trans_utils.py:376`` reads it, and the stock tools import that file before they read a
    config. :mod:`iart_plugin.compat.startup` restores the name in time for them.
    """
    import numpy as np

    if "bool8" in np.__dict__ or _version(np.__version__) < (2, 0):
        return False
    np.bool8 = np.bool_
    return True


@listed_in(MENDS, MMENGINE)
def allow_mmengine_checkpoints() -> bool:
    """Let ``torch.load`` read the log that MMEngine writes into its checkpoints.

    ``runner/checkpoint.py`` calls ``torch.load`` without ``weights_only``. From PyTorch 2.6 on,
    this call refuses MMEngine's own files, because they hold its message hub (``HistoryBuffer``,
    numpy arrays and scalars). This repair allows these types in a file, and no others.
    """
    import torch
    from mmengine.logging import HistoryBuffer

    from iart_plugin.weight_files import safe_globals

    torch.serialization.add_safe_globals(safe_globals(HistoryBuffer))
    return True


@listed_in(MENDS, MMENGINE)
def save_files_whole() -> bool:
    """Let a checkpoint appear under its name only when it is complete.

    ``fileio/backends/local_backend.py:77`` writes directly to the final name, so a killed run
    leaves an incomplete file there.
    """
    from mmengine.fileio.backends import LocalBackend

    from iart_plugin.files import write_atomically

    def put(self: LocalBackend, obj: bytes, filepath: str | Path) -> None:
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, obj)

    LocalBackend.put = put
    return True


@listed_in(MENDS, MMENGINE)
def launch_without_cuda() -> bool:
    """Let ``--launcher pytorch`` work over gloo where there is no CUDA device.

    ``dist/utils.py:130`` calls ``torch.cuda.set_device`` whatever the backend. ``runner.py`` and
    ``MMDistributedDataParallel`` pass ``device_ids``, which ``DistributedDataParallel`` refuses for
    a module on the CPU.
    """
    import torch

    if torch.cuda.is_available():
        return False
    from mmengine.dist import utils
    from mmengine.model import MMDistributedDataParallel

    utils._init_dist_pytorch = _init_dist_without_cuda
    _drop_device_ids(MMDistributedDataParallel)
    return True


def _init_dist_without_cuda(backend: str, init_backend: str = "torch", **options: Any) -> None:
    """MMEngine's ``_init_dist_pytorch``, but without a CUDA device, and so with gloo, not NCCL."""
    import torch.distributed

    if init_backend != "torch":
        raise ValueError(f"init_backend '{init_backend}' needs CUDA; there is no CUDA device here")
    torch.distributed.init_process_group("gloo" if backend == "nccl" else backend, **options)


def _drop_device_ids(wrapper: type) -> None:
    original = wrapper.__init__

    @functools.wraps(original)
    def without_device_ids(self: Any, module: Any, *args: Any, **options: Any) -> None:
        if all(parameter.device.type == "cpu" for parameter in module.parameters()):
            options["device_ids"] = None
        original(self, module, *args, **options)

    wrapper.__init__ = without_device_ids

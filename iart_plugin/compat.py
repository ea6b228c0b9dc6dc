"""What upstream broke, mended in one place without editing an installed package.

One function a breakage. Each names the upstream version, is safe to call twice and does nothing
where the breakage is absent. An adapter calls the ones that concern its framework; importing this
module changes nothing.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

# --------------------------------------------------------------------------------------------
# BasicSR
# --------------------------------------------------------------------------------------------


def provide_functional_tensor() -> bool:
    """Let ``import basicsr`` succeed on torchvision >= 0.17; call it before that import.

    BasicSR 1.4.2, ``data/degradations.py:8``: imports ``rgb_to_grayscale`` from
    ``torchvision.transforms.functional_tensor``, which torchvision 0.17 removed. Fixed on BasicSR's
    master, not on PyPI (issues 533, 663).

    Returns:
        Whether a stand-in is in place: False where torchvision has the module.
    """
    name = "torchvision.transforms.functional_tensor"
    present = sys.modules.get(name)
    if present is not None:
        return getattr(present, "_iart_plugin_stand_in", False)
    if importlib.util.find_spec(name) is not None:
        return False
    from torchvision.transforms import functional

    stand_in = ModuleType(name, "rgb_to_grayscale, where torchvision < 0.17 had it.")
    stand_in.rgb_to_grayscale = functional.rgb_to_grayscale
    stand_in._iart_plugin_stand_in = True
    sys.modules[name] = stand_in
    return True


def basicsr_pipelines() -> list[ModuleType]:
    """The modules that hold BasicSR's train and test pipelines in this process.

    ``python -m basicsr.train`` runs a second copy of ``basicsr/train.py`` as ``__main__``; what is
    replaced must be replaced in both.
    """
    # `basicsr.train` the attribute may be shadowed by a star import; the module table is not.
    modules = [sys.modules["basicsr.train"], sys.modules["basicsr.test"]]
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name in ("basicsr.train", "basicsr.test"):
        modules.append(main)
    return modules


def replace_in_basicsr_pipelines(name: str, make: Callable[[Any], Any]) -> bool:
    """Replace the global ``name`` of BasicSR's pipelines by ``make(original)``, once.

    Returns:
        Whether any pipeline has that name.
    """
    found = False
    for module in basicsr_pipelines():
        original = module.__dict__.get(name)
        if original is None:
            continue
        found = True
        if not getattr(original, "_iart_plugin", False):
            replacement = make(original)
            replacement._iart_plugin = True
            setattr(module, name, replacement)
    return found


def _already_mended(function: Callable) -> bool:
    return getattr(function, "_iart_plugin", False)


def mend_basicsr_validation_metrics() -> bool:
    """Keep validation's figures on the model's device, and apart for every data set.

    BasicSR 1.4.2, ``models/video_recurrent_model.py:80`` and ``video_base_model.py:32``: the tensor
    of figures is created with ``device='cuda'``, and only for the first data set validated, so that
    a second one fails with a ``KeyError`` (its folders have no place).

    Returns:
        Whether the mend is in place.
    """
    import torch
    from basicsr.models.video_base_model import VideoBaseModel
    from basicsr.models.video_recurrent_model import VideoRecurrentModel

    mended = False
    for cls in (VideoBaseModel, VideoRecurrentModel):
        original = cls.__dict__["dist_validation"]
        if _already_mended(original):
            mended = True
            continue
        if "device='cuda'" not in inspect.getsource(original):
            continue

        def dist_validation(
            self, dataloader, current_iter, tb_logger, save_img, *, _original=original
        ):
            metrics = self.opt["val"].setdefault("metrics", None)
            if metrics is not None:
                frames = Counter(dataloader.dataset.data_info["folder"])
                self.metric_results = {
                    folder: torch.zeros(count, len(metrics), device=self.device)
                    for folder, count in frames.items()
                }
            return _original(self, dataloader, current_iter, tb_logger, save_img)

        dist_validation = functools.wraps(original)(dist_validation)
        dist_validation._iart_plugin = True
        cls.dist_validation = dist_validation
        mended = True
    return mended


def mend_basicsr_cpu_input() -> bool:
    """Keep the model's input apart from the tensor that validation reshapes in place.

    BasicSR 1.4.2, ``models/video_recurrent_model.py:103-106``: ``squeeze_`` is applied to the data
    after ``feed_data``. On a GPU ``.to(device)`` has copied it; on a CPU it is the same object, and
    the model then sees a clip without its batch axis.

    Returns:
        Whether the mend is in place.
    """
    from basicsr.models.sr_model import SRModel

    original = SRModel.feed_data
    if _already_mended(original):
        return True

    @functools.wraps(original)
    def feed_data(self, data):
        original(self, data)
        # A new tensor object over the same storage has a shape of its own: no copy is needed.
        self.lq = self.lq.detach()
        if hasattr(self, "gt"):
            self.gt = self.gt.detach()

    feed_data._iart_plugin = True
    SRModel.feed_data = feed_data
    return True


def mend_basicsr_resume() -> bool:
    """Resume without CUDA, from the newest state that is whole, looked for where the run writes.

    BasicSR 1.4.2, ``train.py:85``: asks for ``torch.cuda.current_device()``; ``train.py:69`` looks
    for ``--auto_resume`` in the working directory's ``experiments/`` although the run writes under
    ``root_path``; ``base_model.py`` writes straight to the final name, so that a killed run can
    leave half a file behind.

    Returns:
        Whether the mend is in place.
    """
    return replace_in_basicsr_pipelines(
        "load_resume_state", lambda original: functools.wraps(original)(_load_resume_state)
    )


def _load_resume_state(opt: dict) -> dict | None:
    """``basicsr.train.load_resume_state`` with the repairs of :func:`mend_basicsr_resume`.

    Args:
        opt: BasicSR's options; ``path.resume_state`` and the networks' paths are set in it.

    Returns:
        The training state on the CPU (optimizers move it to their parameters' device), or None for
        a new run.

    Raises:
        ValueError: if the state that the option file names is missing or unreadable, or the
            processes do not find the same one.
    """
    from basicsr.utils import check_resume

    if opt["auto_resume"]:
        path, state = _newest_training_state(opt)
        check_same_everywhere(path, Path(opt["path"]["training_states"]))
        named = opt["path"].get("resume_state")
        if named and (path is None or Path(named).resolve() != path.resolve()):
            warnings.warn(
                f"--auto_resume takes {path or 'no state, for there is none yet'}, not "
                f"path.resume_state {named}. To go back to that one, leave out --auto_resume once "
                "and move newer states away.",
                stacklevel=2,
            )
            opt["path"]["resume_state"] = None
        if state is None:
            return None
    elif opt["path"].get("resume_state"):
        path = Path(opt["path"]["resume_state"])
        state = _read_training_state(path, opt=None)
    else:
        return None
    opt["path"]["resume_state"] = str(path)
    check_resume(opt, state["iter"])
    # BasicSR changes `params_ema` alone; with `~` or another name the average would be read.
    ignored = opt["path"].get("ignore_resume_networks") or []
    for key in opt["path"]:
        if key.startswith("param_key") and key.replace("param_key", "network", 1) not in ignored:
            opt["path"][key] = "params"
    return state


def _newest_training_state(opt: dict) -> tuple[Path, dict] | tuple[None, None]:
    """The newest state that is whole, and its file."""
    folder = Path(opt["path"]["training_states"])
    states = [path for path in folder.glob("*.state") if path.stem.isdecimal()]  # BasicSR's own
    for path in sorted(states, key=lambda p: int(p.stem), reverse=True):
        try:
            return path, _read_training_state(path, opt)
        except ValueError as error:
            warnings.warn(f"{error} Trying the checkpoint before it.", stacklevel=3)
    return None, None


def check_same_everywhere(path: Path | None, folder: Path) -> None:
    """Refuse to resume where machines see different states: each would train at its own iteration.

    Raises:
        ValueError: on every process, if they did not all choose the same file.
    """
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, path and path.name)
    if len(set(found)) > 1:
        listed = "; ".join(f"process {rank}: {name or 'none'}" for rank, name in enumerate(found))
        raise ValueError(
            f"The run cannot be resumed: its processes find different newest states in {folder} "
            f"({listed}). All machines need to see the same folder."
        )


def _read_training_state(path: Path, opt: dict | None) -> dict:
    """Read one ``.state`` file; with ``opt``, the networks saved beside it must be whole too."""
    import torch

    files = [path]
    if opt is not None:
        names = [key.replace("network_", "net_", 1) for key in opt if key.startswith("network_")]
        ignored = opt["path"].get("ignore_resume_networks") or []
        files += [
            Path(opt["path"]["models"]) / f"{name}_{path.stem}.pth"
            for name in names
            if name.replace("net_", "network_", 1) not in ignored
        ]
    loaded = []
    for file in files:
        try:
            loaded.append(torch.load(file, map_location="cpu", weights_only=True))
        except FileNotFoundError as error:
            raise ValueError(f"The run cannot be resumed: {file} does not exist.") from error
        except Exception as error:
            raise ValueError(
                f"The run cannot be resumed: {file} is unreadable ({type(error).__name__}), "
                "perhaps half written when the run was killed."
            ) from error
    if not isinstance(loaded[0], dict) or "iter" not in loaded[0]:
        raise ValueError(f"{path} is not a training state of BasicSR (it holds no 'iter').")
    return loaded[0]


def mend_basicsr_process_group() -> bool:
    """Start several processes with gloo where there is no CUDA.

    BasicSR 1.4.2, ``utils/dist_util.py:20-24``: ``set_device(rank % 0)`` and the nccl backend.

    Returns:
        Whether the mend is in place: False where CUDA is available.
    """
    import torch
    from basicsr.utils import dist_util

    original = dist_util._init_dist_pytorch
    if _already_mended(original):
        return True
    if torch.cuda.is_available():
        return False

    @functools.wraps(original)
    def _init_dist_pytorch(backend: str, **kwargs: Any) -> None:
        # `port` belongs to the option files' slurm settings; torchrun sets it in the environment.
        kwargs.pop("port", None)
        torch.distributed.init_process_group(backend="gloo", **kwargs)

    _init_dist_pytorch._iart_plugin = True
    dist_util._init_dist_pytorch = _init_dist_pytorch
    return True


def mend_basicsr_ddp_device() -> bool:
    """Wrap networks in DistributedDataParallel on a CPU too.

    BasicSR 1.4.2, ``models/base_model.py:97``: ``device_ids=[torch.cuda.current_device()]``.

    Returns:
        Whether the mend is in place: False where CUDA is available.
    """
    import torch
    from basicsr.models.base_model import BaseModel
    from torch.nn.parallel import DistributedDataParallel

    original = BaseModel.model_to_device
    if _already_mended(original):
        return True
    if torch.cuda.is_available():
        return False

    @functools.wraps(original)
    def model_to_device(self, net):
        if not self.opt["dist"]:
            return original(self, net)
        return DistributedDataParallel(
            net.to(self.device),
            find_unused_parameters=self.opt.get("find_unused_parameters", False),
        )

    model_to_device._iart_plugin = True
    BaseModel.model_to_device = model_to_device
    return True


def mend_basicsr_cuda_prefetch() -> bool:
    """Let option files with ``prefetch_mode: cuda`` run where there is no CUDA.

    BasicSR 1.4.2, ``data/prefetch_dataloader.py``: ``CUDAPrefetcher`` opens a CUDA stream.

    Returns:
        Whether the mend is in place: False where CUDA is available.
    """
    import torch
    from basicsr.data.prefetch_dataloader import CPUPrefetcher

    if torch.cuda.is_available():
        return False

    class HostPrefetcher(CPUPrefetcher):
        """Takes the options that ``CUDAPrefetcher`` takes and reads ahead as the CPU one does."""

        def __init__(self, loader, opt):
            super().__init__(loader)

    return replace_in_basicsr_pipelines("CUDAPrefetcher", lambda _original: HostPrefetcher)


def mend_basicsr_cpu_prefetch() -> bool:
    """Let a damaged frame end a training with ``prefetch_mode: cpu``, which would wait for ever.

    BasicSR 1.4.2, ``data/prefetch_dataloader.py:25``: an error ends the thread that reads, and
    nothing tells the process that waits for its next batch.

    Returns:
        Whether the mend is in place.
    """
    from basicsr.data.prefetch_dataloader import PrefetchGenerator

    read, take = PrefetchGenerator.run, PrefetchGenerator.__next__
    if _already_mended(read):
        return True

    @functools.wraps(read)
    def run(self):
        try:
            read(self)
        except Exception as error:
            self.error = error
            self.queue.put(None)

    @functools.wraps(take)
    def next_batch(self):
        try:
            return take(self)
        except StopIteration:
            if hasattr(self, "error"):
                raise self.error from None
            raise

    run._iart_plugin = True
    PrefetchGenerator.run, PrefetchGenerator.__next__ = run, next_batch
    return True


def mend_basicsr() -> None:
    """Every mend for BasicSR that takes effect after its import. Harmless when repeated."""
    mend_basicsr_validation_metrics()
    mend_basicsr_cpu_input()
    mend_basicsr_resume()
    mend_basicsr_process_group()
    mend_basicsr_ddp_device()
    mend_basicsr_cuda_prefetch()
    mend_basicsr_cpu_prefetch()


# --------------------------------------------------------------------------------------------
# MMagic
# --------------------------------------------------------------------------------------------


class _MissingOps(ModuleType):
    """Stands where mmcv's compiled extension would be; every op in it fails by name when called."""

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


def stand_in_for_mmcv_ops() -> bool:
    """Let ``import mmagic.models`` succeed on mmcv-lite.

    MMagic 1.2.0: ``basicvsr_plusplus_net``, ``edvr_net``, ``tdan_net``, ``stylegan1`` and
    ``stylegan2`` import ``mmcv.ops`` unguarded, which imports ``mmcv._ext``.

    Returns:
        Whether a stand-in is in place: False where mmcv is absent or has compiled ops.
    """
    present = sys.modules.get("mmcv._ext")
    if present is not None:
        return isinstance(present, _MissingOps)
    if importlib.util.find_spec("mmcv") is None or importlib.util.find_spec("mmcv._ext"):
        return False
    stand_in = _MissingOps("mmcv._ext", _MissingOps.__doc__)
    # mmcv.utils.check_ops_exist asks pkgutil, which refuses a module without a spec.
    stand_in.__spec__ = ModuleSpec("mmcv._ext", loader=None)
    sys.modules["mmcv._ext"] = stand_in
    return True


def restore_numpy_names() -> bool:
    """Give numpy >= 2 back ``bool8``, which MMagic 1.2.0 reads in ``utils/trans_utils.py``.

    The stock tools import that file before they read a config, so with them numpy < 2 is needed
    all the same; this helps programs that import :mod:`iart_plugin.mmagic` first.

    Returns:
        Whether the name was missing.
    """
    import numpy as np

    if "bool8" in np.__dict__ or int(np.__version__.partition(".")[0]) < 2:
        return False
    np.bool8 = np.bool_
    return True


def allow_mmengine_checkpoints() -> None:
    """Let ``torch.load(weights_only=True)`` read what MMEngine writes into its own checkpoints.

    torch >= 2.6 loads weights only by default; MMEngine 0.10.7 calls ``torch.load`` without saying
    (``runner/checkpoint.py``) and stores its message hub (``HistoryBuffer``, numpy arrays and
    scalars), so ``test.py`` and ``--resume`` refuse its own files. Only these types are added.
    """
    import torch

    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 6):
        return
    from mmengine.logging import HistoryBuffer

    from iart_plugin.weight_files import numpy_globals

    torch.serialization.add_safe_globals(
        [HistoryBuffer, *numpy_globals(), (_statistic_of_history_buffer, "builtins.getattr")]
    )


def _statistic_of_history_buffer(owner: Any, name: str) -> Any:
    """Stands for ``getattr`` while a file is unpickled.

    A HistoryBuffer is stored with references to its own statistics, ``getattr(HistoryBuffer,
    'mean')`` and the like; nothing else may be looked up.
    """
    from mmengine.logging import HistoryBuffer

    if owner is not HistoryBuffer or name not in ("min", "max", "current", "mean"):
        raise ValueError(f"a checkpoint may not read the attribute '{name}' of {owner!r}")
    return getattr(HistoryBuffer, name)


def allow_cpu_launch() -> bool:
    """Let ``--launcher pytorch`` work where there is no CUDA device, over gloo.

    MMEngine 0.10.7: ``dist/utils.py`` calls ``torch.cuda.set_device`` whatever the backend, and
    ``runner.py`` and ``MMDistributedDataParallel`` pass ``device_ids``, which
    ``DistributedDataParallel`` refuses for a module on the CPU.

    Returns:
        Whether the mends are in place: False where there is a CUDA device.
    """
    import torch

    if torch.cuda.is_available():
        return False
    from mmengine.dist import utils
    from mmengine.model import MMDistributedDataParallel

    if not hasattr(utils._init_dist_pytorch, "mended"):
        utils._init_dist_pytorch = _init_dist_without_cuda
    if not hasattr(MMDistributedDataParallel.__init__, "mended"):
        _drop_device_ids(MMDistributedDataParallel)
    return True


def _init_dist_without_cuda(backend: str, init_backend: str = "torch", **options: Any) -> None:
    """MMEngine's ``_init_dist_pytorch`` without a device to set; NCCL needs one, so gloo."""
    import torch.distributed

    if init_backend != "torch":
        raise ValueError(f"init_backend '{init_backend}' needs CUDA; there is no CUDA device here")
    torch.distributed.init_process_group("gloo" if backend == "nccl" else backend, **options)


_init_dist_without_cuda.mended = True


def _drop_device_ids(wrapper: type) -> None:
    original = wrapper.__init__

    @functools.wraps(original)
    def without_device_ids(self: Any, module: Any, *args: Any, **options: Any) -> None:
        if all(parameter.device.type == "cpu" for parameter in module.parameters()):
            options["device_ids"] = None
        original(self, module, *args, **options)

    without_device_ids.mended = True
    wrapper.__init__ = without_device_ids


def mend_mmagic() -> None:
    """All of MMagic's and MMEngine's mends, before ``mmagic.models`` is imported."""
    stand_in_for_mmcv_ops()
    restore_numpy_names()
    allow_mmengine_checkpoints()
    allow_cpu_launch()

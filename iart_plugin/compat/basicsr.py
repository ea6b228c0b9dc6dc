"""Repairs of BasicSR 1.4.2, for today's torchvision, for the CPU and for several processes."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import sys
from collections import Counter
from types import ModuleType
from typing import Any

from iart_plugin.compat.mend import Mend, listed_in

MENDS: list[Mend] = []
"""Every repair of this module. ``provide_functional_tensor`` must run before BasicSR's import."""

BASICSR = "BasicSR 1.4.2"


def mend() -> None:
    """Apply every repair. The first one makes ``import basicsr`` work; the others follow it."""
    for one in MENDS:
        one()


@listed_in(MENDS, f"{BASICSR}, issues 533 and 663")
def provide_functional_tensor() -> bool:
    """Let ``import basicsr`` succeed on torchvision 0.17 and newer.

    ``data/degradations.py:8`` imports ``rgb_to_grayscale`` from
    ``torchvision.transforms.functional_tensor``, which torchvision 0.17 removed. BasicSR's master
    branch no longer does this, but the version on PyPI does.
    """
    name = "torchvision.transforms.functional_tensor"
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        return False
    from torchvision.transforms import functional

    stand_in = ModuleType(name, "rgb_to_grayscale, where torchvision < 0.17 had it.")
    stand_in.rgb_to_grayscale = functional.rgb_to_grayscale
    sys.modules[name] = stand_in
    return True


@listed_in(MENDS, BASICSR)
def keep_metrics_on_the_models_device() -> bool:
    """Keep validation's metrics on the model's device, and separate for every data set.

    ``models/video_recurrent_model.py:80`` and ``video_base_model.py:32`` create the tensor of
    metrics with ``device='cuda'``. They create it for the first data set only, so a second data set
    fails with a ``KeyError`` for its folders.
    """
    import torch
    from basicsr.models.video_base_model import VideoBaseModel
    from basicsr.models.video_recurrent_model import VideoRecurrentModel

    mended = False
    for cls in (VideoBaseModel, VideoRecurrentModel):
        original = cls.__dict__["dist_validation"]
        if "device='cuda'" not in inspect.getsource(original):
            continue

        @functools.wraps(original)
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

        cls.dist_validation = dist_validation
        mended = True
    return mended


@listed_in(MENDS, BASICSR)
def keep_input_apart_from_the_data() -> bool:
    """Keep the model's input apart from the tensor that validation reshapes in place.

    ``models/video_recurrent_model.py:103-106`` applies ``squeeze_`` to the data after
    ``feed_data``. On a GPU, ``.to(device)`` has already copied the data. On a CPU the model holds
    the same tensor object, so the clip would lose its batch axis there too.
    """
    from basicsr.models.sr_model import SRModel

    original = SRModel.feed_data

    @functools.wraps(original)
    def feed_data(self, data):
        original(self, data)
        # A new tensor object on the same storage has its own shape, so no copy is needed.
        self.lq = self.lq.detach()
        if hasattr(self, "gt"):
            self.gt = self.gt.detach()

    SRModel.feed_data = feed_data
    return True


@listed_in(MENDS, BASICSR)
def start_processes_without_cuda() -> bool:
    """Start several processes over gloo where there is no CUDA device.

    ``utils/dist_util.py:20-24`` calls ``set_device(rank % 0)`` and uses the NCCL backend.
    """
    import torch
    from basicsr.utils import dist_util

    if torch.cuda.is_available():
        return False

    @functools.wraps(dist_util._init_dist_pytorch)
    def _init_dist_pytorch(backend: str, **kwargs: Any) -> None:
        # `port` belongs to the option files' slurm settings; torchrun sets it in the environment.
        kwargs.pop("port", None)
        torch.distributed.init_process_group(backend="gloo", **kwargs)

    dist_util._init_dist_pytorch = _init_dist_pytorch
    return True


@listed_in(MENDS, BASICSR)
def wrap_networks_without_cuda() -> bool:
    """Wrap networks in DistributedDataParallel where there is no CUDA device.

    ``models/base_model.py:97`` passes ``device_ids=[torch.cuda.current_device()]``.
    """
    import torch
    from basicsr.models.base_model import BaseModel
    from torch.nn.parallel import DistributedDataParallel

    if torch.cuda.is_available():
        return False
    original = BaseModel.model_to_device

    @functools.wraps(original)
    def model_to_device(self, net):
        if not self.opt["dist"]:
            return original(self, net)
        return DistributedDataParallel(
            net.to(self.device),
            find_unused_parameters=self.opt.get("find_unused_parameters", False),
        )

    BaseModel.model_to_device = model_to_device
    return True


@listed_in(MENDS, BASICSR)
def pass_on_errors_of_the_reading_thread() -> bool:
    """Let a damaged frame end a training that has ``prefetch_mode: cpu``.

    In ``data/prefetch_dataloader.py:25`` an error ends the thread that reads. The main process does
    not learn of it, and waits for its next batch forever.
    """
    from basicsr.data.prefetch_dataloader import PrefetchGenerator

    read, take = PrefetchGenerator.run, PrefetchGenerator.__next__

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

    PrefetchGenerator.run, PrefetchGenerator.__next__ = run, next_batch
    return True

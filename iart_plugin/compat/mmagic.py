"""Repairs of MMagic 1.2.0 and MMEngine 0.10.7, for today's PyTorch, numpy and mmcv-lite."""

from __future__ import annotations

import functools
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from iart_plugin.compat.mend import Mend, listed_in
from iart_plugin.option_errors import OptionError

MENDS: list[Mend] = []
"""Every repair of this module, in the order in which they must run. The last two import parts of
MMagic; the others must run before MMagic is imported."""

MMAGIC = "MMagic 1.2.0"
MMENGINE = "MMEngine 0.10.7"

TORCHVISION = "torchvision://"
"""The prefix with which a config names weights that torchvision downloads."""

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


@listed_in(MENDS, MMAGIC)
def compress_training_video() -> bool:
    """Let ``RandomVideoCompression`` work with PyAV 14 and newer.

    ``datasets/transforms/random_degradations.py:512`` sets a frame's picture type by its name,
    'NONE', and newer versions of PyAV take only numbers. A new frame has that type anyway. Without
    this repair the degradations of MMagic's RealBasicVSR configs cannot run.
    """
    if importlib.util.find_spec("av") is None:
        return False
    import av

    try:
        av.VideoFrame(16, 16, "yuv420p").pict_type = "NONE"
    except TypeError:
        pass
    else:
        return False
    from mmagic.datasets.transforms.random_degradations import RandomVideoCompression

    RandomVideoCompression._apply_random_compression = _compressed_at_random
    return True


def _compressed_at_random(self: Any, imgs: list[Any]) -> list[Any]:
    """MMagic's ``_apply_random_compression``, except that it sets no picture type."""
    import io
    import random

    import av
    import numpy as np

    codec = random.choices(self.params["codec"], self.params["codec_prob"])[0]
    lowest, highest = self.params["bitrate"]
    file = io.BytesIO()
    with av.open(file, "w", "mp4") as container:
        stream = container.add_stream(codec, rate=1)
        stream.height, stream.width = imgs[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = int(np.random.randint(lowest, highest + 1))  # noqa: NPY002  as MMagic
        for img in imgs:
            frame = av.VideoFrame.from_ndarray(img.astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(file, "r", "mp4") as container:
        frames = container.decode(video=0)
        return [frame.to_ndarray(format="rgb24").astype(np.float32) for frame in frames]


@listed_in(MENDS, MMAGIC)
def read_perceptual_weights_by_path() -> bool:
    """Let ``PerceptualLoss`` read the file that its option ``pretrained`` names.

    ``models/losses/perceptual_loss.py:47`` ignores the option and always lets torchvision download
    the weights, which ends in a long trace where there is no network connection.
    """
    from mmagic.models.losses import perceptual_loss

    original = perceptual_loss.PerceptualVGG.__init__

    @functools.wraps(original)
    def init(
        self: Any,
        layer_name_list: list[str],
        vgg_type: str = "vgg19",
        use_input_norm: bool = True,
        pretrained: str = TORCHVISION + "vgg19",
    ) -> None:
        own = perceptual_loss.vgg
        if not pretrained.startswith(TORCHVISION):
            network = _vgg_of_file(vgg_type, pretrained)
            perceptual_loss.vgg = SimpleNamespace(**{vgg_type: lambda pretrained: network})
        try:
            original(self, layer_name_list, vgg_type, use_input_norm, pretrained)
        except OSError as error:
            raise OptionError(
                f"torchvision's weights of {vgg_type} for the perceptual loss cannot be "
                f"downloaded: {error}. Download them elsewhere and name the file: "
                "--cfg-options model.perceptual_loss.pretrained=FILE."
            ) from error
        finally:
            perceptual_loss.vgg = own

    perceptual_loss.PerceptualVGG.__init__ = init
    return True


def _vgg_of_file(kind: str, path: str) -> Any:
    """A VGG of torchvision with the weights of a file, which needs to hold its ``features`` only.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointMismatch: if the file holds no weights, or those of another network.
    """
    import torch
    from torchvision.models import vgg

    from iart_plugin.weight_files import CheckpointMismatch, read_file

    with torch.device("meta"):  # the classifier, which is never used, takes half a gigabyte
        network = getattr(vgg, kind)(init_weights=False)
    loaded = read_file(path)
    loaded = loaded.get("state_dict", loaded)
    prefix = "features."
    weights = {k.removeprefix(prefix): v for k, v in loaded.items() if k.startswith(prefix)}
    try:
        network.features.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise CheckpointMismatch(
            f"{path} does not hold the weights of torchvision's {kind}: its 'features' differ"
        ) from error
    return network

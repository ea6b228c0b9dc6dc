"""SPyNet (Ranjan & Black, CVPR 2017) as both frameworks have it; loads checkpoints of either."""

import itertools
import os
import re
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iart_plugin.ops import warp
from iart_plugin.ops.parts import in_parts
from iart_plugin.ops.precision import full_precision, wide_dtype
from iart_plugin.ops.tracing import is_traced
from iart_plugin.ops.warp import per_axis
from iart_plugin.weight_files import read_state_dict

LEVELS = 6
MULTIPLE = 2 ** (LEVELS - 1)
"""Sizes are rounded up to this, so that the coarsest level has whole pixels."""

CHUNK_PIXELS = {"cpu": 2**15}
"""How many pixels of frame pairs are estimated at once without gradients, by type of device. Each
takes 700 bytes; with more of them, flow would need more memory than all else on small frames."""
GPU_CHUNK_PIXELS = 2**18  # enough to keep a GPU busy; more would raise the peak in half precision

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def check_frames(current: Tensor, reference: Tensor) -> None:
    """Refuses what a flow network cannot take.

    Raises:
        ValueError: if the frames are not two (n, 3, h, w) batches of one size.
    """
    if current.shape != reference.shape or current.dim() != 4 or current.shape[1] != 3:
        raise ValueError(
            f"expected two (n, 3, h, w) frames of one size, "
            f"got {tuple(current.shape)} and {tuple(reference.shape)}"
        )


class _Level(nn.Module):
    """One pyramid level's five convolutions: (reference, warped, flow) to a flow residual."""

    def __init__(self) -> None:
        super().__init__()
        widths = (8, 32, 64, 32, 16, 2)
        layers: list[nn.Module] = []
        for i, (c_in, c_out) in enumerate(itertools.pairwise(widths)):
            layers += [nn.ReLU(inplace=True)] if i else []
            layers.append(nn.Conv2d(c_in, c_out, 7, padding=3))
        self.basic_module = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.basic_module(x.to(self.basic_module[0].weight.dtype))


class SPyNet(nn.Module):
    """Estimates optical flow coarse to fine over six levels.

    It computes in float32 or wider even under autocast, because half precision cannot represent
    sub-pixel positions. On NVIDIA GPUs since Ampere, PyTorch computes float32 convolutions in TF32
    unless ``torch.backends.cudnn.allow_tf32`` is False.

    Args:
        path: a file with the weights, BasicSR's (``params``) or MMagic's layout, or None.

    Raises:
        FileNotFoundError: if ``path`` does not exist.
        CheckpointMismatch: if the file cannot be read.
        ValueError: if it holds something else.
    """

    def __init__(self, path: str | os.PathLike | None = None) -> None:
        super().__init__()
        self.basic_module = nn.ModuleList(_Level() for _ in range(LEVELS))
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))
        self._register_load_state_dict_pre_hook(_accept_layouts)
        if path is not None:
            self._load_file(path)

    def _load_file(self, path: str | os.PathLike) -> None:
        state, _, _ = read_state_dict(path)
        state = {key.removeprefix("spynet."): value for key, value in state.items()}
        wanted = ("basic_module.", "mean", "std")
        state = {key: value for key, value in state.items() if key.startswith(wanted)}
        try:
            self.load_state_dict({"mean": self.mean, "std": self.std, **state})
        except RuntimeError as error:
            first = str(error).splitlines()[1 if "\n" in str(error) else 0].strip()[:200]
            raise ValueError(f"{path} does not hold SPyNet weights: {first}") from error

    def forward(self, current: Tensor, reference: Tensor) -> Tensor:
        """Estimates the flow from ``current`` to ``reference``.

        Args:
            current: (n, 3, h, w) RGB in [0, 1].
            reference: (n, 3, h, w) RGB in [0, 1].

        Returns:
            (n, 2, h, w) displacements in pixels, x then y; float32 (float64 for float64 frames).

        Raises:
            ValueError: if the frames are not two RGB batches of one size.
        """
        check_frames(current, reference)
        with full_precision(current.device):
            dtype = wide_dtype(current, self.mean)
            return self._estimate(current.to(dtype), reference.to(dtype))

    def _estimate(self, current: Tensor, reference: Tensor) -> Tensor:
        height, width = current.shape[-2:]
        size = (-(-height // MULTIPLE) * MULTIPLE, -(-width // MULTIPLE) * MULTIPLE)
        frames = torch.cat((current, reference))
        frames = F.interpolate(frames, size=size, mode="bilinear", align_corners=False)
        frames = (frames - self.mean.to(frames.dtype)) / self.std.to(frames.dtype)
        pyramid = [frames]
        for _ in range(LEVELS - 1):
            pyramid.append(F.avg_pool2d(pyramid[-1], 2))

        flow = None
        for level, frames in zip(self.basic_module, reversed(pyramid), strict=True):
            current, reference = frames.chunk(2)
            if flow is None:
                flow = current.new_zeros(current.shape[0], 2, *current.shape[2:])
            else:
                flow = 2 * F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True)
            warped = warp(reference, flow, padding="border")
            flow = flow + level(torch.cat((current, warped, flow), 1)).to(flow.dtype)

        flow = F.interpolate(flow, size=(height, width), mode="bilinear", align_corners=False)
        return flow * per_axis(width / size[1], height / size[0], flow)


_MMAGIC_KEY = re.compile(r"(.*basic_module\.\d+\.basic_module)\.(\d+)\.conv\.(weight|bias)")


def rename_spynet_key(key: str) -> str:
    """The name in this package, which is BasicSR's, of a SPyNet key of either framework.

    MMagic wraps every convolution and its ReLU in one module, so its indices do not count ReLUs.
    """
    match = _MMAGIC_KEY.fullmatch(key)
    return f"{match[1]}.{2 * int(match[2])}.{match[3]}" if match else key


def _accept_layouts(state_dict: dict[str, Tensor], prefix: str, *_) -> None:
    for key in [key for key in state_dict if key.startswith(prefix)]:
        state_dict[rename_spynet_key(key)] = state_dict.pop(key)


def clip_flows(flow_network: nn.Module, clip: Tensor) -> tuple[Tensor, Tensor]:
    """Estimates the flows between neighbouring frames of a clip in both directions.

    Args:
        flow_network: ``(current, reference) -> flow`` on batches of frames.
        clip: (n, t, 3, h, w) RGB in [0, 1].

    Returns:
        ``(forward, backward)``, each (n, t - 1, 2, h, w). Element i of the forward flow maps frame
        i + 1 to frame i (used by the forward branch), of the backward flow frame i to frame i + 1.
    """
    n, t = clip.shape[:2]
    if t == 1:
        empty = clip.new_zeros(n, 0, 2, *clip.shape[-2:], dtype=wide_dtype(clip))
        return empty, empty
    earlier, later = clip[:, :-1], clip[:, 1:]
    is_mirrored = mirror_check(clip)
    backward = _in_chunks(flow_network, earlier, later)
    if is_mirrored():
        return backward.flip(1), backward
    return _in_chunks(flow_network, later, earlier), backward


def chunk_pixels(device: torch.device) -> int:
    """How many pixels of frame pairs are estimated at once; one pair at a time may have more."""
    return CHUNK_PIXELS.get(device.type, GPU_CHUNK_PIXELS)


def _in_chunks(flow_network: nn.Module, current: Tensor, reference: Tensor) -> Tensor:
    """Runs the network on a limited number of pairs at a time; with gradients, on all at once.

    Args:
        flow_network: ``(current, reference) -> flow`` on batches of frames.
        current: (n, m, 3, h, w); it is never copied as a whole.
        reference: (n, m, 3, h, w); it is never copied as a whole.

    Returns:
        (n, m, 2, h, w).
    """
    n, m = current.shape[:2]

    def estimate(begin: int, end: int) -> Tensor:
        pairs = (frames[:, begin:end].flatten(0, 1) for frames in (current, reference))
        return flow_network(*pairs).unflatten(0, (n, end - begin))

    pixels = current[:, 0, 0].numel()
    at_once = m if torch.is_grad_enabled() else max(1, chunk_pixels(current.device) // pixels)
    return in_parts(estimate, m, at_once)


def mirror_check(clip: Tensor) -> Callable[[], bool]:
    """Starts to check whether the second half of every clip is its first half reversed.

    Returns:
        Waits for the answer. On a GPU this waits for the work that was queued before the check, but
        not for what was queued since. It gives False while shapes are traced. This only costs time,
        as the answer is used to save work.
    """
    half = clip.shape[1] // 2
    if clip.shape[1] % 2 or is_traced(clip):
        return lambda: False
    first, second = clip[:, :half], clip[:, half:].flip(1)
    if clip.device.type != "cuda":
        return lambda: torch.equal(first, second)
    answer = torch.empty((), dtype=torch.bool, pin_memory=True)
    answer.copy_((first == second).all(), non_blocking=True)
    copied = torch.cuda.current_stream(clip.device).record_event()

    def wait() -> bool:
        copied.synchronize()
        return bool(answer)

    return wait

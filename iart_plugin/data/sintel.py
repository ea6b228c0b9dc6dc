"""MPI-Sintel with ground-truth flow for training and testing alignment (Sec. 5, Sec. B.1).

:mod:`iart_plugin.data.sintel_files` describes the layout of the files.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from iart_plugin.data.degradation import bicubic_downsample
from iart_plugin.data.estimated_flow import EstimatedFlow
from iart_plugin.data.flow_grid import block_mean, downsample_flow, lands_inside
from iart_plugin.data.flow_io import read_flow
from iart_plugin.data.sintel_files import RENDERS, SintelFiles, clip_names, prepared_name
from iart_plugin.pictures import checked_size, read_picture

FLOW_SOURCES = ("gt", "spynet", "raft")


class SintelFlowDataset(torch.utils.data.Dataset):
    """Clips of Sintel with low-resolution frames and the flow between them.

    An item is a dict with these entries:

    * ``lq`` (t, 3, h, w) and ``gt`` (t, 3, scale h, scale w): RGB float32 in [0, 1];
    * ``flows`` (t - 1, 2, h, w): from frame i to frame i + 1, x then y, in low-resolution pixels,
      so that ``warp(lq[i + 1], flows[i])`` resembles ``lq[i]``;
    * ``valid`` (t - 1, 1, h, w), float32: 1 where that match exists, 0 where frame i + 1 does not
      show the pixel or the vector is not valid;
    * ``key``: ``<clip>/<number of the first frame>``.

    Args:
        root: The folder above ``training``.
        render: ``'clean'`` or ``'final'`` (with motion blur, fog and so on).
        clips: ``'train'``, ``'test'`` or a sequence of names. The split is read from
            ``root/split.json`` if it exists. Otherwise it is the paper's: ambush_5, market_6 and
            mountain_1 for testing, and the other 20 for training.
        num_frames: Length of a window; there is an item for every possible start in a clip. With
            ``None``, each clip is one item.
        scale: Factor between the two grids.
        flow: ``'gt'`` for ground truth, or ``'spynet'`` or ``'raft'`` for flow estimated between
            the low-resolution frames. Estimates are computed once and kept in ``cache_dir``
            together with a record of the weights.
        augment: Called with every item, for example
            :class:`~iart_plugin.data.augment.FlowAugmentation`.
        on_missing: With ``'error'``, the constructor raises an error that names the first missing
            file, except that without any folder of masks all pixels are valid. With ``'skip'``,
            windows that lack a frame or a ground-truth flow are left out, clips are split into
            their longest complete pieces, and all pixels of a missing mask are valid.
        flow_weights: Weights of the flow network. SPyNet needs a file; for RAFT, ``None`` means the
            weights that torchvision downloads.
        cache_dir: The folder of estimated flow; by default it is below ``root/training``.

    Raises:
        FileNotFoundError: If something that the arguments ask for is missing.
        ValueError: If an argument has an unknown value, no window is long enough, or ``cache_dir``
            holds flow of other weights or frames.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        render: str = "clean",
        clips: str | Sequence[str] = "train",
        num_frames: int | None = None,
        scale: int = 4,
        flow: str = "gt",
        augment: Callable[[dict], dict] | None = None,
        on_missing: str = "error",
        flow_weights: str | Path | None = None,
        cache_dir: str | Path | None = None,
    ) -> None:
        _check_choice("render", render, RENDERS)
        _check_choice("flow", flow, FLOW_SOURCES)
        _check_choice("on_missing", on_missing, ("error", "skip"))
        if num_frames is not None and num_frames < 1:
            raise ValueError(f"num_frames must be at least 1, got {num_frames}")
        if scale < 1:
            raise ValueError(f"scale must be at least 1, got {scale}")
        training = Path(root) / "training"
        if not training.is_dir():
            raise FileNotFoundError(
                f"{root} has no folder 'training'; give the folder that Sintel was unpacked to"
            )
        self.scale, self.augment = scale, augment
        self.files = SintelFiles(
            training=training,
            render=render,
            has_true_flow=flow == "gt",
            skips_missing=on_missing == "skip",
        )
        self.estimated = None
        if flow != "gt":
            folder = Path(cache_dir or training / f"flow_{flow}_{render}_x{scale}")
            self.estimated = EstimatedFlow(flow, flow_weights, folder)
            self.estimated.check({"render": render, "scale": scale})
        self.clips = clip_names(root, clips)
        self.windows = [
            window for clip in self.clips for window in self.files.windows(clip, num_frames)
        ]
        if not self.windows:
            raise ValueError(
                f"{training}: no run of {num_frames or 1} frames in '{render}' with its "
                f"flow in the clips {', '.join(self.clips)}"
            )

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict:
        window = self.windows[index]
        paths = [self.files.path(self.files.render, window.clip, n) for n in window.frames]
        high = [_read_whole(path) for path in paths]
        size = high[0].shape[:2]
        for path, frame in zip(paths, high, strict=True):
            _check_size(path, frame, size)
        height, width = (side // self.scale for side in size)
        if not height or not width:
            raise ValueError(f"{paths[0]}: a frame of {size} holds no block of {self.scale}")
        low = torch.stack(
            [
                _to_tensor(self._low(window.clip, n, frame)[:height, :width])
                for n, frame in zip(window.frames, high, strict=True)
            ]
        )
        flows = [
            self._flow_pair(window.clip, n, size, low[i : i + 2])
            for i, n in enumerate(window.frames[:-1])
        ]
        sample = {
            "lq": low,
            "gt": torch.stack(
                [_to_tensor(f[: height * self.scale, : width * self.scale]) for f in high]
            ),
            "flows": _stack([flow for flow, _ in flows], (0, 2, height, width)),
            "valid": _stack([valid for _, valid in flows], (0, 1, height, width)),
            "key": f"{window.clip}/{window.first:04d}",
        }
        return sample if self.augment is None else self.augment(sample)

    def _low(self, clip: str, number: int, high: np.ndarray) -> np.ndarray:
        """The low-resolution frame, read from a prepared file or made now: uint8 RGB."""
        path = self.files.path(prepared_name(self.files.render, self.scale), clip, number)
        if not path.exists():
            return bicubic_downsample(high, self.scale)
        low = _read_whole(path)
        expected = tuple(-(-side // self.scale) for side in high.shape[:2])
        if low.shape[:2] != expected:
            raise ValueError(
                f"{path}: size {low.shape[:2]}, a frame of {high.shape[:2]} gives {expected}; "
                "delete it and run iart-plugin prepare-sintel"
            )
        return low

    def _flow_pair(
        self, clip: str, number: int, size: tuple[int, int], low_pair: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Flow ``(2, h, w)`` and validity ``(1, h, w)`` from frame ``number`` to the next.

        ``size`` is the height and width of the high-resolution frames, and ``low_pair``,
        (2, 3, h, w), holds the two low-resolution frames.
        """
        void, hidden = (self._mask(kind, clip, number, size) for kind in ("invalid", "occlusions"))
        if self.estimated is None:
            path = self.files.path("flow", clip, number)
            flow = read_flow(path)
            _check_size(path, flow, size)
            low, valid = downsample_flow(flow, self.scale, void=void, hidden=hidden)
        else:
            low = self.estimated.between(clip, number, low_pair)
            shape = tuple(side * self.scale for side in low.shape[:2])
            matched = (~void & ~hidden)[: shape[0], : shape[1]].astype(np.float64)
            valid = (block_mean(matched, self.scale) >= 0.5) & lands_inside(low)
        flow_tensor = torch.from_numpy(np.ascontiguousarray(low.transpose(2, 0, 1)))
        return flow_tensor, torch.from_numpy(valid[None].astype(np.float32))

    def _mask(self, kind: str, clip: str, number: int, size: tuple[int, int]) -> np.ndarray:
        """Read a mask as bool ``(h, w)``; it is all False if the file is missing."""
        path = self.files.path(kind, clip, number)
        if not path.exists():  # only with on_missing='skip', or beside estimated flow
            return np.zeros(size, dtype=bool)
        mask = _read_whole(path, grey=True)
        _check_size(path, mask, size)
        return mask > 127


def _read_whole(path: Path, *, grey: bool = False) -> np.ndarray:
    """Read a picture after checking that it is complete, which OpenCV does not check."""
    checked_size(path)
    return read_picture(path, grey=grey)


def _to_tensor(frame: np.ndarray) -> Tensor:
    """uint8 ``(h, w, 3)`` to float32 ``(3, h, w)`` in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frame.transpose(2, 0, 1))).float() / 255


def _stack(tensors: list[Tensor], empty_shape: tuple[int, ...]) -> Tensor:
    return torch.stack(tensors) if tensors else torch.empty(empty_shape)


def _check_size(path: Path, field: np.ndarray, size: tuple[int, int]) -> None:
    if field.shape[:2] != tuple(size):
        raise ValueError(f"{path}: size {field.shape[:2]} for frames of {tuple(size)}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")

"""MPI-Sintel with ground-truth flow for training and testing alignment (Sec. 5, Sec. B.1).

The layout is Sintel's own, and :mod:`iart_plugin.data.synthetic` writes the same::

    root/training/{clean,final}/<clip>/frame_0001.png ...       frames, 8-bit RGB
    root/training/flow/<clip>/frame_0001.flo ...                frame t to frame t + 1
    root/training/occlusions/<clip>/frame_0001.png ...          255: not seen in frame t + 1
    root/training/invalid/<clip>/frame_0001.png ...             255: the vector itself is void
    root/training/clean_bicubic_x4/<clip>/frame_0001.png ...    optional, made by prepare-sintel
    root/split.json                                             optional {"train": [], "test": []}
"""

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from iart_plugin.data.degradation import bicubic_downsample
from iart_plugin.data.flow_io import read_flow, write_flow
from iart_plugin.data.recipe import record_recipe
from iart_plugin.pictures import checked_size, read_picture, write_png
from iart_plugin.weight_files import file_digest

# Sintel's training clips and their numbers of frames: 1064 frames, 1041 flow fields.
SINTEL_FRAMES = {
    **{
        f"{scene}_{take}": 50
        for scene, takes in {
            "alley": (1, 2),
            "ambush": (5, 7),
            "bamboo": (1, 2),
            "bandage": (1, 2),
            "cave": (2, 4),
            "market": (2, 5),
            "mountain": (1,),
            "shaman": (2, 3),
            "sleeping": (1, 2),
            "temple": (2, 3),
        }.items()
        for take in takes
    },
    "ambush_2": 21,
    "ambush_4": 33,
    "ambush_6": 20,
    "market_6": 40,
}
TEST_CLIPS = ("ambush_5", "market_6", "mountain_1")
RENDERS = ("clean", "final")
FLOW_SOURCES = ("gt", "spynet", "raft")
MASKS = ("occlusions", "invalid")


@dataclass(frozen=True)
class Window:
    """Consecutive frames of one clip, numbered from ``first`` (Sintel counts from 1)."""

    clip: str
    first: int
    length: int

    @property
    def frames(self) -> range:
        return range(self.first, self.first + self.length)


class SintelFlowDataset(torch.utils.data.Dataset):
    """Clips of Sintel with low-resolution frames and the flow between them.

    An item is a dict of

    * ``lq`` (t, 3, h, w) and ``gt`` (t, 3, scale h, scale w): RGB float32 in [0, 1];
    * ``flows`` (t - 1, 2, h, w): from frame i to frame i + 1, x then y, in low-resolution pixels,
      so that ``warp(lq[i + 1], flows[i])`` lands on ``lq[i]``;
    * ``valid`` (t - 1, 1, h, w): 1 where that match exists, 0 where frame i + 1 does not show the
      pixel, or its vector is void; float32;
    * ``key``: ``<clip>/<number of the first frame>``.

    Args:
        root: The folder above ``training``.
        render: ``'clean'`` or ``'final'`` (with motion blur, fog and so on).
        clips: ``'train'``, ``'test'`` or a sequence of names. The split is that of
            ``root/split.json`` where there is one, else the paper's: ambush_5, market_6 and
            mountain_1 for testing and the other 20 for training.
        num_frames: Length of a window; every start in a clip is an item. ``None``: a clip is an
            item.
        scale: Factor between the two grids.
        flow: ``'gt'``, or ``'spynet'`` or ``'raft'`` estimated between the low-resolution
            frames. Estimates are computed once and kept in ``cache_dir``, which records the
            weights that they are from.
        augment: Called with every item, for example
            :class:`~iart_plugin.data.augment.FlowAugmentation`.
        on_missing: With ``'error'``, any missing file stops the construction by name; a set
            without any folder of masks is taken as all valid. With
            ``'skip'``, windows that lack a frame or a ground-truth flow are left out, a clip is
            taken in its longest pieces, and a missing mask counts as all valid.
        flow_weights: Weights of the flow network. SPyNet needs a file; for RAFT ``None`` means
            torchvision's own download.
        cache_dir: Where estimated flow is kept; by default below ``root/training``.

    Raises:
        FileNotFoundError: If something that the arguments ask for is missing.
        ValueError: If an argument is none of the above, no window is long enough, or ``cache_dir``
            holds the flow of other weights or frames.
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
        self.root = Path(root)
        self.training = self.root / "training"
        if not self.training.is_dir():
            raise FileNotFoundError(
                f"{self.root} has no folder 'training'; give the folder that Sintel was unpacked to"
            )
        self.render, self.scale, self.flow_source = render, scale, flow
        self.augment, self.skips_missing = augment, on_missing == "skip"
        self.flow_weights = flow_weights
        default_cache = self.training / f"flow_{flow}_{render}_x{scale}"
        self.cache_dir = Path(cache_dir) if cache_dir is not None else default_cache
        if flow != "gt":
            self._check_cache()
        self.clips = clip_names(self.root, clips)
        self.windows = [
            window for clip in self.clips for window in self._windows_of(clip, num_frames)
        ]
        if not self.windows:
            raise ValueError(
                f"{self.training}: no run of {num_frames or 1} frames in '{render}' with its "
                f"flow in the clips {', '.join(self.clips)}"
            )

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict:
        window = self.windows[index]
        high = [read_picture(self._path(self.render, window.clip, n)) for n in window.frames]
        size = high[0].shape[:2]
        height, width = (side // self.scale for side in size)
        if not height or not width:
            raise ValueError(f"{window.clip}: frames of {size} hold no block of {self.scale}")
        low = [
            self._low(window.clip, n, frame)[:height, :width]
            for n, frame in zip(window.frames, high, strict=True)
        ]
        flows = [self._flow_pair(window.clip, n, size) for n in window.frames[:-1]]
        sample = {
            "lq": torch.stack([_to_tensor(frame) for frame in low]),
            "gt": torch.stack(
                [_to_tensor(f[: height * self.scale, : width * self.scale]) for f in high]
            ),
            "flows": _stack([flow for flow, _ in flows], (0, 2, height, width)),
            "valid": _stack([valid for _, valid in flows], (0, 1, height, width)),
            "key": f"{window.clip}/{window.first:04d}",
        }
        return sample if self.augment is None else self.augment(sample)

    def _check_cache(self) -> None:
        """Keep the estimates of different weights apart; a complete cache needs no weights."""
        weights = weights_of_flow(self.flow_source, self.flow_weights)
        if weights is None:
            return
        made_with = {"flow": self.flow_source, "render": self.render, "scale": self.scale}
        try:
            record_recipe(self.cache_dir, {**made_with, "weights": weights}, files="*/*.flo")
        except PermissionError as error:
            raise PermissionError(
                f"{self.cache_dir} cannot be written to; pass a writable cache_dir"
            ) from error

    # What there is ---------------------------------------------------------------------------

    def _windows_of(self, clip: str, num_frames: int | None) -> list[Window]:
        runs = self._complete_runs(clip)
        if num_frames is None:
            return [Window(clip, run[0], len(run)) for run in runs if self._is_usable(run)]
        return [
            Window(clip, first, num_frames)
            for run in runs
            for first in run
            if first + num_frames <= run[-1] + 1
        ]

    def _is_usable(self, run: list[int]) -> bool:
        # A frame that lost all its flow is no clip, unless the clip really has one frame.
        return len(run) > 1 or not self.skips_missing

    def _complete_runs(self, clip: str) -> list[list[int]]:
        """Lists of consecutive frame numbers between which every flow needed is there."""
        folder = self.training / self.render / clip
        numbers = sorted(int(p.stem[6:]) for p in folder.glob("frame_[0-9]*.png"))
        if not self.skips_missing:
            self._check_complete(clip, numbers)
        runs: list[list[int]] = []
        for number in numbers:
            follows = runs and runs[-1][-1] == number - 1
            if follows and (
                self.flow_source != "gt" or self._path("flow", clip, number - 1).exists()
            ):
                runs[-1].append(number)
            else:
                runs.append([number])
        if not runs:
            warnings.warn(f"{folder}: no frames, clip skipped", stacklevel=4)
        return runs

    def _check_complete(self, clip: str, numbers: list[int]) -> None:
        count = max(numbers, default=1)
        wanted = [self._path(self.render, clip, n) for n in range(1, count + 1)]
        if self.flow_source == "gt":
            # A set made without masks has no folder of them; a folder with gaps is a fault.
            masks = [kind for kind in MASKS if (self.training / kind).is_dir()]
            wanted += [
                self._path(kind, clip, n) for n in range(1, count) for kind in ("flow", *masks)
            ]
        missing = [path for path in wanted if not path.exists()]
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} files of clip {clip} are missing, the first: {missing[0]}; "
                f"complete it, or pass on_missing='skip'"
            )

    def _path(self, kind: str, clip: str, number: int) -> Path:
        suffix = "flo" if kind == "flow" else "png"
        return self.training / kind / clip / f"frame_{number:04d}.{suffix}"

    # Frames and flow -------------------------------------------------------------------------

    def _low(self, clip: str, number: int, high: np.ndarray) -> np.ndarray:
        """The low-resolution frame, prepared or made now: uint8 RGB."""
        path = self._path(prepared_name(self.render, self.scale), clip, number)
        if not path.exists():
            return bicubic_downsample(high, self.scale)
        low = read_picture(path)
        expected = tuple(-(-side // self.scale) for side in high.shape[:2])
        if low.shape[:2] != expected:
            raise ValueError(
                f"{path}: size {low.shape[:2]}, a frame of {high.shape[:2]} gives {expected}; "
                "delete it and run iart-plugin prepare-sintel"
            )
        return low

    def _flow_pair(self, clip: str, number: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Flow ``(2, h, w)`` and validity ``(1, h, w)`` from frame ``number`` to the next."""
        void, hidden = (self._mask(kind, clip, number, size) for kind in ("invalid", "occlusions"))
        if self.flow_source == "gt":
            path = self._path("flow", clip, number)
            flow = read_flow(path)
            _check_size(path, flow, size)
            low, valid = downsample_flow(flow, self.scale, void=void, hidden=hidden)
        else:
            low = self._estimated_flow(clip, number)
            shape = tuple(side * self.scale for side in low.shape[:2])
            matched = (~void & ~hidden)[: shape[0], : shape[1]].astype(np.float64)
            valid = (block_mean(matched, self.scale) >= 0.5) & lands_inside(low)
        flow_tensor = torch.from_numpy(np.ascontiguousarray(low.transpose(2, 0, 1)))
        return flow_tensor, torch.from_numpy(valid[None].astype(np.float32))

    def _mask(self, kind: str, clip: str, number: int, size: tuple[int, int]) -> np.ndarray:
        """A mask as bool ``(h, w)``; all False where the file is missing."""
        path = self._path(kind, clip, number)
        if not path.exists():  # only with on_missing='skip', or beside estimated flow
            return np.zeros(size, dtype=bool)
        mask = read_picture(path, grey=True)
        _check_size(path, mask, size)
        return mask > 127

    def _estimated_flow(self, clip: str, number: int) -> np.ndarray:
        path = self.cache_dir / clip / f"frame_{number:04d}.flo"
        if not path.exists():
            frames = []
            for n in (number, number + 1):
                high = read_picture(self._path(self.render, clip, n))
                height, width = (side // self.scale for side in high.shape[:2])
                frames.append(_to_tensor(self._low(clip, n, high)[:height, :width])[None])
            with torch.no_grad():
                flow = self._estimator(*frames)[0].permute(1, 2, 0).numpy()
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_flow(path, flow)
            except PermissionError as error:
                raise PermissionError(
                    f"{path} cannot be written; pass a writable cache_dir"
                ) from error
        return read_flow(path)

    @cached_property
    def _estimator(self) -> torch.nn.Module:
        # Built at first use: a complete cache needs neither the weights nor the memory.
        from iart_plugin.flow import build_flow_estimator

        return build_flow_estimator(self.flow_source, self.flow_weights)


def weights_of_flow(flow: str, path: str | Path | None) -> str | None:
    """What tells the estimates of different weights apart: a digest, None where there is no file.

    Args:
        flow: ``'spynet'`` or ``'raft'``.
        path: The weights that were asked for; a warning says so if they are not there.
    """
    if path is None:
        return "torchvision's" if flow == "raft" else None
    if Path(path).is_file():
        return file_digest(path)
    warnings.warn(
        f"flow_weights {path} is not a file, so {flow} flow that was estimated before is used "
        "whatever weights it is from; correct the path unless the file was removed on purpose",
        stacklevel=4,
    )
    return None


def prepare_low_resolution(
    root: str | Path, *, render: str = "clean", scale: int = 4, clips: Sequence[str]
) -> Iterator[tuple[Path, bool]]:
    """Write the low-resolution frames of some clips beside the originals.

    A frame that is there already, readable and of the right size, is kept, so that a stopped run
    goes on where it was.

    Args:
        root: The folder above ``training``.
        render: ``'clean'`` or ``'final'``.
        scale: Factor to shrink by.
        clips: Names of clips.

    Yields:
        The path of each low-resolution frame and whether it was written now.
    """
    training = Path(root) / "training"
    for clip in clips:
        for path in sorted((training / render / clip).glob("frame_[0-9]*.png")):
            target = training / prepared_name(render, scale) / clip / path.name
            frame = read_picture(path)
            expected = tuple(-(-side // scale) for side in frame.shape[:2])
            if _has_size(target, expected):
                yield target, False
                continue
            write_png(target, bicubic_downsample(frame, scale))
            yield target, True


def _has_size(path: Path, size: tuple[int, int]) -> bool:
    """Whether a whole picture of this height and width is there."""
    try:
        return checked_size(path) == size
    except (FileNotFoundError, ValueError):
        return False


def clip_names(root: Path, clips: str | Sequence[str]) -> list[str]:
    """Names of the clips that ``'train'``, ``'test'`` or a list of names stands for."""
    split_file = Path(root) / "split.json"
    if split_file.exists():
        split = json.loads(split_file.read_text(encoding="utf-8"))
    else:
        train = sorted(set(SINTEL_FRAMES) - set(TEST_CLIPS))
        split = {"train": train, "test": list(TEST_CLIPS)}
    if isinstance(clips, str):
        if clips not in split:
            raise ValueError(f"clips must be one of {sorted(split)} or names, got {clips!r}")
        return list(split[clips])
    if not clips:
        raise ValueError("clips is an empty list")
    return list(clips)


def truncated(root: str | Path, render: str, clip: str) -> str | None:
    """Says so if one of Sintel's clips has not all its frames, which gaps alone do not show."""
    folder = Path(root) / "training" / render / clip
    expected = None if (Path(root) / "split.json").exists() else SINTEL_FRAMES.get(clip)
    found = len(list(folder.glob("frame_[0-9]*.png")))
    if expected is None or found == expected:
        return None
    return f"{folder}: {found} frames where Sintel has {expected}"


def prepared_name(render: str, scale: int) -> str:
    """Folder beside ``clean`` and ``final`` that holds prepared low-resolution frames."""
    return f"{render}_bicubic_x{scale}"


def downsample_flow(
    flow: np.ndarray,
    scale: int,
    *,
    void: np.ndarray,
    hidden: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Bring ground-truth flow to the low-resolution grid.

    A low-resolution pixel stands for a block of ``scale`` x ``scale`` pixels. Its vector is the
    mean of the block's vectors that are not void, divided by ``scale``, or zero where all are
    void. Rows and columns that fill no block are dropped.

    Args:
        flow: ``(h, w, 2)`` in high-resolution pixels.
        scale: Factor between the grids.
        void: bool ``(h, w)``, where the vector means nothing.
        hidden: bool ``(h, w)``, where the pixel is not seen in the next frame.

    Returns:
        Flow ``(h // scale, w // scale, 2)`` float32 in low-resolution pixels, and bool
        ``(h // scale, w // scale)``: at least half of the block has a match, which is inside the
        frame.
    """
    height, width = (side // scale * scale for side in flow.shape[:2])
    flow = flow[:height, :width]
    usable = np.isfinite(flow).all(axis=2) & ~void[:height, :width]
    matched = usable & ~hidden[:height, :width]
    weight = usable[..., None].astype(np.float64)
    total = block_mean(np.where(weight > 0, flow, 0.0), scale)
    low = total / np.maximum(block_mean(weight, scale), 1e-12) / scale
    low = low.astype(np.float32)
    valid = (block_mean(matched.astype(np.float64), scale) >= 0.5) & lands_inside(low)
    return low, valid


def block_mean(image: np.ndarray, scale: int) -> np.ndarray:
    """Mean over blocks of ``scale`` x ``scale``: ``(h, w[, c])`` to ``(h / s, w / s[, c])``."""
    height, width = (side // scale for side in image.shape[:2])
    blocks = image.reshape(height, scale, width, scale, *image.shape[2:])
    return blocks.mean(axis=(1, 3))


def lands_inside(flow: np.ndarray) -> np.ndarray:
    """Whether each vector of ``(h, w, 2)`` points into the frame, bool ``(h, w)``."""
    height, width = flow.shape[:2]
    x = np.arange(width)[None, :] + flow[..., 0]
    y = np.arange(height)[:, None] + flow[..., 1]
    # A pixel covers half a step on either side of its centre.
    return (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)


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

"""Running a network over clips: tiles, precision, self-ensemble, and retreat when memory ends."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from iart_plugin.flow import clip_flows
from iart_plugin.out_of_memory import is_out_of_memory

from .chunks import Clip, iter_clips
from .memory import Plan, choose_plan
from .scenes import SceneDetector
from .tiles import Blend, Tiling

logger = logging.getLogger(__name__)

SCALE = 4
SMALLEST_TILE = 64  # low-resolution pixels; below this a tile is mostly overlap
Network = nn.Module | Callable[[Tensor], Tensor]
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS = ("fp32", *HALF)


def pick_device(name: str | torch.device | None = None) -> torch.device:
    """The device asked for, or the best there is: cuda, mps, cpu.

    Raises:
        ValueError: The device asked for is not there.
    """
    if name is None or str(name) == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        # Before PyTorch 2.13 mps has no grid_sample that repeats the border, as SPyNet needs it.
        mps = torch.backends.mps.is_available() and torch.__version__ >= "2.13"
        return torch.device("mps" if mps else "cpu")
    device = torch.device(name)
    there = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if not there.get(device.type, lambda: True)():
        raise ValueError(f"device {name}: not available with this PyTorch; cpu always is")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {name}: there are {torch.cuda.device_count()}, counted from 0")
    return device


def own_device(network: Network) -> torch.device | None:
    """Where the caller has put a network, if that is not the CPU."""
    parameters = network.parameters() if isinstance(network, nn.Module) else iter(())
    device = next((parameter.device for parameter in parameters), torch.device("cpu"))
    return None if device.type == "cpu" else device


def pick_precision(name: str | None, device: torch.device) -> str:
    """The precision asked for, or the device's: bf16 or fp16 on cuda, fp32 elsewhere.

    Raises:
        ValueError: An unknown name.
    """
    if name is None or name == "auto":
        if device.type != "cuda":
            return "fp32"
        # Not is_bf16_supported(), which counts emulation, slower than float32, as support.
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
    if name not in PRECISIONS:
        raise ValueError(f"precision {name!r}: choose one of {', '.join(PRECISIONS)}")
    return name


@dataclass
class Engine:
    """Upscales clips.

    Attributes:
        network: (1, t, 3, h, w) in [0, 1] to (1, t, 3, 4h, 4w); one of this package's networks is
            run frame by frame and given flow that was found on whole frames.
        device: Where it runs.
        precision: "fp32", "bf16" or "fp16".
        tiling: Tiles; replaced by a finer one when memory runs out.
        overlap: Warm-up frames where a clip must be halved.
        self_ensemble: Average over the eight flips and turns of the picture.
    """

    network: Network
    device: torch.device
    precision: str
    tiling: Tiling
    overlap: int
    self_ensemble: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.network, nn.Module):
            self.network = self.network.to(self.device).eval()
        self._longest: int | None = None  # frames to keep at a time, once more did not fit

    def run(self, clip: Clip[np.ndarray]) -> Iterator[np.ndarray]:
        """The frames that ``clip`` keeps, upscaled, in its dtype: (4h, 4w, 3), as they are made.

        Memory that runs out is answered with smaller tiles, then shorter clips, from the frame on
        that was being made.

        Raises:
            MemoryError: Not even the smallest tile and a single frame fit.
        """
        while clip.start < clip.stop:
            part = clip.trimmed(self.overlap)
            while self._longest is not None and part.stop - part.start > self._longest:
                part = part.halves(self.overlap)[0]
            reason = ""
            try:
                for frame in self._frames(part):
                    clip = clip.without_first()
                    yield frame
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            if reason:  # outside the handler, whose traceback keeps the attempt's tensors alive
                self._retreat(part, reason)

    def _retreat(self, clip: Clip[np.ndarray], reason: str) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        height, width = clip.frames[0].shape[:2]
        finer = self.tiling.halved(height, width, smallest=SMALLEST_TILE)
        kept = clip.stop - clip.start
        if finer is not None:
            logger.warning("out of memory; tiles of %dx%d from here on", *finer.size)
            self.tiling = finer
        elif kept > 1:
            self._longest = kept // 2
            logger.warning("out of memory; %d frames at a time from here on", self._longest)
        else:
            height, width = self.tiling.size
            raise MemoryError(
                f"a single frame in tiles of {height}x{width} does not fit the memory of "
                f"{self.device}; use a smaller --warm-up or --tile, or --device cpu ({reason})"
            )

    def _frames(self, clip: Clip[np.ndarray]) -> Iterator[np.ndarray]:
        dtype = clip.frames[0].dtype
        lqs = to_tensor(clip.frames).to(self.device)
        make = self._ensemble if self.self_ensemble else self._tiled
        for frame in self._stepwise(make(lqs, clip.kept, self.tiling)):
            yield to_array(frame, dtype)

    def _stepwise(self, frames: Iterator[Tensor]) -> Iterator[Tensor]:
        """Run each step without gradients and in this precision, but not the code between."""
        half = HALF.get(self.precision)
        while True:
            with (
                torch.no_grad(),
                torch.autocast(self.device.type, dtype=half, enabled=half is not None),
            ):
                frame = next(frames, None)
            if frame is None:
                return
            yield frame

    def _ensemble(self, lqs: Tensor, kept: slice, tiling: Tiling) -> Iterator[Tensor]:
        total: list[Tensor] = []
        for turns in range(4):
            for mirrored in (False, True):
                view = lqs.rot90(turns, (-2, -1))
                view = view.flip(-1) if mirrored else view
                cut = tiling.turned() if turns % 2 else tiling
                for i, frame in enumerate(self._tiled(view, kept, cut)):
                    frame = frame.to("cpu", torch.float32)
                    frame = frame.flip(-1) if mirrored else frame
                    frame = frame.rot90(-turns, (-2, -1))
                    if i == len(total):
                        total.append(torch.zeros_like(frame))
                    total[i] += frame / 8
        yield from total

    def _tiled(self, lqs: Tensor, kept: slice, tiling: Tiling) -> Iterator[Tensor]:
        """Frames (3, 4h, 4w), float32 on the CPU where they are put together from tiles."""
        height, width = lqs.shape[-2:]
        boxes = tiling.boxes(height, width)
        if len(boxes) == 1:
            yield from self._network_frames(lqs, None, kept)
            return
        flows = self._flows(lqs)
        blend = Blend(tiling, height, width, SCALE)
        for rows, columns in boxes:
            part = (..., rows, columns)
            blend.begin((rows, columns))
            here = None if flows is None else (flows[0][part], flows[1][part])
            for i, tile in enumerate(self._network_frames(lqs[part], here, kept)):
                blend.add(i, tile.to("cpu", torch.float32))
        yield from blend.result()

    def _flows(self, lqs: Tensor) -> tuple[Tensor, Tensor] | None:
        """Flow between whole frames: estimated on tiles, it would differ at the seams."""
        spynet = getattr(self.network, "spynet", None)
        return None if spynet is None else clip_flows(spynet, lqs)

    def _network_frames(
        self, lqs: Tensor, flows: tuple[Tensor, Tensor] | None, kept: slice
    ) -> Iterator[Tensor]:
        forward_iter = getattr(self.network, "forward_iter", None)
        if forward_iter is None:
            frames: Iterable[Tensor] = self.network(lqs)[:, kept].unbind(1)
        else:
            frames = islice(forward_iter(lqs, flows), kept.start, kept.stop)
        expected = (SCALE * lqs.shape[-2], SCALE * lqs.shape[-1])
        for frame in frames:
            if tuple(frame.shape[-2:]) != expected:
                raise ValueError(
                    f"the network made {tuple(frame.shape[-2:])} of {tuple(lqs.shape[-2:])}; it "
                    f"must multiply height and width by {SCALE}"
                )
            yield frame[0]


def to_tensor(frames: list[np.ndarray]) -> Tensor:
    """(1, t, 3, h, w) float32 in [0, 1] of (h, w, 3) uint8, uint16 or float frames."""
    stacked = np.stack(frames)
    peak = np.iinfo(stacked.dtype).max if stacked.dtype.kind == "u" else 1.0
    values = torch.from_numpy(stacked.astype(np.float32))
    return values.div_(peak).permute(0, 3, 1, 2)[None].contiguous()


def to_array(frame: Tensor, dtype: np.dtype) -> np.ndarray:
    """(h, w, 3) of ``dtype`` from (3, h, w) in [0, 1]; clipped, and rounded for integers.

    On the frame's device: 8 bits are a quarter of what would have to be copied from a GPU.
    """
    frame = frame.float().clamp(0, 1).permute(1, 2, 0)
    if dtype.kind == "u":
        frame = (frame * np.iinfo(dtype).max).round_()
        frame = frame.to(torch.uint8 if dtype == np.uint8 else torch.int32)
    return np.ascontiguousarray(frame.cpu().numpy().astype(dtype, copy=False))


def mark_scenes(
    frames: Iterable[np.ndarray], *, enabled: bool = True
) -> Iterator[tuple[np.ndarray, bool]]:
    """Each frame with whether it begins a new scene."""
    detector = SceneDetector()
    for frame in frames:
        yield frame, enabled and detector.is_cut(frame)


def upscale(
    frames: Iterable[np.ndarray],
    model: Network | str,
    *,
    weights: str | None = None,
    chunk: int | None = None,
    warm_up: int = 10,
    tile: int | tuple[int, int] | None = None,
    overlap: int = 24,
    scene_detection: bool = True,
    device: str | torch.device | None = None,
    precision: str | None = None,
    self_ensemble: bool = False,
) -> Iterator[np.ndarray]:
    """Upscale frames by 4, lazily: frame i comes once the frames of its chunk have been taken.

    Args:
        frames: (h, w, 3) R'G'B' arrays of one size: uint8, uint16, or float in [0, 1].
        model: A network, any callable from (1, t, 3, h, w) to (1, t, 3, 4h, 4w), or a name for
            :func:`iart_plugin.inference.load_model`.
        weights: Checkpoint for a model given by name.
        chunk: Frames to keep of each clip; by free memory if None.
        warm_up: Frames taken before and after a chunk so that the recurrence has settled.
        tile: Low-resolution pixels of a tile's sides; by free memory if None, 0 for whole frames.
        overlap: Low-resolution pixels that neighbouring tiles share.
        scene_detection: Reset the recurrence at scene cuts.
        device: "cuda", "mps", "cpu", or None for the network's own, for one on the CPU the best.
        precision: "fp32", "bf16", "fp16", or None for the device's.
        self_ensemble: Average over flips and turns; eight times the work.

    Yields:
        (4h, 4w, 3) arrays, one a frame, in the dtype of ``frames``.

    Raises:
        ValueError: Frames that are not (h, w, 3), or options that do not fit each other.
        MemoryError: Not even one frame in the smallest tiles fits.
    """
    from .models import load_model

    network = load_model(model, weights).network if isinstance(model, str) else model
    where = pick_device(own_device(network) if device is None else device)
    precision = pick_precision(precision, where)

    def generate() -> Iterator[np.ndarray]:
        checked = _checked(frames)
        first = next(checked, None)
        if first is None:
            return
        plan = choose_plan(
            first.shape[0], first.shape[1], network, device=where, precision=precision,
            chunk=chunk, warm_up=warm_up, tile=tile, overlap=overlap,
            self_ensemble=self_ensemble,
        )  # fmt: skip
        engine = make_engine(network, plan, where, precision, self_ensemble)
        marked = mark_scenes(_chain(first, checked), enabled=scene_detection)
        for clip in iter_clips(marked, chunk=plan.chunk, overlap=plan.warm_up):
            yield from engine.run(clip)

    return generate()


def make_engine(
    network: Network, plan: Plan, device: torch.device, precision: str, self_ensemble: bool
) -> Engine:
    """An engine that follows a plan."""
    return Engine(network, device, precision, plan.tiling, plan.warm_up, self_ensemble)


def _chain(first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from rest


def _checked(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    expected: tuple[tuple[int, ...], np.dtype] | None = None
    for index, frame in enumerate(frames):
        if frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
            raise ValueError(f"frame {index} is {frame.shape}; frames must be (h, w, 3)")
        if frame.dtype.kind != "f" and frame.dtype not in (np.uint8, np.uint16):
            raise ValueError(
                f"frame {index} is {frame.dtype}; use uint8, uint16 or float in [0, 1]"
            )
        expected = expected or (frame.shape, frame.dtype)
        if (frame.shape, frame.dtype) != expected:
            raise ValueError(
                f"frame {index} is {frame.shape} {frame.dtype}, the first was {expected[0]} "
                f"{expected[1]}; all frames must be alike"
            )
        yield frame

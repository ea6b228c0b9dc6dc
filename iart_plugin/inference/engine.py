"""Runs a network over clips, in tiles and with less work at a time when memory runs out."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from iart_plugin.flow import clip_flows
from iart_plugin.out_of_memory import is_out_of_memory

from .arrays import ArrayCopy, smaller, to_tensor
from .chunks import Clip
from .compiling import compile_branches
from .devices import HALF, Network
from .memory import Plan
from .tiles import Blend, Tiling

logger = logging.getLogger(__name__)

SCALE = 4
SMALLEST_TILE = 64  # low-resolution pixels; a smaller tile would be mostly overlap


class NotFiniteError(ValueError):
    """The network's result holds NaN or infinity, which a picture cannot show."""


@dataclass
class Engine:
    """Upscales clips.

    Attributes:
        network: Maps (1, t, 3, h, w) in [0, 1] to (1, t, 3, 4h, 4w). This package's networks give
            their frames one at a time, and are given flow estimated on whole frames.
        device: The device that the network runs on.
        precision: "fp32", "bf16" or "fp16".
        tiling: The tiles that frames are cut into; finer ones replace them if memory runs out.
        overlap: The most warm-up frames on each side of a chunk.
        self_ensemble: Whether to average over the eight flips and quarter turns of the picture.
        size: Height and width to reduce the results to; None keeps 4 times the source's size.
        compile: Whether to compile the network's branches, see :mod:`.compiling`.
    """

    network: Network
    device: torch.device
    precision: str
    tiling: Tiling
    overlap: int
    self_ensemble: bool = False
    size: tuple[int, int] | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.network, nn.Module):
            self.network = self.network.to(self.device).eval()
            if self.device.type == "cuda":  # its convolutions are fastest in this memory layout
                self.network = self.network.to(memory_format=torch.channels_last)
            if self.compile:
                compile_branches(self.network)
        self._longest: int | None = None  # the most frames in a chunk, once a longer one ran out

    def run(self, clip: Clip[np.ndarray]) -> Iterator[np.ndarray]:
        """Upscale the frames that ``clip`` keeps, and yield each (4h, 4w, 3) as soon as it is made.

        The results have the clip's dtype. If memory runs out, the engine goes on from the frame
        that it was making, first with smaller tiles and then with shorter clips. If a half
        precision overflows, it makes the rest of the clip in float32.

        Raises:
            MemoryError: Not even a single frame in the smallest tiles fits.
            NotFiniteError: A frame has NaN or infinity in float32 too.
        """
        precision = self.precision
        while clip.start < clip.stop:
            part = clip.trimmed(self.overlap)
            while self._longest is not None and part.stop - part.start > self._longest:
                part = part.halves(self.overlap)[0]
            reason, finite = "", True
            try:
                for frame in self._frames(part, precision):
                    finite = frame is not None
                    if not finite:
                        break
                    clip = clip.without_first()
                    yield frame
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            if reason:  # not in the except block: there the traceback keeps the tensors alive
                self._retreat(part, reason)
            if not finite:
                precision = _more_than(precision, clip.start)

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

    def _frames(self, clip: Clip[np.ndarray], precision: str) -> Iterator[np.ndarray | None]:
        """Yield pictures in main memory, or None for a picture that is not finite.

        A GPU works on the next picture while one is being copied from it.
        """
        dtype = clip.frames[0].dtype
        lqs = to_tensor(clip.frames, self.device)
        make = self._ensemble if self.self_ensemble else self._tiled
        behind = 1 if self.device.type == "cuda" else 0
        copies: deque[ArrayCopy] = deque()
        for frame in self._stepwise(make(lqs, clip.kept, self.tiling), precision):
            copies.append(ArrayCopy(smaller(frame, self.size), dtype))
            if len(copies) > behind:
                yield copies.popleft().result()
        for copy in copies:
            yield copy.result()

    def _stepwise(self, frames: Iterator[Tensor], precision: str) -> Iterator[Tensor]:
        """Make each frame without gradients and in a precision; neither affects the caller's code.

        The settings are left before each frame is yielded and entered again for the next one. All
        frames count as nested in one autocast context, so autocast keeps the weights that it has
        cast instead of casting all of them again for every frame.
        """
        half = HALF.get(precision)
        torch.autocast_increment_nesting()
        try:
            while True:
                with (
                    torch.no_grad(),
                    torch.autocast(self.device.type, dtype=half, enabled=half is not None),
                ):
                    frame = next(frames, None)
                if frame is None:
                    return
                yield frame
        finally:
            if torch.autocast_decrement_nesting() == 0:
                torch.clear_autocast_cache()

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
        """Yield frames (3, 4h, 4w); those put together from tiles are float32 on the CPU."""
        height, width = lqs.shape[-2:]
        boxes = tiling.boxes(height, width)
        if len(boxes) == 1:
            yield from self._network_frames(lqs, None, kept)
            return
        prepare = getattr(self.network, "prepare", None)
        if prepare is not None:  # done on whole frames, so that all tiles are treated alike
            lqs = prepare(lqs)
        flows = self._flows(lqs)
        blend = Blend(tiling, height, width, SCALE)
        for rows, columns in boxes:
            part = (..., rows, columns)
            blend.begin((rows, columns))
            here = None if flows is None else (flows[0][part], flows[1][part])
            for i, tile in enumerate(self._network_frames(lqs[part], here, kept, prepared=True)):
                blend.add(i, tile.to("cpu", torch.float32))
        yield from blend.result()

    def _flows(self, lqs: Tensor) -> tuple[Tensor, Tensor] | None:
        """Estimate flow on whole frames; estimated on tiles, it would differ at their seams."""
        spynet = getattr(self.network, "spynet", None)
        return None if spynet is None else clip_flows(spynet, lqs)

    def _network_frames(
        self,
        lqs: Tensor,
        flows: tuple[Tensor, Tensor] | None,
        kept: slice,
        *,
        prepared: bool = False,
    ) -> Iterator[Tensor]:
        forward_iter = getattr(self.network, "forward_iter", None)
        if forward_iter is not None and prepared and hasattr(self.network, "prepare"):
            forward_iter = partial(forward_iter, prepared=True)
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


def _more_than(precision: str, frame: int) -> str:
    """The precision in which to repeat a frame with values that are not finite.

    Raises:
        NotFiniteError: The frame was made in fp32 already.
    """
    if precision == "fp32":
        raise NotFiniteError(
            f"frame {frame}: the network makes values that are not finite (NaN or infinity); its "
            "weights are damaged, or come from a training that diverged"
        )
    logger.warning(
        "frame %d overflows in %s; the rest of its chunk is made in fp32", frame, precision
    )
    return "fp32"


def make_engine(
    network: Network,
    plan: Plan,
    device: torch.device,
    precision: str,
    self_ensemble: bool,
    size: tuple[int, int] | None = None,
    compile: bool = False,
) -> Engine:
    """Build an engine with the tiles and warm-up frames of a plan."""
    return Engine(
        network, device, precision, plan.tiling, plan.warm_up, self_ensemble, size, compile
    )

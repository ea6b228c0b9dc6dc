"""Running a network over clips: tiles, precision, self-ensemble, and retreat when memory ends."""

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

from .arrays import ArrayCopy, smaller, to_tensor
from .chunks import Clip
from .devices import HALF, Network, is_out_of_memory
from .memory import Plan
from .tiles import Blend, Tiling

logger = logging.getLogger(__name__)

SCALE = 4
SMALLEST_TILE = 64  # low-resolution pixels; below this a tile is mostly overlap


class NotFiniteError(ValueError):
    """The network made NaN or infinity, which no picture can show."""


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
        size: Height and width of the results, which are made smaller if that is not 4 times the
            source; None for 4 times.
    """

    network: Network
    device: torch.device
    precision: str
    tiling: Tiling
    overlap: int
    self_ensemble: bool = False
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.network, nn.Module):
            self.network = self.network.to(self.device).eval()
            if self.device.type == "cuda":  # as its convolutions want images and weights laid out
                self.network = self.network.to(memory_format=torch.channels_last)
        self._longest: int | None = None  # frames to keep at a time, once more did not fit

    def run(self, clip: Clip[np.ndarray]) -> Iterator[np.ndarray]:
        """The frames that ``clip`` keeps, upscaled, in its dtype: (4h, 4w, 3), as they are made.

        Memory that runs out is answered with smaller tiles, then with shorter clips, from the frame
        on that was being made. Where a half precision overflows, the rest of the clip is made in
        float32.

        Raises:
            MemoryError: Not even the smallest tile and a single frame fit.
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
            if reason:  # outside the handler, whose traceback keeps the attempt's tensors alive
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
        """Pictures in main memory, None for one that is not finite.

        A GPU has the next picture to make while one is copied from it.
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
        """Run each step without gradients and in a precision, but not the code between them.

        The steps count as nested in one context of autocast, which therefore keeps the weights that
        it has cast, instead of casting all of them again for every frame.
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
        """Frames (3, 4h, 4w), float32 on the CPU where they are put together from tiles."""
        height, width = lqs.shape[-2:]
        boxes = tiling.boxes(height, width)
        if len(boxes) == 1:
            yield from self._network_frames(lqs, None, kept)
            return
        prepare = getattr(self.network, "prepare", None)
        if prepare is not None:  # on whole frames, so that all tiles of a frame are treated alike
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
        """Flow between whole frames: estimated on tiles, it would differ at the seams."""
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
    """The precision for a frame whose values are not finite.

    Raises:
        NotFiniteError: There is no better one.
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
) -> Engine:
    """An engine that follows a plan."""
    return Engine(network, device, precision, plan.tiling, plan.warm_up, self_ensemble, size)

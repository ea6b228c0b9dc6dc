"""``upscale``, the library's function that turns an iterator of frames into one of larger ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

import numpy as np
import torch

from .devices import Network, own_device, pick_device, pick_precision
from .engine import make_engine
from .memory import choose_plan
from .models import load_model
from .scenes import mark_scenes


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
    compile: bool = False,
) -> Iterator[np.ndarray]:
    """Upscale frames by 4, lazily: a result is yielded as soon as its chunk has been read.

    Args:
        frames: (h, w, 3) R'G'B' arrays of one size: uint8, uint16, or float in [0, 1].
        model: A network, any other callable that maps (1, t, 3, h, w) to (1, t, 3, 4h, 4w), or a
            name for :func:`iart_plugin.inference.load_model`.
        weights: The checkpoint, if the model is given by name.
        chunk: Frames kept of a clip at a time; chosen to fit the free memory if None.
        warm_up: Frames read before and after a chunk, so that the recurrence has settled.
        tile: Sides of a tile in low-resolution pixels; chosen to fit the free memory if None, 0 for
            whole frames.
        overlap: Low-resolution pixels that neighbouring tiles share.
        scene_detection: Whether to reset the recurrence at scene cuts.
        device: "cuda", "mps" or "cpu". If None, the device that the network is on, or the best
            available one if the network is on the CPU.
        precision: "fp32", "bf16" or "fp16"; the device's best one if None.
        self_ensemble: Whether to average over flips and quarter turns, at eight times the work.
        compile: Whether to compile the network's branches with ``torch.compile``. Meant for GPUs
            and long films: the first frame takes a minute or more.

    Yields:
        (4h, 4w, 3) arrays, one per frame, in the dtype of ``frames``.

    Raises:
        ValueError: A frame is not (h, w, 3) or not finite, options do not fit each other, or the
            weights give values that are not finite.
        MemoryError: Not even one frame in the smallest tiles fits.
    """
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
        engine = make_engine(network, plan, where, precision, self_ensemble, compile=compile)
        marked = mark_scenes(
            chain([first], checked), picture=lambda frame: frame, enabled=scene_detection
        )
        for clip in plan.clips(marked):
            yield from engine.run(clip)

    return generate()


def check_frame(index: int, frame: np.ndarray) -> None:
    """Check that a frame can be upscaled.

    Raises:
        ValueError: It is no array, not (h, w, 3), not uint8, uint16 or float, or holds NaN or
            infinity.
    """
    if not isinstance(frame, np.ndarray):
        kind = type(frame)
        raise ValueError(
            f"frame {index} is of type {kind.__module__}.{kind.__name__}; frames must be NumPy "
            "arrays (h, w, 3)"
        )
    if frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
        raise ValueError(f"frame {index} is {frame.shape}; frames must be (h, w, 3)")
    if frame.dtype.kind != "f" and frame.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"frame {index} is {frame.dtype}; use uint8, uint16 or float in [0, 1]")
    if frame.dtype.kind == "f" and not np.isfinite(frame).all():
        raise ValueError(f"frame {index} holds pixels that are NaN or infinite; replace them first")


def _checked(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield a copy of each frame, after checking that all have one shape and dtype."""
    expected: tuple[tuple[int, ...], np.dtype] | None = None
    for index, frame in enumerate(frames):
        check_frame(index, frame)
        expected = expected or (frame.shape, frame.dtype)
        if (frame.shape, frame.dtype) != expected:
            raise ValueError(
                f"frame {index} is {frame.shape} {frame.dtype}, the first was {expected[0]} "
                f"{expected[1]}; all frames must be alike"
            )
        yield frame.copy()  # some readers reuse a single array for every frame

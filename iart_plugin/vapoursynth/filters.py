"""VapourSynth's filters: one upscales a clip by 4, the other marks the cuts between its scenes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike

import numpy as np
import vapoursynth as vs

from iart_plugin.inference.devices import Network, own_device, pick_device, pick_precision
from iart_plugin.inference.engine import SCALE, make_engine
from iart_plugin.inference.host_memory import free_host_memory
from iart_plugin.inference.memory import FIRST_CHUNK, choose_plan
from iart_plugin.inference.models import load_model
from iart_plugin.inference.scenes import SceneDetector
from iart_plugin.option_errors import as_arguments
from iart_plugin.weight_checks import CheckpointMismatch

from .frames import KEPT_CHUNKS, RandomAccess, picture


def upscale(
    clip: vs.VideoNode,
    *,
    model: Network | str = "auto",
    weights: str | PathLike[str] | None = None,
    device: str | None = None,
    precision: str | None = None,
    chunk: int | None = None,
    warm_up: int = 10,
    tile: int | Sequence[int] | None = None,
    overlap: int = 24,
    self_ensemble: bool = False,
) -> vs.VideoNode:
    """Upscale a clip by 4, with as many frames as before and the same frame properties.

    The frames can be asked for in any order. Each of them equals what
    :func:`iart_plugin.inference.upscale` makes of the same frames with the same ``chunk``. The
    recurrence starts anew at a frame whose property ``_SceneChangePrev`` is 1, and after one whose
    ``_SceneChangeNext`` is 1. :func:`mark_scenes` sets the former, and so does every filter that
    finds scenes; ``clip.std.RemoveFrameProps`` removes them.

    Args:
        clip: An RGBS or RGBH clip of a constant size, whose R'G'B' values are in [0, 1].
        model: The network's name as for ``iart-plugin upscale --model``, or a network.
        weights: The checkpoint. If None, the best known weights on this machine are used.
        device: "cuda", "cuda:1", "mps" or "cpu"; the best available one if None.
        precision: "fp32", "bf16" or "fp16"; the device's best one if None.
        chunk: Frames that are made at a time. If None, it is as long as the memory allows, and at
            most 48. The first frame that is asked for waits until its whole chunk is made.
        warm_up: Frames that are read before and after a chunk, so that the recurrence has settled.
        tile: Sides of a tile in low-resolution pixels; chosen to fit the free memory if None, 0 for
            whole frames. A pair is height and width.
        overlap: Low-resolution pixels that neighbouring tiles share.
        self_ensemble: Whether to average over flips and quarter turns, at eight times the work.

    Returns:
        A clip of the same format, 4 times as wide and as high.

    Raises:
        vs.Error: The clip, an option or the weights cannot be used. A frame with pixels that are
            NaN or infinite raises it when it is asked for.
    """
    _check_clip("upscale", clip)
    with _vapoursynth_errors("upscale"):
        network = model
        if isinstance(model, str):
            where = pick_device(device)
            network = load_model(model, weights, device=where).network
        elif weights is not None:
            raise ValueError("weights: the model is a network already; leave them out")
        else:
            where = pick_device(own_device(model) if device is None else device)
        precision = pick_precision(precision, where)
        plan = choose_plan(
            clip.height, clip.width, network, device=where, precision=precision, chunk=chunk,
            longest=_longest_chunk(clip), warm_up=warm_up,
            tile=tuple(tile) if isinstance(tile, Sequence) else tile, overlap=overlap,
            self_ensemble=self_ensemble,
        )  # fmt: skip
        engine = make_engine(network, plan, where, precision, self_ensemble)
    return _larger_clip(clip, RandomAccess(clip, engine, plan))


def _larger_clip(clip: vs.VideoNode, results: RandomAccess) -> vs.VideoNode:
    """The clip whose frames are computed when they are asked for."""
    size = {"width": SCALE * clip.width, "height": SCALE * clip.height}
    blank = clip.std.BlankClip(**size, keep=True)

    def filled(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        with _vapoursynth_errors("upscale"):
            result = results[n]
        frame = f.copy()
        for plane in range(3):
            np.copyto(np.asarray(frame[plane]), result[..., plane])
        return frame

    return blank.std.ModifyFrame(blank, filled).std.CopyFrameProps(clip)


def mark_scenes(clip: vs.VideoNode) -> vs.VideoNode:
    """Set ``_SceneChangePrev`` of every frame, to 1 where the package's detector finds a cut.

    Args:
        clip: An RGBS or RGBH clip of a constant size, whose R'G'B' values are in [0, 1].

    Raises:
        vs.Error: The clip has another format, or its size changes.
    """
    _check_clip("mark_scenes", clip)

    def marked(n: int, f: list[vs.VideoFrame]) -> vs.VideoFrame:
        frame, previous = f
        detector = SceneDetector()
        detector.is_cut(picture(previous))
        marked_frame = frame.copy()
        marked_frame.props["_SceneChangePrev"] = int(detector.is_cut(picture(frame)))
        return marked_frame

    return clip.std.ModifyFrame([clip, clip[0] + clip], marked)


def _check_clip(function: str, clip: vs.VideoNode) -> None:
    """Refuse what is no clip, and clips of a changing size or of another format than RGBS or RGBH.

    Raises:
        vs.Error: The clip cannot be used; the message says what to do.
    """
    if not isinstance(clip, vs.VideoNode):
        raise vs.Error(f"{function}: clip is a {type(clip).__name__}, not a video clip")
    if clip.format is None or not clip.width or not clip.height:
        raise vs.Error(
            f"{function}: the size or the format of the clip changes between its frames; make it "
            "constant with clip.resize.Bicubic(width=…, height=…, format=vs.RGBS)"
        )
    if clip.format.id not in (vs.RGBS, vs.RGBH):
        matrix = ', matrix_in_s="709"' if clip.format.color_family == vs.YUV else ""
        raise vs.Error(
            f"{function}: the clip is {clip.format.name}, and only RGBS and RGBH can be used; "
            f"convert it with clip.resize.Bicubic(format=vs.RGBS{matrix})"
        )


def _longest_chunk(clip: vs.VideoNode) -> int:
    """The most frames in a chunk, so that the results that are kept take half the free memory."""
    frame = 3 * clip.format.bytes_per_sample * clip.width * clip.height * SCALE**2
    return max(1, min(FIRST_CHUNK, free_host_memory() // (2 * KEPT_CHUNKS * frame)))


@contextmanager
def _vapoursynth_errors(function: str) -> Iterator[None]:
    """Raise what the package says about wrong input as VapourSynth's error."""
    try:
        yield
    except (ValueError, OSError, MemoryError, CheckpointMismatch) as error:
        raise vs.Error(f"{function}: {as_arguments(str(error))}") from None

"""Makes upscaled frames in whatever order they are asked for."""

from __future__ import annotations

from collections import deque
from functools import lru_cache, partial
from threading import Lock
from typing import NamedTuple

import numpy as np
import vapoursynth as vs

from iart_plugin.inference.chunks import Clip, clip_around
from iart_plugin.inference.engine import Engine
from iart_plugin.inference.memory import Plan
from iart_plugin.inference.streaming import check_frame

KEPT_CHUNKS = 2
"""How many chunks of results are kept. VapourSynth's threads ask for the first frames of a chunk
while the last frames of the one before it are still wanted."""


class _Source(NamedTuple):
    """A frame of the source: its picture (h, w, 3), and what its properties say of scenes."""

    picture: np.ndarray
    begins_scene: bool
    ends_scene: bool


def picture(frame: vs.VideoFrame) -> np.ndarray:
    """Copy the planes of an RGB frame into an array (h, w, 3)."""
    return np.stack([np.asarray(frame[plane]) for plane in range(3)], axis=-1)


class RandomAccess:
    """The upscaled frames of a clip by index, made a chunk at a time.

    VapourSynth calls from several threads. One of them at a time reads a chunk's frames and makes
    it, and the others wait, because they mostly want frames of the same chunk.

    Args:
        clip: The source, RGBS or RGBH.
        engine: Makes the results.
        plan: The length of chunks and the number of warm-up frames.
    """

    def __init__(self, clip: vs.VideoNode, engine: Engine, plan: Plan) -> None:
        self._clip, self._engine, self._plan = clip, engine, plan
        self._lock = Lock()
        self._made: deque[tuple[int, list[np.ndarray]]] = deque(maxlen=KEPT_CHUNKS)
        # Neighbouring chunks share warm-up frames, which are not decoded twice.
        window = min(clip.num_frames, plan.chunk + 2 * plan.warm_up + 2)
        self._source = lru_cache(maxsize=window)(partial(_read, clip))

    def __getitem__(self, index: int) -> np.ndarray:
        """The upscaled frame (4h, 4w, 3) of an index."""
        with self._lock:
            for start, results in self._made:
                if start <= index < start + len(results):
                    return results[index - start]
            clip = self._clip_around(index)
            if len(self._made) == KEPT_CHUNKS:
                self._made.popleft()  # before the next chunk takes its memory
            self._made.append((clip.start, list(self._engine.run(clip))))
            return self._made[-1][1][index - clip.start]

    def _clip_around(self, index: int) -> Clip[np.ndarray]:
        """The clip that keeps a frame, with its pictures."""
        where = clip_around(
            index,
            self._clip.num_frames,
            self._begins_scene,
            chunk=self._plan.chunk,
            overlap=self._plan.warm_up,
        )
        pictures = [self._source(i).picture for i in where.frames]
        return Clip(where.start, where.stop, where.first, pictures)

    def _begins_scene(self, index: int) -> bool:
        return self._source(index).begins_scene or self._source(index - 1).ends_scene


def _read(clip: vs.VideoNode, index: int) -> _Source:
    """Read a frame of the source.

    Raises:
        ValueError: It holds pixels that are NaN or infinite.
    """
    # VapourSynth gives its thread to others while get_frame() waits. A future from
    # get_frame_async() would keep it, and block where there is a single thread.
    with clip.get_frame(index) as frame:
        rgb, props = picture(frame), frame.props
        marks = [bool(props.get(f"_SceneChange{side}", 0)) for side in ("Prev", "Next")]
    check_frame(index, rgb)
    return _Source(rgb, *marks)

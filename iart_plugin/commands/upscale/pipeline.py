"""A film's way through the program.

======== ========================= ===============================================================
decode   ``video/reader.py``       the source's frames, in the order in which they are shown
scenes   ``inference/scenes.py``   where the recurrence starts anew
clips    ``inference/chunks.py``   frames that the network takes at once
network  ``inference/engine.py``   a clip's frames, 4 times as large
encode   ``video/writer.py``       segments of packets, PNG files, or a pipe
mux      ``video/muxing.py``       one file of all segments and of the source's other streams
======== ========================= ===============================================================

:func:`upscale_frames` leads the first five; :mod:`.finish` the last one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Protocol

import numpy as np

from iart_plugin.inference.chunks import Clip
from iart_plugin.inference.engine import Engine, NotFiniteError
from iart_plugin.inference.scenes import mark_scenes
from iart_plugin.video.reader import Frame, is_pipe

from .background import read_ahead
from .job import Job
from .progress import Progress


class Output(Protocol):
    """Where upscaled frames go."""

    def wants(self, clip: Clip[Frame]) -> bool:
        """Whether a clip's frames are to be made."""

    def write(self, frame: Frame, picture: np.ndarray) -> None:
        """Take a frame's picture."""


def upscale_frames(job: Job, output: Output, progress: Progress) -> list[int]:
    """Take the source's frames through the network to an output, and return their times."""
    times: list[int] = []
    engine = job.engine()
    with closing(_decoded(job)) as frames:
        marked = mark_scenes(
            frames, picture=lambda frame: frame.rgb, enabled=job.options.scene_detection
        )
        for clip in job.plan.clips(_noted(marked, times)):
            if output.wants(clip):
                for frame, picture in _upscaled(job, engine, clip, progress):
                    output.write(frame, picture)
    return times


def _decoded(job: Job) -> Iterator[Frame]:
    """Yield the frames that are wanted; a thread reads ahead while the network works."""
    frames = iter(job.source)
    if job.selection is not None:
        frames = job.selection.take(frames, job.source.info.time_base)
    if is_pipe(job.options.input):  # nobody knows when a pipe's next frame comes
        return frames
    return read_ahead(frames, job.plan.chunk)


def _noted(frames: Iterator[tuple[Frame, bool]], times: list[int]) -> Iterator[tuple[Frame, bool]]:
    for frame, is_cut in frames:
        times.append(frame.pts)
        yield frame, is_cut


def _upscaled(
    job: Job, engine: Engine, clip: Clip[Frame], progress: Progress
) -> Iterator[tuple[Frame, np.ndarray]]:
    """Yield the frames that a clip keeps, each with its upscaled picture."""
    arrays = Clip(clip.start, clip.stop, clip.first, [frame.rgb for frame in clip.frames])
    height, width = arrays.frames[0].shape[:2]
    passes = engine.tiling.count(height, width) * (8 if engine.self_ensemble else 1)
    with progress.chunk(len(arrays.frames), passes):
        try:
            for pair in zip(clip.frames[clip.kept], engine.run(arrays), strict=True):
                yield pair
                progress.done()
        except NotFiniteError as error:
            raise NotFiniteError(f"{job.model.summary}: {error}") from None

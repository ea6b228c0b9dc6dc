"""The output of a run that can be stopped and resumed: segments in the run's folder."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

import numpy as np

from iart_plugin.files import remove_left_overs
from iart_plugin.inference.chunks import Clip
from iart_plugin.video.packets import PacketWriter, is_whole
from iart_plugin.video.pipes import pipe_sink
from iart_plugin.video.reader import Frame, VideoSource
from iart_plugin.video.writer import ImageSegment, Sink, VideoSegment, images_of

from .background import InOrder
from .job import Job
from .progress import Progress

logger = logging.getLogger(__name__)

_WAITING = 8  # pictures that may wait for the encoder


class SegmentedOutput:
    """Encodes this process's segments that are not there yet, in a thread of its own.

    Args:
        job: The job that is carried out.
        progress: The bar, which is told how many frames an earlier run has finished.
    """

    def __init__(self, job: Job, progress: Progress) -> None:
        self.job, self._progress = job, progress
        self._sink: Sink | None = None
        self.number = -1
        """The segment that is being written."""
        self._thread = InOrder(_WAITING)
        self._spool: PacketWriter | None = None
        if isinstance(job.source, VideoSource) and job.source.is_pipe and not job.to_images:
            self._spool = PacketWriter(job.work.spool)
            job.source.divert(self._spool)

    def wants(self, clip: Clip[Frame]) -> bool:
        """Whether this process has to make a clip's segment, and it does not exist yet."""
        number = clip.start // self.job.segment
        if number != self.number:
            self._complete()
            self.number = number
        if not self.job.group.owns(number):
            return False
        if self._sink is None:
            if self.job.work.segment(number).exists():
                self._progress.found(clip.stop - clip.start)
                return False
            self._sink = self._open(number)
        return True

    def write(self, frame: Frame, picture: np.ndarray) -> None:
        """Give a picture to the thread that encodes."""
        self._thread.call(self._sink.write, frame, picture)

    def close(self) -> None:
        """Complete the last segment, and the file of the pipe's other streams."""
        self._complete()
        self._thread.finish()
        self.close_spool()

    def close_spool(self) -> None:
        """Complete the file that keeps the other streams of a pipe."""
        if self._spool is not None:
            spool, self._spool = self._spool, None
            spool.close()

    def stop(self) -> None:
        """Stop after a failure; the encoded part of a segment is kept and can be watched."""
        with contextlib.suppress(BaseException):
            self._thread.finish()
        sink, self._sink = self._sink, None
        if sink is None:
            return
        with contextlib.suppress(Exception):
            if isinstance(sink, VideoSegment) and sink.count:
                sink.close(self.job.work.tail)
                return
        with contextlib.suppress(Exception):
            sink.abort()

    def _open(self, number: int) -> Sink:
        work = self.job.work
        if self.job.encoding is None:
            return ImageSegment(work.segment(number), work.images)
        return VideoSegment(work.segment(number), self.job.encoding)

    def _complete(self) -> None:
        if self._sink is not None:
            sink, self._sink = self._sink, None
            self._thread.call(_close, sink)


class PipeOutput:
    """Sends all frames to standard output, in a thread of its own.

    Args:
        job: What the run does.
    """

    def __init__(self, job: Job) -> None:
        self._sink = pipe_sink(job.encoding, job.options.pipe_format)
        self._thread = InOrder(_WAITING)

    def wants(self, clip: Clip[Frame]) -> bool:
        """Always true, because a pipe takes every frame."""
        return True

    def write(self, frame: Frame, picture: np.ndarray) -> None:
        """Give a picture to the thread that sends."""
        self._thread.call(self._sink.write, frame, picture)

    def close(self) -> None:
        """Wait until the last picture is sent."""
        self._thread.finish()
        self._sink.close()

    def stop(self) -> None:
        """Stop after a failure; what was sent cannot be taken back."""
        with contextlib.suppress(BaseException):
            self._thread.finish()
        with contextlib.suppress(Exception):
            self._sink.abort()


def drop_damaged(job: Job) -> None:
    """Delete the segments of a resumed run that are damaged, so that they are made again."""
    for folder in (job.work.path, job.work.images):
        remove_left_overs(folder)
    for path in job.work.segments():
        if job.to_images:
            sizes = images_of(path)
            places = (job.work.images, job.output)  # a run stopped while finishing has moved some
            whole = bool(sizes) and all(
                any(_size(folder / name) == size for folder in places)
                for name, size in sizes.items()
            )
        else:
            whole = is_whole(path)
        if not whole:
            logger.warning("%s does not match its record and is made again", path)
            path.unlink()


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _close(sink: Sink) -> None:
    try:
        sink.close()
    except BaseException:
        sink.abort()
        raise

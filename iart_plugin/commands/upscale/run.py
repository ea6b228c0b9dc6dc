"""Carrying a job out: segments upscaled, encoded, and put together in one file."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from iart_plugin.files import AtomicFile
from iart_plugin.inference.chunks import Clip
from iart_plugin.inference.engine import Engine
from iart_plugin.inference.scenes import SceneDetector
from iart_plugin.video.compare import write_comparison
from iart_plugin.video.muxing import CopiedStreams, assemble
from iart_plugin.video.packets import PacketWriter
from iart_plugin.video.reader import Frame, VideoSource
from iart_plugin.video.writer import ImageSegment, PipeSink, Sink, VideoSegment, write_timestamps

from .distributed import Group
from .job import Job, prepare
from .options import UpscaleOptions
from .progress import Progress
from .report import dry_run_report, start_report

logger = logging.getLogger(__name__)


class Interrupted(KeyboardInterrupt):
    """The run was interrupted; the message says what is left and how to go on."""


@dataclass(frozen=True)
class Result:
    """What a run did.

    Attributes:
        output: The file or folder written.
        frames: Frames in it.
        problems: What was wrong with the source, a line each.
        comparison: The comparison video, if one was asked for.
    """

    output: str
    frames: int
    problems: list[str] = field(default_factory=list)
    comparison: Path | None = None


def upscale_video(options: UpscaleOptions) -> Result:
    """Upscale a video or images by 4 as told, and put the result where told.

    Raises:
        ValueError: Options or input that cannot be used; says which.
        OSError: Files that cannot be read or written, or a full disk.
        Interrupted: Ctrl-C or SIGTERM; finished work is kept.
    """
    group = Group.join()
    try:
        job = prepare(options, group)
        try:
            return _carry_out(job)
        finally:
            job.source.close()
    finally:
        group.leave()


def _carry_out(job: Job) -> Result:
    if job.options.dry_run:
        if job.group.is_first:
            print(dry_run_report(job))
        return Result(job.options.output, 0)
    if job.group.is_first:
        for line in start_report(job):
            logger.info("%s", line)
    frames = run(job)
    comparison = None
    if job.options.compare and job.group.is_first:
        options = job.options
        comparison = write_comparison(
            options.input,
            job.output,
            options.compare,
            rate=options.fps,
            quality=options.comparison_quality,
        )
    return Result(job.options.output, frames, list(job.source.problems), comparison)


def run(job: Job) -> int:
    """Do the work; the number of frames.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; finished segments are kept.
        OSError: A full disk, say; finished segments are kept.
    """
    if job.work is None:
        return _run_to_pipe(job)
    record = job.record()
    resuming = job.options.resume and job.work.exists()
    if job.group.is_first:
        if resuming:
            job.work.check(record)
        else:
            job.work.begin(record)
        job.work.tail.unlink(missing_ok=True)
        if job.to_images:
            job.work.images.mkdir(exist_ok=True)
    job.group.wait()
    segments = _SegmentedRun(job)
    try:
        segments.process()
    except KeyboardInterrupt:
        raise Interrupted(_leave_partial(job, segments)) from None
    except OSError as error:
        raise OSError(error.errno, f"{_say(error)}; {_advice(job)}") from error
    job.group.wait()
    if job.group.is_first:
        try:
            _finish(job, segments)
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted while finishing; {_advice(job)}") from None
        except OSError as error:
            raise OSError(error.errno, f"{_say(error)}; {_advice(job)}") from error
    job.group.wait()
    return len(segments.times)


def _say(error: OSError) -> str:
    name = f"{error.filename}: " if error.filename else ""
    return f"{name}{error.strerror or error}"


def _advice(job: Job) -> str:
    if job.options.input == "-":
        return "a pipe cannot be continued: start over with -y"
    finished = len(job.work.finished())
    return f"{finished} finished segment(s) are kept, so run the same command again with --resume"


class _SegmentedRun:
    """Upscales this process's segments that are not yet there."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.times: list[int] = []  # of all frames of the source
        self.sink: Sink | None = None
        self.sink_segment = -1
        self.spool: PacketWriter | None = None
        if isinstance(job.source, VideoSource) and job.source.is_pipe and not job.to_images:
            self.spool = PacketWriter(job.work.spool)
            job.source.divert(self.spool)

    def process(self) -> None:
        """Work through the source; raises what goes wrong."""
        engine = self.job.engine()
        progress = _progress(self.job, engine)
        try:
            for clip in self.job.plan.clips(_marked(self.job, self.times)):
                self._take(clip, engine, progress)
            self._close_sink()
        finally:
            self._drop_sink()
            progress.close()

    def _take(self, clip: Clip[Frame], engine: Engine, progress: Progress) -> None:
        number = clip.start // self.job.segment
        if number != self.sink_segment:
            self._close_sink()
        if not self.job.group.owns(number):
            return
        if self.job.work.segment(number).exists():
            progress.found(clip.stop - clip.start)
            return
        if self.sink is None:
            self.sink, self.sink_segment = self._open_sink(number), number
        for frame, picture in _upscaled(engine, clip, progress):
            self.sink.write(frame, picture)

    def _open_sink(self, number: int) -> Sink:
        work = self.job.work
        if self.job.encoding is None:
            return ImageSegment(work.segment(number), work.images)
        return VideoSegment(work.segment(number), self.job.encoding)

    def _close_sink(self) -> None:
        if self.sink is not None:
            sink, self.sink = self.sink, None
            try:
                sink.close()
            except BaseException:
                sink.abort()
                raise

    def _drop_sink(self) -> None:
        """After a failure. What an interrupted run had encoded is worth keeping, for a look."""
        if self.sink is None:
            return
        sink, self.sink = self.sink, None
        with contextlib.suppress(Exception):
            if isinstance(sink, VideoSegment) and sink.count:
                sink.close(self.job.work.tail)
                return
        with contextlib.suppress(Exception):
            sink.abort()


def _marked(job: Job, times: list[int]) -> Iterator[tuple[Frame, bool]]:
    """The source's frames, each with whether it begins a scene; their times go to ``times``."""
    detector = SceneDetector()
    for frame in job.source:
        times.append(frame.pts)
        cut = job.options.scene_detection and detector.is_cut(frame.rgb)
        if cut:
            logger.debug("scene cut before frame %d", frame.index)
        yield frame, cut


def _run_to_pipe(job: Job) -> int:
    sink, engine = PipeSink(job.encoding, job.options.pipe_format), job.engine()
    progress, times = _progress(job, engine), []
    clips = job.plan.clips(_marked(job, times))
    try:
        for clip in clips:
            for frame, picture in _upscaled(engine, clip, progress):
                sink.write(frame, picture)
    except BaseException:
        with contextlib.suppress(Exception):
            sink.abort()
        raise
    finally:
        progress.close()
    sink.close()
    return len(times)


def _progress(job: Job, engine: Engine) -> Progress:
    """A bar over this process's share of the frames."""
    total = job.source.info.frames
    if total is not None and job.group.size > 1:
        total = sum(
            min(job.segment, total - start)
            for start in range(0, total, job.segment)
            if job.group.owns(start // job.segment)
        )
    shown = job.group.is_first and not job.options.quiet
    return Progress(total, engine.network, shown=shown)


def _upscaled(
    engine: Engine, clip: Clip[Frame], progress: Progress
) -> Iterator[tuple[Frame, np.ndarray]]:
    """The frames that a clip keeps, each with its upscaled picture."""
    arrays = Clip(clip.start, clip.stop, clip.first, [f.rgb for f in clip.frames])
    height, width = arrays.frames[0].shape[:2]
    passes = engine.tiling.count(height, width) * (8 if engine.self_ensemble else 1)
    with progress.chunk(len(arrays.frames), passes):
        for pair in zip(clip.frames[clip.kept], engine.run(arrays), strict=True):
            yield pair
            progress.done()


def _copied(job: Job, run: _SegmentedRun) -> CopiedStreams | None:
    """The other streams; what was put aside of a pipe is complete."""
    if run.spool is not None:
        run.spool.close()
    return job.extras


def _finish(job: Job, run: _SegmentedRun) -> None:
    work, output = job.work, job.output
    if job.to_images:
        write_timestamps(work.images / "timestamps.txt", run.times, job.source.info.time_base)
        output.mkdir(exist_ok=True)
        for path in sorted(work.images.iterdir()):
            os.replace(path, output / path.name)
    else:
        segments = work.finished()
        if len(segments) != -(-len(run.times) // job.segment):
            raise FileNotFoundError(f"{work.segment(len(segments))} is missing")
        _check_room(work.path, segments)
        assembled = AtomicFile(work.path / "assembled")
        assemble(segments, job.encoding, assembled.temporary, extras=_copied(job, run))
        assembled.commit(output)
        if job.options.resume:
            _partial(job).unlink(missing_ok=True)
    work.remove()


def _check_room(folder: Path, segments: list[Path]) -> None:
    """The segments' size is known by now, so a file that cannot fit is not begun."""
    size = sum(p.stat().st_size for p in segments)
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OSError(
            28, f"disk full: {size / 2**20:,.1f} MiB are needed, {free / 2**20:,.1f} are free"
        )


def _leave_partial(job: Job, run: _SegmentedRun) -> str:
    """Put what there is in a playable file; the message for the user."""
    work = job.work
    if not job.group.is_first:
        return "interrupted"
    if job.options.input == "-":
        how = "a pipe cannot be continued, so the rest has to start over"
    else:
        how = f"continue with the same command and --resume ({work.path} is kept)"
    try:
        return f"{_save_partial(job, run)}; {how}"
    finally:
        if job.options.input == "-":
            work.remove()


def _partial(job: Job) -> Path:
    return job.output.with_name(f"{job.output.stem}.partial{job.output.suffix}")


def _save_partial(job: Job, run: _SegmentedRun) -> str:
    work = job.work
    if job.to_images:
        return "interrupted"
    parts = work.finished()
    if work.tail.exists() and run.sink_segment == len(parts):
        parts = [*parts, work.tail]
    if not parts:
        return "interrupted before the first frame was done"
    partial, unfinished = _partial(job), AtomicFile(work.path / "partial")
    try:
        extras = _copied(job, run)
        assemble(parts, job.encoding, unfinished.temporary, extras=extras, trim=True)
        unfinished.commit(partial)
    except Exception as error:  # the run can be continued all the same
        logger.warning("%s could not be written: %s", partial, error)
        return "interrupted"
    return f"interrupted; the part so far is {partial}"

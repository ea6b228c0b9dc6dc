"""Carries a job out, and saves what is finished if the run is stopped."""

from __future__ import annotations

import errno
import logging
from dataclasses import dataclass, field
from pathlib import Path

import av

from iart_plugin.video.compare import write_comparison
from iart_plugin.video.reader import is_pipe

from .distributed import Group
from .finish import finish, leave_partial
from .job import Job, prepare
from .options import UpscaleOptions
from .pipeline import upscale_frames
from .progress import Progress
from .report import dry_run_report, start_report
from .segments import PipeOutput, SegmentedOutput, drop_damaged
from .selection import NothingSelected

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


def upscale_video(options: UpscaleOptions, group: Group | None = None) -> Result:
    """Upscale a video or images by 4 as told, and put the result where told.

    Args:
        options: What to upscale, and how.
        group: The processes that share the work. By default those that the environment describes
            join for this run.

    Raises:
        ValueError: Options or input that cannot be used; says which.
        OSError: Files that cannot be read or written, or a full disk.
        Interrupted: Ctrl-C or SIGTERM; finished work is kept.
    """
    if group is None:
        group = Group.join()
        try:
            return upscale_video(options, group)
        finally:
            group.leave()
    job = prepare(options, group)
    try:
        return _carry_out(job)
    finally:
        job.source.close()


def _carry_out(job: Job) -> Result:
    options = job.options
    if options.dry_run:
        if job.group.is_first:
            print(dry_run_report(job))
        return Result(options.output, 0)
    if job.group.is_first:
        for line in start_report(job):
            logger.info("%s", line)
    frames = _run_to_pipe(job) if job.work is None else run(job)
    comparison = None
    if options.compare and job.group.is_first:
        comparison = write_comparison(
            options.input,
            job.output,
            options.compare,
            rate=options.fps,
            quality=options.comparison_quality,
        )
    return Result(options.output, frames, list(job.source.problems), comparison)


def run(job: Job) -> int:
    """Do the work and return the number of frames.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; finished segments are kept.
        OSError: A full disk, say; finished segments are kept.
    """
    if job.group.is_first:
        job.work.acquire()
    try:
        if job.group.is_first:
            _begin(job)
        job.group.wait()
        times = _upscale(job)
        job.group.wait()
        if job.group.is_first:
            _finish(job, times)
        job.group.wait()
        return len(times)
    finally:
        if job.group.is_first:
            job.work.release()


def _begin(job: Job) -> None:
    """Empty the run's folder, or check what a resumed run finds there."""
    try:
        job.target.refuse_to_overwrite(job.options)  # the folder's last run may have finished now
        if job.options.resume and job.work.exists():
            job.work.check(job.record())
            drop_damaged(job)
        else:
            job.work.begin(job.record())
    except BaseException:
        if not job.work.exists():
            job.work.remove()  # or it would be in the way
        raise
    job.work.tail.unlink(missing_ok=True)
    if job.to_images:
        job.work.images.mkdir(exist_ok=True)


def _upscale(job: Job) -> list[int]:
    """Make this process's segments and return the times of all frames."""
    progress = _progress(job)
    output = SegmentedOutput(job, progress)
    try:
        times = upscale_frames(job, output, progress)
        output.close()
    except BaseException as error:
        output.stop()
        progress.close()
        stopped = _stopped(job, output, error)
        if stopped is error:
            raise
        raise stopped from error
    progress.close()
    return times


def _stopped(job: Job, output: SegmentedOutput, error: BaseException) -> BaseException:
    """Return the error to raise, which says what is kept and how to resume."""
    if isinstance(error, NothingSelected):
        if job.group.is_first:
            job.work.remove()
        return error
    from_pipe = is_pipe(job.options.input)
    is_interruption = isinstance(error, KeyboardInterrupt)
    no_room = isinstance(error, OSError) and error.errno == errno.ENOSPC
    partial = None if no_room else leave_partial(job, output)
    left = [f"the part so far is {partial}"] if partial else []
    if not job.group.is_first:
        how = []
    elif from_pipe:
        how = ["a pipe cannot be continued, so the rest has to start over"]
        if partial is None or partial.parent != job.work.path:
            job.work.remove()
    else:
        how = [_advice(job)]
    if is_interruption:
        if not partial and not job.to_images and job.group.is_first:
            left = ["before the first frame was done"]
        return Interrupted("; ".join(["interrupted", *left, *how]))
    if isinstance(error, (OSError, av.FFmpegError)):
        return OSError(error.errno, "; ".join([_say(error), *left, *how]))
    if isinstance(error, (ValueError, MemoryError)) and not isinstance(error, UnicodeError):
        return type(error)("; ".join([str(error), *left, *how]))
    return error


def _finish(job: Job, times: list[int]) -> None:
    try:
        finish(job, times)
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted while finishing; {_advice(job)}") from None
    except (OSError, av.FFmpegError) as error:
        raise OSError(error.errno, f"{_say(error)}; {_advice(job)}") from error


def _say(error: OSError | av.FFmpegError) -> str:
    name = f"{error.filename}: " if error.filename else ""
    return f"{name}{error.strerror or error}"


def _advice(job: Job) -> str:
    if is_pipe(job.options.input):
        return "a pipe cannot be continued: start over with -y"
    count = len(job.work.finished())
    return f"{count} finished segment(s) are kept, so run the same command again with --resume"


def _run_to_pipe(job: Job) -> int:
    output, progress = PipeOutput(job), _progress(job)
    try:
        times = upscale_frames(job, output, progress)
        output.close()
    except BaseException:
        output.stop()
        raise
    finally:
        progress.close()
    return len(times)


def _progress(job: Job) -> Progress:
    """Return a progress bar that counts this process's share of the frames."""
    total = job.frames
    if total is not None and job.group.size > 1:
        total = sum(
            min(job.segment, total - start)
            for start in range(0, total, job.segment)
            if job.group.owns(start // job.segment)
        )
    shown = job.group.is_first and not job.options.quiet
    return Progress(total, job.model.network, shown=shown)

"""The last stage puts all segments into one file, or moves the images to the output's folder."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from pathlib import Path

from iart_plugin.files import AtomicFile
from iart_plugin.video.muxing import assemble
from iart_plugin.video.writer import images_of, write_timestamps

from .job import Job
from .segments import SegmentedOutput
from .target import own_pattern

logger = logging.getLogger(__name__)

TIMESTAMPS = "timestamps.txt"


def finish(job: Job, times: list[int]) -> None:
    """Put the output together from the finished segments, and delete the run's folder.

    Raises:
        OSError: The disk is full, or a segment is missing; all segments stay.
    """
    if job.to_images:
        _place_images(job, times)
    else:
        segments = job.work.finished()
        if len(segments) != -(-len(times) // job.segment):
            raise FileNotFoundError(
                errno.ENOENT, "a segment is missing", str(job.work.segment(len(segments)))
            )
        _check_room(job.work.path, segments)
        _mux(job, segments, job.output, trim=job.selection is not None)
        job.work.drop_partial()
    job.work.remove()


def _place_images(job: Job, times: list[int]) -> None:
    """Move the images to the output's folder, and delete the images of an earlier result there."""
    work, output = job.work, job.output
    write_timestamps(work.images / TIMESTAMPS, times, job.source.info.time_base)
    made = {name for segment in work.segments() for name in images_of(segment)}
    output.mkdir(exist_ok=True)
    for path in sorted(work.images.iterdir()):
        os.replace(path, output / path.name)
    pattern = own_pattern(made)
    for path in list(output.iterdir()):
        if path.name not in made and pattern.fullmatch(path.name):
            path.unlink()


def _mux(job: Job, segments: list[Path], output: Path, *, trim: bool = False) -> None:
    """Write the segments and the other streams into one file, then give it the output's name."""
    file = AtomicFile(job.work.path / "assembled")
    try:
        assemble(segments, job.encoding, file.temporary, extras=job.extras, trim=trim)
        file.commit(output)
    finally:
        file.discard()


def _check_room(folder: Path, segments: list[Path]) -> None:
    """Refuse to begin a file that does not fit; the size of all segments is known by now."""
    size = sum(p.stat().st_size for p in segments)
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OSError(
            errno.ENOSPC,
            f"disk full: {size / 2**20:,.1f} MiB are needed, {free / 2**20:,.1f} are free",
        )


def leave_partial(job: Job, output: SegmentedOutput) -> Path | None:
    """Write the finished part of a stopped run as a playable file; None if nothing is finished.

    The run can be resumed all the same.
    """
    work = job.work
    if job.to_images or not job.group.is_first:
        return None
    parts = work.finished()
    if work.tail.exists() and output.number == len(parts):
        parts = [*parts, work.tail]
    if not parts:
        return None
    path = work.partial
    try:
        output.close_spool()
        _mux(job, parts, path, trim=True)
        work.claim_partial(path)
    except Exception as error:
        logger.warning("%s could not be written: %s", path, error)
        return None
    return path

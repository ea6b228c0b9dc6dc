"""One run: a source in, segments upscaled and encoded, one file out."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import torch
from tqdm import tqdm

import iart_plugin

from .chunks import Clip, iter_clips
from .colour import SRGB_AS_VIDEO
from .distributed import Group
from .encoding import Encoding, choose_encoding, container_of
from .engine import SCALE, Engine, make_engine, pick_device, pick_precision
from .memory import Plan, choose_plan
from .models import LoadedModel, load_model
from .muxing import CopiedStreams, SpooledStreams, assemble
from .options import UpscaleOptions
from .packets import PacketWriter
from .reader import Frame, ImageSource, VideoSource, open_source
from .resume import WorkFolder
from .scenes import SceneDetector
from .writer import ImageSegment, PipeSink, Sink, VideoSegment, write_timestamps

logger = logging.getLogger(__name__)

# Each segment starts with a key frame: two seconds of film, a usual distance for them.
SHORTEST_SEGMENT = 48


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


@dataclass
class Job:
    """A run that is set up: everything decided, nothing written.

    Attributes:
        options: What was asked for.
        source: Open.
        model: Loaded.
        device: Where it runs.
        precision: In what.
        plan: How frames are cut.
        segment: Frames of a segment.
        encoding: Of a video; of a pipe its size, tags and pixel format.
        extras: The source's other streams.
        work: The folder of the unfinished run; None for a pipe.
        group: The processes.
    """

    options: UpscaleOptions
    source: VideoSource | ImageSource
    model: LoadedModel
    device: torch.device
    precision: str
    plan: Plan
    segment: int
    encoding: Encoding | None
    extras: CopiedStreams | None
    work: WorkFolder | None
    group: Group

    @property
    def output(self) -> Path:
        """The output's path."""
        return Path(self.options.output)

    @property
    def to_images(self) -> bool:
        """Whether PNG files are written."""
        return self.encoding is None

    def engine(self) -> Engine:
        """A fresh engine."""
        return make_engine(
            self.model.network, self.plan, self.device, self.precision, self.options.self_ensemble
        )

    def record(self) -> dict[str, Any]:
        """All that decides the output's bits."""
        o = self.options
        return {
            "software": {
                "iart_plugin": iart_plugin.__version__,
                "torch": torch.__version__,
                "av": av.__version__,
            },
            "input": source_identity(self.source),
            "model": {"name": self.model.name, "sha256": self.model.digest},
            "encoding": "png" if self.encoding is None else self.encoding.as_dict(),
            "streams": {"audio": o.audio, "subtitles": o.subtitles},
            "device": self.device.type,
            "precision": self.precision,
            "self_ensemble": o.self_ensemble,
            "scene_detection": o.scene_detection,
            "on_error": o.on_error,
            "plan": plan_record(self.plan, self.segment),
        }


def plan_record(plan: Plan, segment: int) -> dict[str, Any]:
    """The part of a plan that decides the output's bits."""
    return {
        "chunk": plan.chunk,
        "warm_up": plan.warm_up,
        "tile": list(plan.tiling.size),
        "overlap": plan.tiling.overlap,
        "segment": segment,
    }


def source_identity(source: VideoSource | ImageSource) -> dict[str, Any]:
    """What tells a source from another without reading it all: names, sizes and times of change."""
    if isinstance(source, ImageSource):
        digest = hashlib.sha256()
        for path in source.paths:
            stat = path.stat()
            digest.update(f"{path.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        return {"images": len(source.paths), "digest": digest.hexdigest()}
    if str(source.path) == "-":
        return {"pipe": True}
    stat = source.path.stat()
    return {"name": source.path.name, "bytes": stat.st_size, "changed": stat.st_mtime_ns}


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
    from .compare import write_comparison
    from .report import dry_run_report, start_report

    if job.options.dry_run:
        if job.group.is_first:
            print(dry_run_report(job))
        return Result(job.options.output, 0)
    if job.group.is_first:
        for line in start_report(job):
            logger.info("%s", line)
    frames = _run(job)
    comparison = None
    if job.options.compare and job.group.is_first:
        comparison = write_comparison(job.options, job.output, job.options.compare)
    return Result(job.options.output, frames, list(job.source.problems), comparison)


def prepare(options: UpscaleOptions, group: Group) -> Job:
    """Decide everything, and fail here rather than after hours of work.

    Raises:
        ValueError: As :func:`upscale_video`.
        FileExistsError: Something is in the way of the output.
        OSError: No room for the output.
    """
    to_pipe = options.output == "-"
    work = None if to_pipe else WorkFolder(Path(options.output))
    if to_pipe and (group.size > 1 or options.resume or options.compare):
        raise ValueError("-o -: a pipe can be neither shared, resumed nor compared; name a file")
    if options.input == "-" and (group.size > 1 or options.resume or options.compare):
        raise ValueError("input -: a pipe can be neither shared, resumed nor compared; name a file")
    if work is not None and group.is_first:
        _refuse_to_overwrite(options, work)
    group.wait()
    images_out = not to_pipe and _names_folder(options.output)
    if not images_out and not to_pipe:
        container_of(options.output)  # a wrong suffix fails before anything is loaded
    model = load_model(options.model, options.weights)
    device = group.device(pick_device(options.device))
    precision = pick_precision(options.precision, device)
    source = open_source(options.input, rate=options.fps, on_error=options.on_error)
    try:
        encoding = None if images_out else _encoding(options, source)
        extras = None
        if encoding is not None and not to_pipe and isinstance(source, VideoSource):
            extras = _extras(options, source)
            if extras is not None and options.input != "-":
                extras.check(encoding.container)
        model.network.to(device)
        plan, segment = group.share(_plan(options, source, model, device, precision, work))
        job = Job(
            options, source, model, device, precision, plan, segment, encoding, extras, work, group
        )
        if options.check_disk and group.is_first and not to_pipe:
            check_disk(job)
    except BaseException:
        source.close()
        raise
    return job


def _names_folder(output: str) -> bool:
    return output.endswith(("/", os.sep)) or Path(output).is_dir() or not Path(output).suffix


def _refuse_to_overwrite(options: UpscaleOptions, work: WorkFolder) -> None:
    output = work.output
    occupied = output.exists() and not (output.is_dir() and not any(output.iterdir()))
    if occupied and not options.overwrite and not options.dry_run:
        raise FileExistsError(f"{output} exists: pass -y to replace it, or choose another -o")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"{output.parent}: no such folder to write {output.name} to")
    if work.exists() and not (options.resume or options.overwrite or options.dry_run):
        raise FileExistsError(
            f"{work.path} is left of an unfinished run: continue it with --resume, or start over "
            "with -y"
        )


def _encoding(options: UpscaleOptions, source: VideoSource | ImageSource) -> Encoding:
    colour = source.info.colour if source.info.is_video else SRGB_AS_VIDEO
    if colour.matrix == 0:  # an RGB video, written as Y'CbCr
        colour = SRGB_AS_VIDEO
    container = "matroska" if options.output == "-" else container_of(options.output)
    codec = "rawvideo" if options.output == "-" else options.codec
    return choose_encoding(
        source.info,
        container,
        colour,
        codec=codec,
        crf=options.crf,
        preset=options.preset,
        pix_fmt=options.pix_fmt,
        lossless=options.lossless,
        scale=SCALE,
    )


def _kinds(options: UpscaleOptions) -> list[str]:
    kinds = ["audio"] if options.audio else []
    return [*kinds, "subtitle", "attachment"] if options.subtitles else kinds


def _extras(options: UpscaleOptions, source: VideoSource) -> CopiedStreams | None:
    return CopiedStreams(source.path, _kinds(options)) if options.input != "-" else None


def _plan(
    options: UpscaleOptions,
    source: VideoSource | ImageSource,
    model: LoadedModel,
    device: torch.device,
    precision: str,
    work: WorkFolder | None,
) -> tuple[Plan, int]:
    """The plan and the segments' length; of a run to be continued, the ones that it began with."""
    recorded: dict[str, Any] = {}
    if options.resume and work is not None and work.exists():
        recorded = work.record().get("plan", {})
    tile = options.tile if options.tile is not None else recorded.get("tile")
    plan = choose_plan(
        source.info.height,
        source.info.width,
        model.network,
        device=device,
        precision=precision,
        chunk=options.chunk if options.chunk is not None else recorded.get("chunk"),
        warm_up=options.warm_up,
        tile=None if tile is None else (tile[0], tile[1]),
        overlap=options.overlap,
    )
    return plan, plan.chunk * -(-SHORTEST_SEGMENT // plan.chunk)


def expected_bytes(job: Job) -> int | None:
    """A guess at the output's size, or None where the number of frames is not known."""
    info = job.source.info
    if info.frames is None:
        return None
    pixels = info.width * info.height * SCALE**2 * info.frames
    deep = 1 if info.depth <= 8 else 2
    if job.to_images or job.options.lossless:
        return int(pixels * 1.6 * deep)  # about half of the samples' bytes, as photographs compress
    return int(pixels * 0.025)  # 0.2 bits a pixel: generous for the default quality


def check_disk(job: Job) -> None:
    """Make sure that the output is likely to fit.

    Raises:
        OSError: It is not.
    """
    expected = expected_bytes(job)
    if expected is None:
        return
    if not job.to_images:
        expected *= 2  # the segments, and the file that they are put together in
    free = shutil.disk_usage(job.output.parent).free
    if free < expected:
        raise OSError(
            f"{job.output.parent}: about {expected / 2**20:,.0f} MiB are needed and "
            f"{free / 2**20:,.0f} MiB are free; make room, or pass --ignore-disk-space"
        )


def _run(job: Job) -> int:
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
    run = _SegmentedRun(job)
    try:
        run.process()
    except KeyboardInterrupt:
        raise Interrupted(_leave_partial(job, run)) from None
    except OSError as error:
        raise OSError(error.errno, f"{_say(error)}; {_advice(job)}") from error
    job.group.wait()
    if job.group.is_first:
        try:
            _finish(job, run)
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted while finishing; {_advice(job)}") from None
        except OSError as error:
            raise OSError(error.errno, f"{_say(error)}; {_advice(job)}") from error
    job.group.wait()
    return run.frames


def _say(error: OSError) -> str:
    name = f"{error.filename}: " if error.filename else ""
    return f"{name}{error.strerror or error}"


def _advice(job: Job) -> str:
    finished = len(job.work.finished())
    return f"{finished} finished segment(s) are kept, so run the same command again with --resume"


class _SegmentedRun:
    """Upscales this process's segments that are not yet there."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.frames = 0
        self.times: list[int] = []
        self.sink: Sink | None = None
        self.sink_segment = -1
        self.spool: PacketWriter | None = None
        if isinstance(job.source, VideoSource) and job.source.is_pipe and not job.to_images:
            self.spool = PacketWriter(job.work.spool)
            job.source.divert(self.spool)

    def process(self) -> None:
        job, engine = self.job, self.job.engine()
        with contextlib.ExitStack() as stack:
            bar = stack.enter_context(progress_bar(job))
            stack.callback(self._drop_sink)
            for clip in iter_clips(
                self._marked(), chunk=job.plan.chunk, overlap=job.plan.warm_up
            ):  # fmt: skip
                number = clip.start // job.segment
                if number != self.sink_segment:
                    self._close_sink()
                if not job.group.owns(number):
                    continue
                count = clip.stop - clip.start
                if job.work.segment(number).exists():
                    _pass_over(bar, count)
                    continue
                if self.sink is None:
                    self.sink, self.sink_segment = self._open_sink(number), number
                pictures = engine.run(
                    Clip(clip.start, clip.stop, clip.first, [f.rgb for f in clip.frames])
                )
                for frame, picture in zip(clip.frames[clip.kept], pictures, strict=True):
                    self.sink.write(frame, picture)
                    bar.update()
            self._close_sink()

    def _marked(self) -> Iterator[tuple[Frame, bool]]:
        detector = SceneDetector()
        for frame in self.job.source:
            self.frames += 1
            self.times.append(frame.pts)
            cut = self.job.options.scene_detection and detector.is_cut(frame.rgb)
            if cut:
                logger.debug("scene cut before frame %d", frame.index)
            yield frame, cut

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


def _run_to_pipe(job: Job) -> int:
    sink = PipeSink(job.encoding, job.options.pipe_format)
    engine, frames = job.engine(), 0
    detector = SceneDetector()
    marked = ((f, job.options.scene_detection and detector.is_cut(f.rgb)) for f in job.source)
    try:
        with progress_bar(job) as bar:
            for clip in iter_clips(marked, chunk=job.plan.chunk, overlap=job.plan.warm_up):
                arrays = Clip(clip.start, clip.stop, clip.first, [f.rgb for f in clip.frames])
                for frame, picture in zip(
                    clip.frames[clip.kept], engine.run(arrays), strict=True
                ):  # fmt: skip
                    sink.write(frame, picture)
                    frames += 1
                    bar.update()
    except BaseException:
        with contextlib.suppress(Exception):
            sink.abort()
        raise
    sink.close()
    return frames


def progress_bar(job: Job) -> tqdm:
    """Frames, frames a second and the time left, of this process's share."""
    total = job.source.info.frames
    if total is not None and job.group.size > 1:
        total = sum(
            min(job.segment, total - start)
            for start in range(0, total, job.segment)
            if job.group.owns(start // job.segment)
        )
    return tqdm(
        total=total,
        unit="frame",
        smoothing=0.1,
        disable=job.options.quiet or not job.group.is_first,
        dynamic_ncols=True,
    )


def _pass_over(bar: tqdm, count: int) -> None:
    """Advance the bar by frames that were there, which its rate must not count."""
    if not bar.disable:
        bar.n += count
        bar.initial += count


def _copied(job: Job, run: _SegmentedRun) -> CopiedStreams | None:
    """The other streams, from the source or from what was put aside of a pipe."""
    if run.spool is None:
        return job.extras
    run.spool.close()
    return SpooledStreams(job.source.container, job.work.spool, _kinds(job.options))


def _finish(job: Job, run: _SegmentedRun) -> None:
    work, output = job.work, job.output
    if job.to_images:
        write_timestamps(work.images / "timestamps.txt", run.times, job.source.info.time_base)
        output.mkdir(exist_ok=True)
        for path in sorted(work.images.iterdir()):
            os.replace(path, output / path.name)
    else:
        assembled = work.path / ("assembled" + output.suffix)
        segments = work.finished()
        _check_room(work.path, segments)
        assemble(segments, job.encoding, assembled, extras=_copied(job, run))
        _synced(assembled)
        os.replace(assembled, output)
    work.remove()


def _check_room(folder: Path, segments: list[Path]) -> None:
    """The segments' size is known by now, so a file that cannot fit is not begun."""
    size = sum(p.stat().st_size for p in segments)
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OSError(
            28, f"disk full: {size / 2**20:,.1f} MiB are needed, {free / 2**20:,.1f} are free"
        )


def _synced(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _leave_partial(job: Job, run: _SegmentedRun) -> str:
    """Put what there is in a playable file; the message for the user."""
    work = job.work
    how = f"continue with the same command and --resume ({work.path} is kept)"
    if not job.group.is_first:
        return "interrupted"
    if job.to_images:
        return f"interrupted; {how}"
    parts = work.finished()
    if work.tail.exists() and run.sink_segment == len(parts):
        parts = [*parts, work.tail]
    if not parts:
        return f"interrupted before the first frame was done; {how}"
    partial = job.output.with_name(f"{job.output.stem}.partial{job.output.suffix}")
    try:
        assemble(parts, job.encoding, partial, extras=_copied(job, run), trim=True)
    except Exception as error:  # the run can be continued all the same
        logger.warning("%s could not be written: %s", partial, error)
        return f"interrupted; {how}"
    return f"interrupted; the part so far is {partial}; {how}"


def frame_rate_text(rate: Fraction) -> str:
    """ "24" or "23.976 (24000/1001)"."""
    return str(rate) if rate.denominator == 1 else f"{float(rate):.3f} ({rate})"

"""What a run is going to do: everything decided and checked, nothing written."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import torch

import iart_plugin
from iart_plugin.inference.devices import pick_device, pick_precision
from iart_plugin.inference.engine import SCALE, Engine, make_engine
from iart_plugin.inference.memory import Plan, choose_plan
from iart_plugin.inference.models import LoadedModel, load_model
from iart_plugin.video.colour import SRGB_AS_VIDEO
from iart_plugin.video.compare import comparison_encoding, comparison_path
from iart_plugin.video.encoding import Encoding, choose_encoding, container_of
from iart_plugin.video.muxing import CopiedStreams, SpooledStreams, check_encoding
from iart_plugin.video.reader import ImageSource, VideoSource, open_source

from .distributed import Group
from .options import UpscaleOptions
from .work_folder import WorkFolder

logger = logging.getLogger(__name__)

# Each segment starts with a key frame: two seconds of film, a usual distance for them.
SHORTEST_SEGMENT = 48


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
        """All that decides the segments' bits; other streams are copied at the end."""
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
        "first_chunk": plan.first_chunk,
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
    images_out = not to_pipe and _names_folder(options.output)
    _refuse_unused(options, to_pipe, images_out)
    if work is not None and group.is_first:
        _refuse_to_overwrite(options, work, images_out)
    group.wait()
    if not images_out and not to_pipe:
        container_of(options.output)  # a wrong suffix fails before anything is loaded
    model = load_model(options.model, options.weights)
    device = group.device(pick_device(options.device))
    precision = pick_precision(options.precision, device)
    source = open_source(options.input, rate=options.fps, on_error=options.on_error)
    try:
        if images_out and isinstance(source, ImageSource):
            _check_names(source)
        encoding = None if images_out else _encoding(options, source)
        extras = None
        if encoding is not None and not to_pipe and isinstance(source, VideoSource):
            extras = _extras(options, source, work)
            if extras is not None:
                extras.check(encoding.container)
        if encoding is not None and not to_pipe:
            check_encoding(encoding)
        if options.compare:
            _check_comparison(options, source, encoding)
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


def _refuse_unused(options: UpscaleOptions, to_pipe: bool, to_images: bool) -> None:
    """An option that would change nothing is a mistake: say so."""
    unused = []
    if to_pipe:
        unused = ["codec", "crf", "preset", "lossless"]
    elif to_images:  # a comparison of images is a video
        unused = ["codec", "pix_fmt"] + ([] if options.compare else ["crf", "preset"])
    given = [name for name in unused if getattr(options, name) not in (None, False)]
    if given:
        names = ", ".join("--" + name.replace("_", "-") for name in given)
        kind = "raw frames" if to_pipe else "PNG files"
        raise ValueError(f"-o {options.output}: {kind} have no encoder: leave out {names}")


def _check_names(source: ImageSource) -> None:
    """Results are named like their sources, in one folder."""
    seen: dict[str, Path] = {}
    for path in source.paths:
        if other := seen.get(path.stem):
            raise ValueError(
                f"{path} and {other} would both become {path.stem}.png: upscale them apart"
            )
        seen[path.stem] = path


def _names_folder(output: str) -> bool:
    return output.endswith(("/", os.sep)) or Path(output).is_dir() or not Path(output).suffix


def _refuse_to_overwrite(options: UpscaleOptions, work: WorkFolder, to_images: bool) -> None:
    output = work.output
    occupied = output.exists() and not (output.is_dir() and not any(output.iterdir()))
    taken = [output] if occupied else []
    if options.compare:
        path = comparison_path(output, to_images=to_images)
        taken += filter(Path.exists, (path, path.with_suffix(".png")))
    # A run that was interrupted while finishing has its output in place, or a part of it.
    continued = options.resume and work.exists()
    if taken and not (options.overwrite or options.dry_run or continued):
        raise FileExistsError(f"{taken[0]} exists: pass -y to replace it, or choose another -o")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"{output.parent}: no such folder to write {output.name} to")
    if work.exists() and not (options.resume or options.overwrite or options.dry_run):
        how = "" if options.input == "-" else "continue it with --resume, or "
        raise FileExistsError(f"{work.path} is left of an unfinished run: {how}start over with -y")


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


def _extras(options: UpscaleOptions, source: VideoSource, work: WorkFolder) -> CopiedStreams:
    """The other streams, from the source or from what will be put aside of a pipe."""
    kinds = ["audio"] if options.audio else []
    if options.subtitles:
        kinds += ["subtitle", "attachment"]
    if source.is_pipe:
        return SpooledStreams(source.container, work.spool, kinds)
    return CopiedStreams(source.path, kinds)


def _check_comparison(
    options: UpscaleOptions, source: VideoSource | ImageSource, encoding: Encoding | None
) -> None:
    path = comparison_path(Path(options.output), to_images=encoding is None)
    colour = SRGB_AS_VIDEO if encoding is None else encoding.colour
    try:
        check_encoding(
            comparison_encoding(
                path, source.info, colour, options.compare, SCALE, options.comparison_quality
            )
        )
    except ValueError as error:
        raise ValueError(f"--compare {options.compare}: {error}") from error


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
        first_chunk=None if options.chunk is not None else recorded.get("first_chunk"),
        warm_up=options.warm_up,
        tile=None if tile is None else (tile[0], tile[1]),
        overlap=options.overlap,
        self_ensemble=options.self_ensemble,
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

"""Decides and checks everything that a run will do, and writes nothing."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import av
import torch

import iart_plugin
from iart_plugin.inference.devices import missing_gpu_advice, pick_device, pick_precision
from iart_plugin.inference.engine import SCALE, Engine, make_engine
from iart_plugin.inference.memory import Plan, choose_plan
from iart_plugin.inference.models import LoadedModel, load_model
from iart_plugin.video.colour import SRGB_AS_VIDEO
from iart_plugin.video.compare import comparison_encoding, comparison_path
from iart_plugin.video.encoding import Encoding, choose_encoding, container_of
from iart_plugin.video.reader import ImageSource, VideoSource, is_pipe, open_source
from iart_plugin.video.rehearsal import check_encoding, plan_streams
from iart_plugin.video.streams import OtherStreams, SpooledStreams

from .distributed import Group
from .options import UpscaleOptions
from .records import plan_record, record_of_source
from .selection import Selection
from .target import Target
from .work_folder import WorkFolder

logger = logging.getLogger(__name__)

# Each segment starts with a key frame: two seconds of film, a usual distance for them.
SHORTEST_SEGMENT = 48


@dataclass
class Job:
    """A run that is set up.

    Attributes:
        options: The user's options.
        group: The processes that share the work.
        target: The place of the result.
        source: The open film or images.
        model: The loaded network.
        device: The device that the network runs on.
        precision: The number format that the network computes in.
        size: Height and width of the output's frames.
        encoding: How a video is encoded. A pipe's frames have its size, colours and pixel format.
            None where PNG images are written.
        extras: The source's other streams, which are written to the output too.
        plan: How frames are cut into clips and tiles.
        segment: The number of frames in a segment.
    """

    options: UpscaleOptions
    group: Group
    target: Target
    source: VideoSource | ImageSource
    model: LoadedModel
    device: torch.device
    precision: str
    size: tuple[int, int]
    encoding: Encoding | None
    extras: OtherStreams | None
    plan: Plan = field(init=False)
    segment: int = field(init=False)

    @property
    def output(self) -> Path:
        """The output's path."""
        return self.target.path

    @property
    def work(self) -> WorkFolder | None:
        """The folder of the unfinished run; None for a pipe."""
        return self.target.work

    @property
    def to_images(self) -> bool:
        """Whether PNG files are written."""
        return self.target.kind == "images"

    @property
    def selection(self) -> Selection | None:
        """The part of the film that is made; None for all of it."""
        return Selection.of(self.options)

    @property
    def frames(self) -> int | None:
        """About how many frames are made, or None where that is not known."""
        info = self.source.info
        return info.frames if self.selection is None else self.selection.count(info)

    def engine(self) -> Engine:
        """A fresh engine."""
        return make_engine(
            self.model.network,
            self.plan,
            self.device,
            self.precision,
            self.options.self_ensemble,
            self.size,
            self.options.compile,
        )

    def record(self) -> dict[str, Any]:
        """Everything that decides the bits of the segments, for comparison when a run resumes."""
        return {
            "software": {
                "iart_plugin": iart_plugin.__version__,
                "torch": torch.__version__,
                "av": av.__version__,
            },
            **record_of_source(self.source, self.encoding),
            "model": {
                "name": self.model.name,
                "sha256": self.model.digest,
                "settings": self.model.settings,
            },
            "device": self.device.type,
            "precision": self.precision,
            "size": list(self.size),
            "self_ensemble": self.options.self_ensemble,
            "compiled": self.options.compile,
            "scene_detection": self.options.scene_detection,
            "plan": plan_record(self.plan, self.segment),
            "selection": self.selection.record() if self.selection else "all",
        }


def prepare(options: UpscaleOptions, group: Group) -> Job:
    """Decide everything, and fail here rather than after hours of work.

    Raises:
        ValueError: The options or the input cannot be used; the message says which.
        FileExistsError: The output exists already.
        OSError: There is not enough space for the output.
    """
    target = _choose_target(options, group)
    model, device, precision = _choose_network(options, group)
    source = open_source(
        options.input,
        rate=options.fps,
        on_error=options.on_error,
        deinterlace=options.deinterlace,
    )
    try:
        size = _choose_size(options, target, source)
        encoding = _choose_encoding(options, target, source, size)
        extras = _choose_extras(options, target, source, encoding)
        _check_names(target, source)
        _check_comparison(options, target, source, encoding)
        job = Job(options, group, target, source, model, device, precision, size, encoding, extras)
        job.plan, job.segment = group.share(_choose_plan(job))
        _check_disk(job)
    except BaseException:
        source.close()
        raise
    return job


def _choose_target(options: UpscaleOptions, group: Group) -> Target:
    """Where the result goes, once it is certain that it may go there."""
    options.check()
    target = Target.of(options.output)
    for name, once in (("input", is_pipe(options.input)), ("-o", target.kind == "pipe")):
        if once and (group.size > 1 or options.resume or options.compare):
            raise ValueError(
                f"{name}: a pipe can be neither shared, resumed nor compared; name a file"
            )
    options.refuse_unused(target.kind)
    if group.is_first:
        target.check(options)
    group.wait()
    return target


def _choose_network(options: UpscaleOptions, group: Group) -> tuple[LoadedModel, torch.device, str]:
    """The network with its weights, its device and its precision."""
    device = group.device(pick_device(options.device))
    model = load_model(
        options.model,
        options.weights,
        device=device,
        clean_passes=options.clean_passes,
        clean_threshold=options.clean_threshold,
    )
    if device.type == "cpu" and options.device == "auto" and (advice := missing_gpu_advice()):
        logger.warning("%s", advice)
    return model, device, pick_precision(options.precision, device)


def _choose_size(
    options: UpscaleOptions, target: Target, source: VideoSource | ImageSource
) -> tuple[int, int]:
    """Height and width of the output; even in a video, whose colours may be stored by twos."""
    height, width = source.info.height, source.info.width
    factor = options.scale or SCALE
    if options.height is not None:
        if not 1 <= options.height <= SCALE * height:
            raise ValueError(
                f"--height {options.height}: from {height} pixels the network can make up to "
                f"{SCALE * height}"
            )
        factor = options.height / height
    step = 1 if target.kind == "images" else 2
    rows, columns = (max(step, round(side * factor / step) * step) for side in (height, width))
    return rows, columns


def _choose_encoding(
    options: UpscaleOptions,
    target: Target,
    source: VideoSource | ImageSource,
    size: tuple[int, int],
) -> Encoding | None:
    """How the video is encoded, tried once; None for images."""
    if target.kind == "images":
        return None
    to_pipe = target.kind == "pipe"
    colour = source.info.colour if source.info.is_video else SRGB_AS_VIDEO
    if colour.matrix == 0:  # an RGB video, written as Y'CbCr
        colour = SRGB_AS_VIDEO
    encoding = choose_encoding(
        source.info,
        "matroska" if to_pipe else container_of(target.path),
        colour,
        codec="rawvideo" if to_pipe else options.codec,
        crf=options.crf,
        preset=options.preset,
        pix_fmt=options.pix_fmt,
        lossless=options.lossless,
        scale=SCALE,
    )
    encoding = replace(encoding, height=size[0], width=size[1])
    if not to_pipe:
        check_encoding(encoding)
    return encoding


def _choose_extras(
    options: UpscaleOptions,
    target: Target,
    source: VideoSource | ImageSource,
    encoding: Encoding | None,
) -> OtherStreams | None:
    """The source's other streams, once it is known how the container can hold them."""
    if target.kind != "video" or not isinstance(source, VideoSource):
        return None
    wanted = {"sound": options.audio, "subtitles": options.subtitles}
    if source.is_pipe:  # what is put aside while it is read
        extras = SpooledStreams(source, target.work.spool, **wanted)
    else:
        extras = OtherStreams(source.path, **wanted)
    plan_streams(extras, encoding)
    if selection := Selection.of(options):
        selection.cut(extras)
    return extras


def _check_names(target: Target, source: VideoSource | ImageSource) -> None:
    """Results of images are named like their sources, in one folder."""
    if target.kind != "images" or not isinstance(source, ImageSource):
        return
    seen: dict[str, Path] = {}
    for path in source.paths:
        if other := seen.get(path.stem):
            raise ValueError(
                f"{path} and {other} would both become {path.stem}.png: upscale them apart"
            )
        seen[path.stem] = path


def _check_comparison(
    options: UpscaleOptions,
    target: Target,
    source: VideoSource | ImageSource,
    encoding: Encoding | None,
) -> None:
    """The comparison's encoder is tried like the output's."""
    if not options.compare:
        return
    path = comparison_path(target.path, to_images=target.kind == "images")
    colour = SRGB_AS_VIDEO if encoding is None else encoding.colour
    try:
        check_encoding(
            comparison_encoding(
                path, source.info, colour, options.compare, SCALE, options.comparison_quality
            )
        )
    except ValueError as error:
        raise ValueError(f"--compare {options.compare}: {error}") from error


def _choose_plan(job: Job) -> tuple[Plan, int]:
    """The plan and the segments' length. A resumed run keeps those that it began with."""
    options, info, work = job.options, job.source.info, job.work
    begun: dict[str, Any] = {}
    if options.resume and work is not None and work.exists():
        # Another source is named here: it may not even fit the plan that the run began with.
        work.check(record_of_source(job.source, job.encoding))
        begun = work.record().get("plan", {})
    tile = options.tile if options.tile is not None else begun.get("tile")
    if options.chunk is not None:
        begun = {"chunk": options.chunk}
    plan = choose_plan(
        info.height,
        info.width,
        job.model.network.to(job.device),
        device=job.device,
        precision=job.precision,
        chunk=begun.get("chunk"),
        first_chunk=begun.get("first_chunk"),
        longest=_longest_chunk(job),
        warm_up=options.warm_up,
        tile=None if tile is None else (tile[0], tile[1]),
        overlap=options.overlap,
        self_ensemble=options.self_ensemble,
    )
    return plan, plan.chunk * -(-SHORTEST_SEGMENT // plan.chunk)


def _longest_chunk(job: Job) -> int | None:
    """Frames of a chunk at most, so that every process gets some of them; None for one process."""
    if job.group.size == 1 or job.frames is None:
        return None
    return max(SHORTEST_SEGMENT, job.frames // (2 * job.group.size))


def expected_bytes(job: Job) -> int | None:
    """A guess at the output's size, or None where the number of frames is not known."""
    info = job.source.info
    if job.frames is None:
        return None
    pixels = job.size[0] * job.size[1] * job.frames
    deep = 1 if info.depth <= 8 else 2
    if job.to_images or job.options.lossless:
        return int(pixels * 1.6 * deep)  # about half of the samples' bytes, as photographs compress
    return int(pixels * 0.025)  # 0.2 bits a pixel: generous for the default quality


def _check_disk(job: Job) -> None:
    """Make sure that the output is likely to fit.

    Raises:
        OSError: It is not.
    """
    expected = expected_bytes(job)
    if not job.options.check_disk or not job.group.is_first or not job.work or expected is None:
        return
    if not job.to_images:
        expected *= 2  # the segments, and the file that they are put together in
    free = shutil.disk_usage(job.output.parent).free
    if free < expected:
        raise OSError(
            f"{job.output.parent}: about {expected / 2**20:,.0f} MiB are needed and "
            f"{free / 2**20:,.0f} MiB are free; make room, or pass --ignore-disk-space"
        )

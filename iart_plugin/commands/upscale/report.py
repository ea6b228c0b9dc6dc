"""What a run says about itself before it starts."""

from __future__ import annotations

import time
from fractions import Fraction

import torch

from iart_plugin.inference.devices import HALF
from iart_plugin.inference.engine import SMALLEST_TILE

from .job import Job, expected_bytes


def start_report(job: Job) -> list[str]:
    """A line each about the input, the output, the network and the plan."""
    info, plan = job.source.info, job.plan
    count = f"{info.frames} frames" if info.frames is not None else "frames not counted"
    if job.selection is not None:
        count += f" of which {job.frames or 'some'} are taken"
    size = f"{job.size[1]}x{job.size[0]}"
    if job.encoding is None:
        form = "PNG images"
    elif job.work is None:
        form = f"{job.options.pipe_format}, {job.encoding.pix_fmt}"
    else:
        form = f"{job.encoding.container}, {job.encoding.codec}, {job.encoding.pix_fmt}"
    tiles = plan.tiling.count(info.height, info.width)
    cut = "whole frames"
    if tiles > 1:
        cut = f"{tiles} tiles of {plan.tiling.size[1]}x{plan.tiling.size[0]}"
    processes = f", {job.group.size} processes" if job.group.size > 1 else ""
    return [
        f"in:    {job.options.input}: {info.width}x{info.height}, {count}, "
        f"{_rate_text(info.rate)} fps, {info.depth} bit",
        f"out:   {job.options.output}: {size}, {form}",
        f"model: {job.model.summary}",
        f"run:   {job.device}, {job.precision}{processes}; {plan.chunk} frames at a time with "
        f"{plan.warm_up} before and after, {cut}",
    ]


def dry_run_report(job: Job) -> str:
    """The same, and the memory, disk space and time that the run will take.

    The time is estimated by doing a small piece of the work.
    """
    plan = job.plan
    lines = start_report(job)
    memory = f"memory: about {_gib(plan.device_bytes)} on {job.device}"
    lines.append(f"{memory} and {_gib(plan.host_bytes)} of frames in main memory")
    expected = expected_bytes(job)
    if expected is not None and job.work is not None:
        lines.append(f"disk:  about {_gib(expected)}, twice that while it is put together")
    seconds = seconds_a_frame(job)
    text = f"time:  about {_two_digits(seconds)} s a frame"
    if job.frames is not None:
        text += f", {_duration(seconds * job.frames / job.group.size)} in all"
    lines += [text, "nothing was written (--dry-run)"]
    return "\n".join(lines)


@torch.no_grad()
def seconds_a_frame(job: Job) -> float:
    """The time that a frame takes, estimated from three frames of at most 64x64 pixels."""
    engine = job.engine()
    info, plan = job.source.info, job.plan
    height, width = min(info.height, SMALLEST_TILE), min(info.width, SMALLEST_TILE)
    clip = torch.rand(1, 3, 3, height, width, device=job.device)
    half = HALF.get(job.precision)
    times = []
    for _ in range(2):  # the first one also sets the device up
        start = time.perf_counter()
        with torch.autocast(job.device.type, dtype=half, enabled=half is not None):
            out = engine.network(clip)
        float(out.sum())  # waits for the device
        times.append(time.perf_counter() - start)
    tile_pixels = min(plan.tiling.size[0], info.height) * min(plan.tiling.size[1], info.width)
    pixels = tile_pixels * plan.tiling.count(info.height, info.width)
    repeated = (plan.chunk + 2 * plan.warm_up) / plan.chunk
    views = 8 if job.options.self_ensemble else 1
    return min(times) / 3 * pixels / (height * width) * repeated * views


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"


def _two_digits(value: float) -> str:
    """Two significant digits, as people write them: 0.012, 4.3, 430."""
    return f"{float(f'{value:.1e}'):.12f}".rstrip("0").rstrip(".")


def _duration(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}"


def _rate_text(rate: Fraction) -> str:
    """The rate in words, such as "24" or "23.976 (24000/1001)"."""
    return str(rate) if rate.denominator == 1 else f"{float(rate):.3f} ({rate})"

"""Plans how many frames at a time, and how large a tile, fit the free memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

from iart_plugin.archs.architecture import Cost, architecture_of, recurrence_cost
from iart_plugin.flow.spynet import chunk_pixels

from .chunks import Clip, iter_clips
from .host_memory import free_host_memory
from .tiles import Tiling

T = TypeVar("T")
CHUNKS = (192, 96, 48, 24, 12, 6, 3, 1)
"""Lengths of a chunk to choose from, in frames. With 10 warm-up frames on each side, a chunk longer
than the longest of these would save less than a tenth of the work."""
FIRST_CHUNK = 48
"""The most frames in the first chunk, so that the first result does not wait for a long chunk."""
SMALLEST_AUTO_TILE = 128
_SHARE = 0.6  # of the free memory; the rest is left to the allocator and to other programs
_FLOW_STEP = 700  # bytes per pixel of a pair of frames while its flow is estimated


@dataclass(frozen=True)
class Plan:
    """How a job will be cut into chunks and tiles.

    Attributes:
        chunk: Frames of a chunk.
        first_chunk: Frames of the first chunk.
        warm_up: Warm-up frames on each side of a chunk.
        tiling: The tiles of a frame.
        device_bytes: Estimated peak memory on the device, in bytes.
        host_bytes: Estimated peak memory of the frames in main memory, in bytes. On a CPU it adds
            to ``device_bytes``.
    """

    chunk: int
    first_chunk: int
    warm_up: int
    tiling: Tiling
    device_bytes: int = 0
    host_bytes: int = 0

    def clips(self, frames: Iterable[tuple[T, bool]]) -> Iterator[Clip[T]]:
        """Cut a stream into clips as planned; each frame comes with whether it begins a scene."""
        return iter_clips(
            frames, chunk=self.chunk, first_chunk=self.first_chunk, overlap=self.warm_up
        )


def network_cost(network: Any) -> Cost:
    """The memory that a network takes, from the table of architectures.

    A module that is not in the table is assumed to have 64 feature channels.
    """
    row = architecture_of(network)
    if row is not None:
        return row.cost(network)
    return recurrence_cost(64, streams=hasattr(network, "forward_iter"))


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on a device."""
    if device.type == "cuda":
        # The driver counts memory that PyTorch keeps for reuse as used, so it is added here.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    if device.type == "mps":
        used = torch.mps.driver_allocated_memory()
        return max(0, torch.mps.recommended_max_memory() - used)
    return free_host_memory()


def _processes(device: torch.device) -> int:
    """How many processes that torchrun started on this machine share a device's memory."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return -(-processes // torch.cuda.device_count()) if device.type == "cuda" else processes


def choose_plan(
    height: int,
    width: int,
    network: Any,
    *,
    device: torch.device,
    precision: str,
    chunk: int | None = None,
    first_chunk: int | None = None,
    longest: int | None = None,
    warm_up: int = 10,
    tile: int | tuple[int, int] | None = None,
    overlap: int = 24,
    self_ensemble: bool = False,
    budget: int | None = None,
) -> Plan:
    """Plan the chunks and tiles, choosing whatever the arguments leave open.

    Among the chunks and tiles that fit the memory, this takes those that repeat the least work:
    short chunks repeat warm-up frames, and small tiles repeat overlaps.

    Args:
        height: Height of a low-resolution frame.
        width: Width of a low-resolution frame.
        network: The network, which decides the memory that a frame takes.
        device: The device whose free memory counts.
        precision: "fp32", "bf16" or "fp16"; the last two need less memory.
        chunk: Frames of a chunk. If None, it is chosen, and the first chunk's length too.
        first_chunk: Frames of the first chunk; ``chunk`` if None.
        longest: The most frames of a chunk, if ``chunk`` is None. The table of architectures may
            have a lower limit for the network.
        warm_up: Warm-up frames on each side.
        tile: Sides of a tile in low-resolution pixels, 0 for whole frames, or None to choose.
        overlap: Low-resolution pixels that neighbouring tiles share.
        self_ensemble: Whether eight results of every frame are added up, in float32.
        budget: The most bytes to use on the device. If None, it is a share of the free memory,
            divided among the processes that torchrun has started on this machine.

    Raises:
        ValueError: A value is negative, or the overlap is as large as a tile.
    """
    if (chunk is not None and chunk < 1) or warm_up < 0:
        raise ValueError(f"--chunk must be at least 1 and --warm-up at least 0: {chunk}, {warm_up}")
    if chunk is None:
        first_chunk = FIRST_CHUNK
    if budget is None:
        budget = int(_SHARE * free_memory(device) / _processes(device))
    host_budget = int(_SHARE * free_host_memory() / _processes(torch.device("cpu")))

    def excess(plan: Plan) -> int:
        """How many bytes a plan needs beyond the budgets, in total."""
        if device.type == "cpu":
            return max(0, plan.device_bytes + plan.host_bytes - budget)
        return max(0, plan.device_bytes - budget) + max(0, plan.host_bytes - host_budget)

    def repeated_work(plan: Plan) -> float:
        boxes = plan.tiling.boxes(height, width)
        pixels = sum((r.stop - r.start) * (c.stop - c.start) for r, c in boxes)
        return pixels * (plan.chunk + 2 * plan.warm_up) / plan.chunk

    row = architecture_of(network)
    most = min(longest or CHUNKS[0], (row and row.longest_chunk) or CHUNKS[0])
    chunks = [frames for frames in CHUNKS if frames <= most]
    plans = []
    for tiling in _tilings(height, width, tile, overlap):
        for frames in chunks if chunk is None else (chunk,):
            plan = Plan(frames, min(first_chunk or frames, frames), warm_up, tiling)
            plans.append(_with_memory(plan, (height, width), network, device, precision,
                                      self_ensemble))  # fmt: skip
    # If no plan fits, the closest one is used; the engine makes the parts smaller if it fails.
    least = min(map(excess, plans))
    return min((plan for plan in plans if excess(plan) == least), key=repeated_work)


def _tilings(
    height: int, width: int, tile: int | tuple[int, int] | None, overlap: int
) -> list[Tiling]:
    """The tiling that was asked for, or whole frames and every tiling that is worth trying."""
    if tile not in (None, 0, (0, 0)):
        tilings = [Tiling((tile, tile) if isinstance(tile, int) else tile, overlap)]
        tilings[0].boxes(height, width)  # refuses an overlap that is too large
        return tilings
    if tile is not None:
        return [Tiling((height, width), overlap)]
    counts = [range(1, max(1, length // SMALLEST_AUTO_TILE) + 1) for length in (height, width)]
    tilings = [
        Tiling.of_counts(height, width, (rows, columns), overlap)
        for rows in counts[0]
        for columns in counts[1]
    ]
    return [tiling for tiling in tilings if _works(tiling, height, width)]


def _works(tiling: Tiling, height: int, width: int) -> bool:
    """Whether each tile side is at least twice the overlap, or covers the whole frame."""
    sides = zip(tiling.size, (height, width), strict=True)
    return all(side >= length or side >= 2 * tiling.overlap for side, length in sides)


def _with_memory(
    plan: Plan,
    size: tuple[int, int],
    network: Any,
    device: torch.device,
    precision: str,
    self_ensemble: bool,
) -> Plan:
    """Add to a plan the memory that it is estimated to need for frames of ``size``."""
    height, width = size
    cost = network_cost(network)
    factor = 1.0 if precision == "fp32" else 0.6  # flow and results stay in float32
    whole = height * width
    pixels = min(plan.tiling.size[0], height) * min(plan.tiling.size[1], width)
    clip = plan.chunk + 2 * plan.warm_up
    needed = pixels * cost.step * factor + clip * (pixels * cost.frame * factor + whole * 28)
    needed += whole * cost.whole * factor
    if hasattr(network, "spynet"):
        needed += _FLOW_STEP * min(2 * clip * whole, max(chunk_pixels(device), whole))
    # Float32 pictures are needed to blend tiles and to add up the self-ensemble, 192 bytes per
    # low-resolution pixel each. The next clip is read ahead, so two clips are in memory.
    pictures = (plan.tiling.count(height, width) > 1) + self_ensemble
    host = whole * (plan.chunk * pictures * 192 + 2 * clip * 3)
    return replace(plan, device_bytes=int(needed), host_bytes=int(host))

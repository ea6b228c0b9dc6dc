"""Cutting an endless stream of frames into clips that a recurrent network can take.

A clip is a chunk (the frames whose results are kept) with extra frames on both sides that only warm
the recurrence up. A chunk starts at every multiple of the chunk length, counted from frame 0, at
the end of the shorter first chunk, and at every scene cut. Resuming a run, or sharing its work
among processes, therefore gives the same chunks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Clip(Generic[T]):
    """A chunk with the warm-up frames before and after it.

    Attributes:
        start: Index of the first frame to keep.
        stop: One past the last frame to keep.
        first: Index of ``frames[0]``, at most ``start``.
        frames: The chunk and its warm-up frames.
    """

    start: int
    stop: int
    first: int
    frames: list[T]

    @property
    def kept(self) -> slice:
        """The part of ``frames`` that is kept."""
        return slice(self.start - self.first, self.stop - self.first)

    def without_first(self) -> Clip[T]:
        """The same clip, except that its first frame to keep is now a warm-up frame."""
        return replace(self, start=self.start + 1)

    def trimmed(self, overlap: int) -> Clip[T]:
        """The same clip with at most ``overlap`` warm-up frames on each side."""
        first = max(self.first, self.start - overlap)
        stop = min(self.first + len(self.frames), self.stop + overlap)
        return replace(
            self, first=first, frames=self.frames[first - self.first : stop - self.first]
        )

    def halves(self, overlap: int) -> tuple[Clip[T], Clip[T]]:
        """Split the chunk into two shorter clips, which together keep the same frames.

        Raises:
            ValueError: The chunk has only one frame.
        """
        if self.stop - self.start < 2:
            raise ValueError(f"a chunk of one frame (frame {self.start}) cannot be halved")
        middle = (self.start + self.stop) // 2
        return (
            replace(self, stop=middle).trimmed(overlap),
            replace(self, start=middle).trimmed(overlap),
        )


def iter_clips(
    frames: Iterable[tuple[T, bool]], *, chunk: int, overlap: int, first_chunk: int | None = None
) -> Iterator[Clip[T]]:
    """Cut a stream into clips, reading no further ahead than the next clip needs.

    At most ``chunk + 2 * overlap`` frames are in memory.

    Args:
        frames: Pairs of a frame and whether it begins a new scene. No clip contains a scene cut.
        chunk: The largest number of frames in a chunk.
        overlap: Warm-up frames on each side; there are fewer at the ends of a scene.
        first_chunk: Frames of the stream's first chunk, if fewer than ``chunk``, so that the first
            result does not wait for a long chunk.

    Raises:
        ValueError: ``chunk`` or ``first_chunk`` is below 1, or ``overlap`` is below 0.
    """
    first_chunk = chunk if first_chunk is None else first_chunk
    if min(chunk, first_chunk) < 1 or overlap < 0:
        raise ValueError(f"chunk must be at least 1 and overlap at least 0, got {chunk}, {overlap}")
    held: deque[T] = deque()  # the current scene's frames that are still needed
    # Frame numbers: of held[0], of the next chunk's first frame, and one past that of held[-1].
    first = start = end = 0

    def emit(stop: int) -> Clip[T]:
        begin = max(first, start - overlap)
        return Clip(
            start, stop, begin, list(held)[begin - first : min(stop + overlap, end) - first]
        )

    def chunk_end() -> int:
        return first_chunk if start < first_chunk < chunk else (start // chunk + 1) * chunk

    for frame, is_cut in frames:
        if is_cut and held:
            while start < end:
                stop = min(chunk_end(), end)
                yield emit(stop)
                start = stop
            held.clear()
            first = start
        held.append(frame)
        end += 1
        while chunk_end() + overlap <= end:
            stop = chunk_end()
            yield emit(stop)
            start = stop
            while first < start - overlap:
                held.popleft()
                first += 1
    while start < end:
        stop = min(chunk_end(), end)
        yield emit(stop)
        start = stop


def clip_around(
    frame: int, length: int, begins_scene: Callable[[int], bool], *, chunk: int, overlap: int
) -> Clip[int]:
    """Find the clip that keeps a frame, as :func:`iter_clips` cuts it if it reads from frame 0.

    It asks only about frames near the given one, so that frames can be wanted in any order.

    Args:
        frame: Index of the frame.
        length: The number of frames in the stream.
        begins_scene: Whether the frame with an index begins a new scene.
        chunk: The largest number of frames in a chunk.
        overlap: Warm-up frames on each side; there are fewer at the ends of a scene.

    Returns:
        The clip; its ``frames`` are indices.
    """
    start, stop = frame, frame + 1
    while start % chunk and not begins_scene(start):
        start -= 1
    while stop < length and stop % chunk and not begins_scene(stop):
        stop += 1
    first, end = start, stop
    while first > max(0, start - overlap) and not begins_scene(first):
        first -= 1
    while end < min(length, stop + overlap) and not begins_scene(end):
        end += 1
    return Clip(start, stop, first, list(range(first, end)))

"""Cutting a stream into clips."""

from __future__ import annotations

import random

import pytest

from iart_plugin.inference.chunks import Clip, clip_around, iter_clips


def cut(count, cuts=(), *, chunk, overlap):
    return list(iter_clips(((i, i in cuts) for i in range(count)), chunk=chunk, overlap=overlap))


@pytest.mark.parametrize("seed", range(40))
def test_every_frame_is_kept_once_in_order(seed):
    rng = random.Random(seed)
    count, chunk, overlap = rng.randint(1, 60), rng.randint(1, 12), rng.randint(0, 9)
    cuts = {i for i in range(1, count) if rng.random() < 0.1}
    clips = cut(count, cuts, chunk=chunk, overlap=overlap)
    assert [i for c in clips for i in c.frames[c.kept]] == list(range(count))
    for clip in clips:
        assert clip.frames == list(range(clip.first, clip.first + len(clip.frames)))
        assert clip.stop - clip.start <= chunk
        scene = [0, *sorted(cuts), count]
        begin = max(s for s in scene if s <= clip.start)
        end = min(s for s in scene if s > clip.start)
        assert clip.first == max(begin, clip.start - overlap)
        assert clip.first + len(clip.frames) == min(end, clip.stop + overlap)


def test_where_clips_start_does_not_depend_on_the_frames_before():
    """So that a run can be continued at any multiple of the chunk."""
    clips = cut(30, {7, 20}, chunk=5, overlap=3)
    assert [c.start for c in clips] == [0, 5, 7, 10, 15, 20, 25]


def test_no_further_read_than_needed():
    taken = []

    def frames():
        for i in range(1000):
            taken.append(i)
            yield i, False

    clips = iter_clips(frames(), chunk=4, overlap=2)
    next(clips)
    assert len(taken) == 6
    next(clips)
    assert len(taken) == 10


def test_halves_keep_the_same_frames():
    clip = Clip(10, 15, 7, list(range(7, 18)))
    left, right = clip.halves(2)
    assert left.frames[left.kept] + right.frames[right.kept] == clip.frames[clip.kept]
    assert left.frames == list(range(8, 14))
    assert right.frames == list(range(10, 17))
    with pytest.raises(ValueError, match="one frame"):
        Clip(3, 4, 3, [3]).halves(1)


@pytest.mark.parametrize(("chunk", "overlap"), [(0, 1), (4, -1)])
def test_refused(chunk, overlap):
    with pytest.raises(ValueError, match=r"chunk must be at least 1"):
        cut(3, chunk=chunk, overlap=overlap)


def test_the_first_chunk_may_be_shorter():
    """The first result does not wait for a long chunk, and the grid of the others stays."""
    clips = list(iter_clips(((i, False) for i in range(25)), chunk=10, overlap=2, first_chunk=4))
    assert [(c.start, c.stop) for c in clips] == [(0, 4), (4, 10), (10, 20), (20, 25)]
    assert [c.first for c in clips] == [0, 2, 8, 18]
    stream = (i for i in range(25))
    next(iter_clips(((i, False) for i in stream), chunk=10, overlap=2, first_chunk=4))
    assert next(stream) == 6


@pytest.mark.parametrize("seed", range(20))
def test_the_clip_around_a_frame_is_the_stream_s_clip(seed):
    rng = random.Random(seed)
    count, chunk, overlap = rng.randint(1, 60), rng.randint(1, 12), rng.randint(0, 9)
    cuts = {i for i in range(count) if rng.random() < 0.1}  # a cut at frame 0 changes nothing
    for clip in cut(count, cuts, chunk=chunk, overlap=overlap):
        for frame in range(clip.start, clip.stop):
            found = clip_around(frame, count, cuts.__contains__, chunk=chunk, overlap=overlap)
            assert found == clip

"""The filters for VapourSynth, run by VapourSynth itself."""

from __future__ import annotations

import random
import weakref
from collections import Counter

import cv2
import numpy as np
import pytest

from iart_plugin.archs import IACNN
from iart_plugin.inference import upscale as upscale_frames

vs = pytest.importorskip(
    "vapoursynth",
    reason="VapourSynth is not installed: its wheels need Python 3.12, and the newest leg of "
    ".ci/run, on Python 3.13, has it",
)
from iart_plugin.vapoursynth import mark_scenes, upscale  # noqa: E402

COUNT, CHUNK, WARM_UP = 10, 4, 1


def tiny_network():
    return IACNN(num_feat=8, num_block=1, num_heads=2).eval()


@pytest.fixture
def network():
    return tiny_network()


@pytest.fixture
def frames():
    """Pictures (8, 12, 3) that move, float32 in [0, 1]."""
    scenery = np.random.default_rng(0).random((8 + COUNT, 12 + COUNT, 3), np.float32)
    scenery = cv2.GaussianBlur(scenery, (5, 5), 0)
    return [scenery[i : i + 8, i : i + 12].copy() for i in range(COUNT)]


def clip_of(pictures, props=None, *, format=vs.RGBS, reads=None):
    """A clip of arrays, with each frame's properties; ``reads`` counts how often each is read."""
    height, width, _ = pictures[0].shape
    blank = vs.core.std.BlankClip(format=format, width=width, height=height, length=len(pictures))

    def filled(n, f):
        if reads is not None:
            reads[n] += 1
        frame = f.copy()
        for plane in range(3):
            np.copyto(np.asarray(frame[plane]), pictures[n][..., plane])
        frame.props.update({"number": n, **(props or {}).get(n, {})})
        return frame

    return blank.std.ModifyFrame(blank, filled)


def array_of(frame):
    return np.stack([np.asarray(frame[plane]) for plane in range(3)], axis=-1)


def small(clip, network, **options):
    options = {"chunk": CHUNK, "warm_up": WARM_UP, "device": "cpu", **options}
    return upscale(clip, model=network, **options)


def expected(pictures, network, **options):
    options = {"chunk": CHUNK, "warm_up": WARM_UP, "device": "cpu", **options}
    options.setdefault("scene_detection", False)
    return list(upscale_frames(pictures, network, **options))


def shuffled(count):
    order = list(range(count))
    random.Random(1).shuffle(order)
    return order


@pytest.mark.parametrize("order", [range(COUNT), reversed(range(COUNT)), shuffled(COUNT)])
def test_frames_in_any_order_equal_the_library(frames, network, order):
    clip = small(clip_of(frames), network)
    wanted = expected(frames, network)
    for index in order:
        with clip.get_frame(index) as frame:
            np.testing.assert_array_equal(array_of(frame), wanted[index])
    assert (clip.width, clip.height, clip.num_frames) == (48, 32, COUNT)


def test_frames_asked_for_by_many_threads_equal_the_library(frames, network):
    clip = small(clip_of(frames), network)
    wanted = expected(frames, network)
    asked = [(index, clip.get_frame_async(index)) for index in shuffled(COUNT)]
    for index, future in asked:
        np.testing.assert_array_equal(array_of(future.result()), wanted[index])


def test_half_floats_stay_half_floats(frames, network):
    halves = [frame.astype(np.float16) for frame in frames]
    clip = small(clip_of(halves, format=vs.RGBH), network)
    assert clip.format.id == vs.RGBH
    for frame, wanted in zip(clip.frames(), expected(halves, network), strict=True):
        np.testing.assert_array_equal(array_of(frame), wanted)


def test_tiles_equal_the_library(frames, network):
    options = {"tile": (8, 10), "overlap": 4}
    clip = small(clip_of(frames[:3]), network, tile=[8, 10], overlap=4)
    for frame, wanted in zip(clip.frames(), expected(frames[:3], network, **options), strict=True):
        np.testing.assert_array_equal(array_of(frame), wanted)


def test_two_in_a_row_on_a_single_thread_do_not_block(frames, network):
    """A filter that waits for a frame of its source gives its thread to the source."""
    threads = vs.core.num_threads
    vs.core.num_threads = 1
    try:
        clip = small(small(clip_of(frames), network), network, chunk=3, warm_up=0)
        asked = [clip.get_frame_async(index) for index in (0, 9, 1)]
        shapes = {array_of(future.result(timeout=120)).shape for future in asked}
    finally:
        vs.core.num_threads = threads
    assert shapes == {(128, 192, 3)}


@pytest.mark.parametrize(
    "props", [{5: {"_SceneChangePrev": 1}}, {4: {"_SceneChangeNext": 1}}], ids=["prev", "next"]
)
def test_the_recurrence_starts_anew_where_the_properties_say(frames, network, props):
    clip = small(clip_of(frames, props), network, chunk=COUNT)
    wanted = [x for part in (frames[:5], frames[5:]) for x in expected(part, network, chunk=COUNT)]
    for index in (7, 2, 5, 4):
        np.testing.assert_array_equal(array_of(clip.get_frame(index)), wanted[index])
    plain = small(clip_of(frames), network, chunk=COUNT)
    assert not np.array_equal(array_of(plain.get_frame(4)), wanted[4])


def test_marked_scenes_equal_the_library(network):
    noise = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    one, other = (cv2.GaussianBlur(picture, (0, 0), 2) for picture in noise)
    one, other = one * 0.5, 1 - other * 0.5
    pictures = [np.roll(x, i, 1) for x in (one, other) for i in range(3)]
    marked = mark_scenes(clip_of(pictures))
    assert [f.props["_SceneChangePrev"] for f in marked.frames()] == [0, 0, 0, 1, 0, 0]
    wanted = expected(pictures, network, scene_detection=True)
    clip = small(marked, network)
    for index in (3, 2):
        np.testing.assert_array_equal(array_of(clip.get_frame(index)), wanted[index])


def test_properties_are_those_of_the_source(frames, network):
    props = {3: {"_Matrix": 0, "_Transfer": 1, "_ColorRange": 0, "title": "a name"}}
    source = clip_of(frames, props)
    clip = small(source, network)
    assert dict(clip.get_frame(3).props) == dict(source.get_frame(3).props)
    assert clip.get_frame(3).props["number"] == 3
    assert clip.fps == source.fps


def test_frames_in_order_are_read_once_for_the_network(frames, network):
    reads = Counter()
    for _ in small(clip_of(frames, reads=reads), network).frames():
        pass
    # VapourSynth itself reads each frame once more, for its properties.
    assert reads == dict.fromkeys(range(COUNT), 2)


def test_two_clips_share_nothing(frames, network):
    first, second = (small(clip_of(x), network) for x in (frames, frames[::-1]))
    wanted = expected(frames, network), expected(frames[::-1], network)
    for index in (0, 5, 1):
        for clip, results in zip((first, second), wanted, strict=True):
            np.testing.assert_array_equal(array_of(clip.get_frame(index)), results[index])


def test_a_clip_that_is_gone_keeps_no_memory(frames):
    network = tiny_network()
    clip = small(clip_of(frames), network)
    clip.get_frame(3).close()
    gone = weakref.ref(network)
    del clip, network
    assert gone() is None


@pytest.mark.parametrize("options", [{}, {"chunk": 10**9}, {"chunk": 1, "warm_up": 0}])
def test_one_frame_of_one_pixel(network, options):
    pictures = [np.full((1, 1, 3), 0.5, np.float32)]
    options = {"chunk": None, "warm_up": 10, **options}
    clip = small(clip_of(pictures), network, **options)
    (frame,) = clip.frames()
    (wanted,) = expected(pictures, network, **options)
    np.testing.assert_array_equal(array_of(frame), wanted)


def test_real_weights_by_their_file(frames, basicvsr_weights):
    clip = upscale(clip_of(frames[:2]), weights=basicvsr_weights, device="cpu")
    wanted = upscale_frames(frames[:2], "basicvsr", weights=basicvsr_weights, device="cpu")
    for frame, picture in zip(clip.frames(), wanted, strict=True):
        np.testing.assert_array_equal(array_of(frame), picture)


def test_a_source_that_failed_can_be_asked_again(frames, network):
    reads = Counter()

    class Failing(list):
        def __getitem__(self, index):
            if index == 5 and reads[5] == 1:
                raise vs.Error("the disk was not there")
            return super().__getitem__(index)

    clip = small(clip_of(Failing(frames), reads=reads), network)
    with pytest.raises(vs.Error, match="the disk was not there"):
        clip.get_frame(4)
    np.testing.assert_array_equal(array_of(clip.get_frame(4)), expected(frames, network)[4])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_not_finite_are_named_and_spoil_no_other_chunk(frames, network, value):
    frames[9][3, 4, 1] = value
    clip = small(clip_of(frames), network)
    with pytest.raises(vs.Error, match="upscale: frame 9 holds pixels that are NaN or infinite"):
        clip.get_frame(8)
    np.testing.assert_array_equal(array_of(clip.get_frame(1)), expected(frames[:8], network)[1])


def formats():
    blank = vs.core.std.BlankClip
    sizes = [blank(format=vs.RGBS, width=w, height=8, length=1) for w in (8, 16)]
    return {
        "YUV420P8": (blank(format=vs.YUV420P8), 'YUV420P8.*format=vs.RGBS, matrix_in_s="709"'),
        "RGB24": (blank(format=vs.RGB24), r"RGB24, and only RGBS and RGBH.*format=vs.RGBS\)"),
        "GrayS": (blank(format=vs.GRAYS), "GrayS, and only RGBS and RGBH"),
        "variable size": (vs.core.std.Splice(sizes, mismatch=True), "the size or the format"),
        "an array": (np.zeros((4, 4, 3)), "clip is a ndarray, not a video clip"),
    }


@pytest.mark.parametrize("name", formats())
@pytest.mark.parametrize("function", [upscale, mark_scenes])
def test_other_clips_are_refused(function, name):
    clip, message = formats()[name]
    with pytest.raises(vs.Error, match=f"^{function.__name__}: .*{message}"):
        function(clip)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "edvr"}, "^upscale: model edvr: choose one of auto, "),
        ({"weights": "none.pth"}, "^upscale: weights none.pth: no such file"),
        ({"weights": __file__}, r"^upscale: .*test_vapoursynth.py"),
        ({"device": "abacus"}, "^upscale: device abacus: choose auto, cuda"),
        ({"precision": "int8"}, "^upscale: precision 'int8': choose one of fp32"),
        ({"chunk": 0}, "^upscale: chunk must be at least 1 and warm_up at least 0"),
        ({"tile": 8, "overlap": 8}, "^upscale: tiles of 8 pixels that overlap by 8 do not work"),
    ],
)
def test_options_that_cannot_be_used_are_named(frames, options, message):
    options = {"device": "cpu", "model": "auto", **options}
    if "weights" not in options and options["model"] == "auto":
        options["model"] = "bicubic"
    with pytest.raises(vs.Error, match=message):
        upscale(clip_of(frames), **options)


def test_weights_beside_a_network_are_refused(frames, network):
    with pytest.raises(vs.Error, match="the model is a network already"):
        upscale(clip_of(frames), model=network, weights="some.pth")

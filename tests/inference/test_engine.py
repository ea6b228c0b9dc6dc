"""upscale() as a library, and the engine under it."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from iart_plugin.archs import IACNN
from iart_plugin.inference import upscale
from iart_plugin.inference.chunks import Clip
from iart_plugin.inference.engine import Engine, NotFiniteError
from iart_plugin.inference.tiles import Tiling
from tests.videos import moving_picture

CPU = torch.device("cpu")


def nearest(clip):
    return clip.repeat_interleave(4, -1).repeat_interleave(4, -2)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return IACNN(num_feat=8, num_block=1, num_heads=2).eval()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float16])
def test_dtype_and_values_are_kept(dtype):
    frame = moving_picture(0, depth=16).astype(np.float64) / 65535
    peak = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1
    frame = (frame * peak).astype(dtype)
    (out,) = upscale([frame], nearest, device="cpu")
    assert out.dtype == dtype
    assert (out == frame.repeat(4, 0).repeat(4, 1)).all()


def test_result_is_clipped():
    frames = [np.full((4, 4, 3), 200, np.uint8)]
    (out,) = upscale(frames, lambda clip: nearest(clip) * 2, device="cpu")
    assert (out == 255).all()


def test_nothing_in_nothing_out():
    assert list(upscale([], nearest, device="cpu")) == []


def test_lazy_and_constant_memory():
    """Of a thousand frames, a chunk with its surroundings is alive, whatever came before."""
    alive, most = weakref.WeakValueDictionary(), 0

    class Tracked(np.ndarray):
        pass

    def frames():
        for i in range(1000):
            frame = np.zeros((4, 4, 3), np.uint8).view(Tracked)
            alive[i] = frame
            yield frame

    out = upscale(frames(), nearest, chunk=10, warm_up=3, device="cpu", scene_detection=False)
    for _ in out:
        most = max(most, len(alive))
    gc.collect()
    assert most <= 10 + 2 * 3 + 2
    assert len(alive) <= 2


def test_whole_clip_in_one_chunk_is_the_network_itself(network):
    frames = [moving_picture(i) for i in range(5)]
    clip = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)[None] / 255
    with torch.no_grad():
        expected = network(clip)[0].clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1)
    out = list(upscale(frames, network, chunk=10, tile=0, device="cpu"))
    assert (np.stack(out) == expected.numpy()).all()


def test_warm_up_brings_chunks_close_to_the_whole(network):
    frames = [moving_picture(i, 12, 16) for i in range(12)]

    def run(chunk, warm_up):
        out = upscale(frames, network, chunk=chunk, warm_up=warm_up, tile=0, device="cpu")
        return np.stack(list(out)).astype(np.float64)

    whole = run(12, 0)
    errors = [np.abs(run(4, warm_up) - whole).mean() for warm_up in (0, 2, 6)]
    assert errors[0] > errors[1] >= errors[2]


def test_modes_do_not_leak_to_the_caller(network):
    """A generator that is suspended inside no_grad or autocast would leave them on."""
    frames = [moving_picture(i) for i in range(3)]
    out = upscale(frames, network, device="cpu", precision="bf16")
    next(out)
    assert torch.is_grad_enabled()
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_precisions(network, precision):
    frames = [moving_picture(i) for i in range(3)]
    reference = np.stack(list(upscale(frames, network, device="cpu")))
    out = np.stack(list(upscale(frames, network, device="cpu", precision=precision)))
    assert np.abs(out.astype(int) - reference).max() <= (0 if precision == "fp32" else 4)


def test_self_ensemble_commutes_with_flips(network):
    frames = [moving_picture(i, 12, 20) for i in range(2)]
    flipped = [np.ascontiguousarray(f[:, ::-1]) for f in frames]
    turned = [np.ascontiguousarray(np.rot90(f)) for f in frames]
    out, of_flipped, of_turned = (
        np.stack(list(upscale(f, network, self_ensemble=True, device="cpu"))).astype(int)
        for f in (frames, flipped, turned)
    )
    assert np.abs(of_flipped[:, :, ::-1] - out).max() <= 1
    assert np.abs(np.rot90(of_turned, -1, (1, 2)) - out).max() <= 1


def test_self_ensemble_with_tiles(network):
    frames = [moving_picture(i, 16, 40) for i in range(2)]
    whole = list(upscale(frames, network, self_ensemble=True, tile=0, device="cpu"))
    tiled = list(
        upscale(frames, network, self_ensemble=True, tile=(16, 24), overlap=8, device="cpu")
    )
    assert np.abs(np.stack(whole).astype(int) - np.stack(tiled)).max() <= 1


class Limited:
    """A network that has memory for so many pixels."""

    def __init__(self, pixels, message="CUDA out of memory. Tried to allocate"):
        self.pixels, self.message, self.shapes = pixels, message, []

    def __call__(self, clip):
        self.shapes.append(tuple(clip.shape))
        if clip.numel() // 3 > self.pixels:
            raise RuntimeError(self.message)
        return nearest(clip)


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 2 GiB",
        "MPS backend out of memory",
        "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes",
        "DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes",
    ],
)
def test_out_of_memory_is_answered_with_less(message):
    frames = [np.random.RandomState(i).randint(0, 256, (80, 150, 3), np.uint8) for i in range(9)]
    network = Limited(80 * 75 * 4, message)
    engine = Engine(network, CPU, "fp32", Tiling((80, 150), 8), 1)
    out = list(engine.run(Clip(0, 9, 0, frames)))
    assert len(out) == 9
    for frame, result in zip(frames, out, strict=True):
        assert np.abs(result.astype(int) - frame.repeat(4, 0).repeat(4, 1)).max() <= 1
    assert network.shapes[-1][1] <= 4
    # What did not fit is not tried again.
    before = len(network.shapes)
    list(engine.run(Clip(0, 9, 0, frames)))
    assert all(np.prod(s) // 3 <= network.pixels for s in network.shapes[before:])


def test_out_of_memory_in_the_middle_of_a_clip():
    """Frames that were handed over are not made again."""
    frames = [np.full((8, 8, 3), 10 * i, np.uint8) for i in range(6)]

    class Streaming(torch.nn.Module):
        runs = 0

        def forward_iter(self, lqs, flows):
            self.runs += 1
            for i, frame in enumerate(lqs.unbind(1)):
                if self.runs == 1 and i == 3:
                    raise torch.cuda.OutOfMemoryError
                yield nearest(frame)

    engine = Engine(Streaming(), CPU, "fp32", Tiling((8, 8), 0), 2)
    out = list(engine.run(Clip(0, 6, 0, frames)))
    assert [int(f[0, 0, 0]) for f in out] == [0, 10, 20, 30, 40, 50]


def test_frames_behind_the_kept_ones_are_not_made():
    made = []

    class Streaming(torch.nn.Module):
        def forward_iter(self, lqs, flows):
            for i, frame in enumerate(lqs.unbind(1)):
                made.append(i)
                yield nearest(frame)

    engine = Engine(Streaming(), CPU, "fp32", Tiling((8, 8), 0), 2)
    frames = [np.full((8, 8, 3), 10 * i, np.uint8) for i in range(6)]
    out = list(engine.run(Clip(1, 4, 0, frames)))
    assert [int(f[0, 0, 0]) for f in out] == [10, 20, 30]
    assert made == [0, 1, 2, 3]


def test_out_of_memory_for_good():
    engine = Engine(Limited(10), CPU, "fp32", Tiling((80, 150), 8), 1)
    with pytest.raises(MemoryError, match="a single frame in tiles of"):
        list(engine.run(Clip(0, 2, 0, [np.zeros((80, 150, 3), np.uint8)] * 2)))


def test_values_that_are_not_finite_end_the_run():
    frames = [np.full((4, 4, 3), i, np.uint8) for i in range(4)]

    def network(clip):
        return nearest(torch.where(clip * 255 == 2, torch.nan, clip))

    out = upscale(frames, network, device="cpu")
    assert [int(next(out)[0, 0, 0]) for _ in range(2)] == [0, 1]
    with pytest.raises(NotFiniteError, match="frame 2: the network makes values that are not fin"):
        next(out)


def test_half_precision_that_overflows_is_answered_with_float32(caplog):
    """Only for the rest of the chunk that it overflows in."""
    frames = [np.full((8, 8, 3), 10 * i, np.uint8) for i in range(6)]
    halves = []

    class Streaming(torch.nn.Module):
        def forward_iter(self, lqs, flows):
            halves.append(torch.is_autocast_enabled("cpu"))
            for frame in lqs.unbind(1):
                overflows = halves[-1] and 15 < frame.mean() * 255 < 25
                yield nearest(frame) + (torch.inf if overflows else 0)

    engine = Engine(Streaming(), CPU, "fp16", Tiling((8, 8), 0), 0)
    out = [*engine.run(Clip(0, 3, 0, frames[:3])), *engine.run(Clip(3, 6, 3, frames[3:]))]
    assert [int(f[0, 0, 0]) for f in out] == [0, 10, 20, 30, 40, 50]
    assert halves == [True, False, True]
    assert "frame 2 overflows in fp16" in caplog.text


def test_a_reader_may_fill_one_array_with_every_frame():
    def frames():
        frame = np.empty((4, 4, 3), np.uint8)
        for i in range(5):
            frame[:] = i
            yield frame

    out = upscale(frames(), nearest, chunk=5, device="cpu", scene_detection=False)
    assert [int(f[0, 0, 0]) for f in out] == [0, 1, 2, 3, 4]


def test_other_errors_are_not_swallowed():
    def network(clip):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        list(upscale([np.zeros((4, 4, 3), np.uint8)], network, device="cpu"))


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([np.zeros((4, 4), np.uint8)], r"frame 0 is \(4, 4\)"),
        ([np.zeros((4, 4, 3), np.int64)], "frame 0 is int64"),
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)], "frame 1 is"),
    ],
)
def test_wrong_frames(frames, message):
    with pytest.raises(ValueError, match=message):
        list(upscale(frames, nearest, device="cpu"))


def test_network_of_another_scale():
    with pytest.raises(ValueError, match="multiply height and width by 4"):
        list(upscale([np.zeros((4, 4, 3), np.uint8)], lambda clip: clip, device="cpu"))


@pytest.mark.parametrize("kind", [list, torch.from_numpy, Image.fromarray, str])
def test_frames_that_are_no_arrays(kind):
    frame = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match=r"frame 0 is of type .*; frames must be NumPy arrays"):
        next(upscale([kind(frame)], "bicubic", device="cpu"))

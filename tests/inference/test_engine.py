"""upscale() as a library, and the engine under it."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch

from iart_plugin.archs import IACNN
from iart_plugin.inference import memory, upscale
from iart_plugin.inference.chunks import Clip
from iart_plugin.inference.engine import (
    Engine,
    is_out_of_memory,
    own_device,
    pick_device,
    pick_precision,
)
from iart_plugin.inference.memory import Cost, choose_plan, free_memory, network_cost
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


def test_device_and_precision():
    assert pick_device("cpu") == CPU
    assert pick_precision(None, CPU) == "fp32"
    with pytest.raises(ValueError, match="precision 'int8'"):
        pick_precision("int8", CPU)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="cuda: not available"):
            pick_device("cuda")


def test_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(ValueError, match="device cuda:2: there are 2, counted from 0"):
        pick_device("cuda:2")


def test_network_stays_where_the_caller_has_put_it(network):
    assert own_device(network) is None
    assert own_device(nearest) is None
    assert own_device(torch.nn.Linear(1, 1, device="meta")) == torch.device("meta")


@pytest.mark.parametrize(("capability", "precision"), [((7, 5), "fp16"), ((8, 6), "bf16")])
def test_precision_of_a_gpu(monkeypatch, capability, precision):
    """The older one has bf16 by emulation only."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert pick_precision(None, torch.device("cuda", 0)) == precision


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
    ],
)
def test_memory_that_ran_out_is_recognised(error):
    assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("size mismatch"))


def plan(height, width, gib, **options):
    return choose_plan(
        height, width, Streams(), device=CPU, precision="fp32", budget=int(gib * 2**30), **options
    )


class Streams:
    """Stands for the published networks: 64 features, frame by frame."""

    num_feat = 64
    forward_iter = None


def test_plan_uses_what_is_free():
    roomy, tight, tiny = plan(180, 320, 64), plan(180, 320, 2), plan(1080, 1920, 4)
    assert roomy.chunk == 48
    assert roomy.tiling.count(180, 320) == 1
    assert tight.chunk <= roomy.chunk
    assert tiny.tiling.count(1080, 1920) > 1
    for chosen, budget in ((roomy, 64), (tight, 2), (tiny, 4)):
        assert chosen.device_bytes + chosen.host_bytes <= budget * 2**30


def test_plan_keeps_what_is_fixed():
    fixed = plan(1080, 1920, 1, chunk=30, tile=256)
    assert (fixed.chunk, fixed.tiling.size) == (30, (256, 256))
    assert plan(1080, 1920, 1, tile=0).tiling.count(1080, 1920) == 1


def test_plan_counts_the_self_ensemble():
    """Its sums, 192 bytes a pixel and frame, beside those of blended tiles."""
    for tile in (0, 64):
        alone, eight = (
            plan(128, 128, 64, chunk=30, tile=tile, self_ensemble=flag) for flag in (False, True)
        )
        assert eight.host_bytes - alone.host_bytes == 128 * 128 * 30 * 192


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_plan_leaves_the_machines_other_processes_their_part(monkeypatch, device):
    """Four on two GPUs of 16 GiB and as much main memory, of which a share is used."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(memory, "free_host_memory", lambda: 16 * 2**30)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (14 * 2**30, 0))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3 * 2**30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 1 * 2**30)
    device = torch.device(device)
    assert free_memory(device) == 16 * 2**30
    plans = []
    for processes in (1, 4):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        plans.append(choose_plan(540, 960, Streams(), device=device, precision="fp32"))
    if device.type == "cpu":
        alone, one_of_four = (plan.device_bytes + plan.host_bytes for plan in plans)
        part = 4
    else:
        alone, one_of_four = (plan.device_bytes for plan in plans)
        part = 8
        assert plans[1].host_bytes <= 0.6 * 4 * 2**30
    assert one_of_four <= 0.6 * part * 2**30 < alone <= 0.6 * 16 * 2**30


@pytest.mark.parametrize("bad", [{"chunk": 0}, {"warm_up": -1}, {"tile": 16, "overlap": 16}])
def test_plan_refuses(bad):
    with pytest.raises(ValueError, match="must be"):
        plan(100, 100, 1, **bad)


def test_cost_follows_the_network(network):
    small, large = network_cost(network), network_cost(Streams())
    assert isinstance(small, Cost)
    assert small.frame < large.frame
    assert small.step < large.step

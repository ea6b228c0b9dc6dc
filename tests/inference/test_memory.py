"""How chunks and tiles are chosen by free memory."""

from __future__ import annotations

import pytest
import torch

from iart_plugin.archs import IACNN, RealIACNN
from iart_plugin.archs.real_world import LONGEST_CHUNK
from iart_plugin.inference import memory
from iart_plugin.inference.memory import Cost, choose_plan, free_memory, network_cost

CPU = torch.device("cpu")


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
    assert (roomy.chunk, roomy.first_chunk) == (192, 48)
    assert roomy.tiling.count(180, 320) == 1
    assert tight.chunk <= roomy.chunk
    assert tiny.tiling.count(1080, 1920) > 1
    for chosen, budget in ((roomy, 64), (tight, 2), (tiny, 4)):
        assert chosen.device_bytes + chosen.host_bytes <= budget * 2**30


def test_plan_leaves_other_processes_some_of_the_film():
    assert plan(180, 320, 64, longest=100).chunk == 96
    assert plan(180, 320, 64, longest=100).first_chunk == 48
    assert plan(180, 320, 64, chunk=192, longest=100).chunk == 192


@pytest.mark.parametrize("alignment", ["implicit", "flow_warp"])
def test_networks_for_real_footage_get_short_chunks(alignment):
    network = RealIACNN(8, 1, 1, alignment, num_heads=2, extractor=alignment == "implicit")

    def chunk(**options):
        budget = 64 * 2**30
        return choose_plan(
            48, 64, network, device=CPU, precision="fp32", budget=budget, **options
        ).chunk

    assert chunk() == LONGEST_CHUNK
    assert chunk(longest=LONGEST_CHUNK // 2) == LONGEST_CHUNK // 2
    assert chunk(chunk=192) == 192


def test_plan_keeps_what_is_fixed():
    fixed = plan(1080, 1920, 1, chunk=30, tile=256)
    assert (fixed.chunk, fixed.first_chunk, fixed.tiling.size) == (30, 30, (256, 256))
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


def test_cost_follows_the_network():
    network = IACNN(num_feat=8, num_block=1, num_heads=2)
    small, large = network_cost(network), network_cost(Streams())
    assert isinstance(small, Cost)
    assert small.frame < large.frame
    assert small.step < large.step

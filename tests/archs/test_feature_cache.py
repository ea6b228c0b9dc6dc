import os

import pytest
import torch

from iart_plugin.archs import IACNN, IART
from iart_plugin.archs.feature_cache import CacheBudget, CacheOptions, FeatureCache

CPU = torch.device("cpu")
SIZE = 2 * 3 * 4  # bytes of a feature below
NETWORKS = {
    "IACNN": lambda **options: IACNN(8, 1, 2, **options),
    "IART": lambda **options: IART(8, 12, (1,), (2,), **options),
}


def feature(number: int) -> torch.Tensor:
    return torch.full((1, 2, 3), float(number))


@pytest.mark.parametrize("cache", ["device", "cpu", "disk"])
@pytest.mark.parametrize("limit", [None, 0, 2 * SIZE])
def test_gives_back_what_was_put(cache, limit):
    features = FeatureCache(CacheBudget(CacheOptions(cache, limit)))
    for rounds in range(2):
        for i in range(5):
            features.put(i, feature(10 * rounds + i))
        for i in (4, 0, 3, 1, 2):
            assert torch.equal(features.take(i, CPU), feature(10 * rounds + i))


def test_budget_is_shared_and_given_back():
    budget = CacheBudget(CacheOptions("disk", 2 * SIZE))
    first, second = FeatureCache(budget), FeatureCache(budget)
    for i in range(2):
        first.put(i, feature(i))
    second.put(0, feature(5))
    assert budget.free == 0 and not second._kept
    first.take(0, CPU)
    assert budget.free == SIZE


def test_places_in_the_file_are_used_again():
    features = FeatureCache(CacheBudget(CacheOptions("disk")))
    for i in range(20):
        features.put(i, feature(i))
        if i >= 3:
            features.take(i - 3, CPU)
    features._file.flush()
    assert os.fstat(features._file.fileno()).st_size == 4 * SIZE


def test_half_precision_goes_to_disk_and_back():
    features = FeatureCache(CacheBudget(CacheOptions("disk")))
    features.put(0, feature(3).bfloat16())
    assert torch.equal(features.take(0, CPU), feature(3).bfloat16())


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("options", [("cpu", None), ("disk", None), ("disk", 5000), ("device", 0)])
def test_place_does_not_change_the_output(make, options):
    network, clip = make().eval(), torch.rand(2, 4, 3, 8, 9)
    with torch.no_grad():
        whole = network(clip)
        network.cache = CacheOptions(*options)
        assert torch.equal(network(clip), whole)


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_training_keeps_the_graph(make):
    network = make(cache="disk")
    network(torch.rand(1, 3, 3, 8, 9)).sum().backward()
    missing = {name for name, p in network.named_parameters() if p.grad is None}
    assert not missing


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_bad_options(make):
    with pytest.raises(ValueError, match="cache must be one of device, cpu, disk, got 'tape'"):
        make(cache="tape")
    with pytest.raises(ValueError, match="number of bytes, got -1"):
        make(cache_limit=-1)

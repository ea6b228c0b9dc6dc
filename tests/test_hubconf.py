"""``hubconf.py``, as ``torch.hub`` uses it on a local folder."""

import runpy
from pathlib import Path

import pytest
import torch

from iart_plugin.archs import IACNN, IART, save_checkpoint

ROOT = Path(__file__).parents[1]


def load(name: str, **options):
    return torch.hub.load(str(ROOT), name, source="local", **options)


def test_its_entries_are_the_networks_of_the_table():
    public = {
        name: value
        for name, value in runpy.run_path(str(ROOT / "hubconf.py")).items()
        if callable(value) and not name.startswith("_")  # what torch.hub.list lists
    }
    networks = ("ia_rt", "psrt", "ia_cnn", "basicvsr", "real_ia_cnn", "real_basicvsr")
    assert sorted(public) == sorted(networks)
    assert "IA-RT" in public["ia_rt"].__doc__


def test_loads_weights(tmp_path):
    network = IART(8, 12, depths=(1,), num_heads=(2,), alignment="patch")
    save_checkpoint(network, tmp_path / "psrt.pth")
    loaded = load("psrt", weights=str(tmp_path / "psrt.pth"))
    assert loaded.options == network.options
    state = loaded.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


def test_builds_a_network_without_weights():
    network = load("basicvsr", num_feat=8, num_block=1)
    assert isinstance(network, IACNN) and network.extractor is None and network.num_feat == 8


def test_refuses_weights_of_another_network_and_options_beside_weights(tmp_path):
    path = str(tmp_path / "basicvsr.pth")
    save_checkpoint(IACNN(8, 1, alignment="flow_warp", extractor=False), path)
    with pytest.raises(ValueError, match="holds basicvsr weights, not ia-rt"):
        load("ia_rt", weights=path)
    with pytest.raises(ValueError, match="decides the network's options: num_feat"):
        load("basicvsr", weights=path, num_feat=8)

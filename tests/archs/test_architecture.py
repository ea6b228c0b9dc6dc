"""The table of architectures: every row is recognised by itself alone, built, and offered."""

import pytest
import torch

from iart_plugin.archs import (
    ARCHITECTURES,
    Architecture,
    CheckpointMismatch,
    build_network,
    network_classes,
    recognise,
)
from iart_plugin.archs.architecture import architecture_of, count_modules, register
from iart_plugin.inference import MODELS
from iart_plugin.inference.memory import network_cost

ROWS = [row for row in ARCHITECTURES.values() if row.network and row.buildable]


def network_of(row: Architecture) -> torch.nn.Module:
    with torch.device("meta"):
        return row.network(**row.variant)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_is_recognised_by_itself_alone_and_built_again(row):
    network = network_of(row)
    state = network.state_dict()
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    assert [other.name for other in ARCHITECTURES.values() if other.matches(shapes)] == [row.name]
    found = recognise(state)
    assert found.network == row.name and set(row.certain) >= set(found.sizes())
    with torch.device("meta"):
        again = build_network(found)
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in state.items()
    }
    assert architecture_of(again) is row


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_names_of_mmagic_are_read_again(row):
    from iart_plugin.archs.keys import rename

    for key in network_of(row).state_dict():
        assert rename(row.mmagic_name(key)) == key


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_says_its_cost_and_its_name_on_the_command_line(row):
    cost = network_cost(network_of(row))
    assert 0 < cost.frame < cost.step
    assert MODELS[row.model] == row.summary


def test_every_class_is_there_once():
    names = [cls.__name__ for cls in network_classes()]
    assert len(names) == len(set(names)) and {"IACNN", "IART", "AlignmentStudyNet"} <= set(names)


def test_a_name_is_given_once():
    with pytest.raises(ValueError, match="already has an architecture 'IACNN'"):
        register(ARCHITECTURES["IACNN"])


def test_modules_are_counted_without_a_gap():
    keys = ["a.0.x", "a.1.y", "a.1000000000.x", "b.2.x"]
    assert count_modules(keys, "a.") == 2
    assert count_modules(keys, "b.") == 0


@pytest.mark.parametrize("name", ["SPyNet", "AlignmentStudyNet"])
def test_what_cannot_be_built_says_so(name):
    from iart_plugin.archs import Recognised

    with pytest.raises(CheckpointMismatch, match=name):
        build_network(Recognised(name))

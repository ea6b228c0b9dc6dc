"""Converts a network's weights between the layouts in which they are stored.

=========== ==============================================================================
official    ``params``: with the released program's dead weights and constant buffers
basicsr     ``params``, and ``params_ema`` for the averaged weights
mmagic      ``state_dict``, keys behind ``generator.`` or ``generator_ema.``; see
            :func:`mmagic_file`
safetensors one set of weights under the network's own names
=========== ==============================================================================

Tensors are copied as they are, including weights that are never used, so a round trip changes no
bit. Keys are those of this package's networks, except that a BasicVSR in MMagic's layout has
MMagic's keys; both MMagic's network and the one in this package can load them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from iart_plugin.weight_files import (
    AVERAGED,
    GENERATOR,
    OPTIONS,
    CheckpointMismatch,
    State,
    save_whole,
    write_file,
)

from .checkpoints import (
    build_network,
    check_whole,
    export_official,
    read_recognised,
    with_options,
)
from .keys import Recognised, recognise, rename

LAYOUTS = ("official", "basicsr", "mmagic", "safetensors")

SINGLE_SET = ("official", "safetensors")
"""The layouts that hold a single set of weights instead of a trained and an averaged one."""


@dataclass(frozen=True)
class Weights:
    """A network's weights from a checkpoint; at least one of the two sets is not None.

    Attributes:
        recognised: the network and its options.
        trained: the weights that the optimizer works on.
        averaged: the exponential moving average of the trained weights.
        options: the options that the file records, see
            :func:`iart_plugin.weight_files.read_options`.
    """

    recognised: Recognised
    trained: State | None
    averaged: State | None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def best(self) -> State:
        """The averaged weights if there are any, which both frameworks' testers prefer too."""
        return self.trained if self.averaged is None else self.averaged


def read_weights(path: str | os.PathLike) -> Weights:
    """Reads a checkpoint; its layout is recognised from its keys.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointMismatch: if it holds no network that is known here.
    """
    stored, recognised = read_recognised(path)
    try:
        known = with_options(recognised, stored.options)
        for state in (stored.trained, stored.averaged):
            if state is not None:
                check_whole(known, state)
    except CheckpointMismatch as error:
        raise CheckpointMismatch(f"{os.fspath(path)}: {error}") from error
    _check_same(stored.trained, stored.averaged, path)
    return Weights(recognised, _renamed(stored.trained), _renamed(stored.averaged), stored.options)


def _check_same(trained: State | None, averaged: State | None, path: str | os.PathLike) -> None:
    """Raises CheckpointMismatch if the two sets do not belong to the same network."""
    if trained is None or averaged is None:
        return
    shapes = [{key: value.shape for key, value in state.items()} for state in (trained, averaged)]
    if shapes[0] != shapes[1]:
        key = next(key for key, _ in shapes[0].items() ^ shapes[1].items())
        raise CheckpointMismatch(
            f"{os.fspath(path)}: its trained and its averaged weights differ in '{key}'"
        )


def _renamed(state: State | None) -> State | None:
    return None if state is None else {rename(key): value for key, value in state.items()}


def behind(prefix: str, state: Mapping[str, Tensor]) -> State:
    """The entries of a state dict whose keys start with ``prefix``, which is removed from them."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def mmagic_file(trained: State | None, averaged: State | None = None) -> dict[str, Any]:
    """Arranges weights as MMEngine saves a model that has the network as its ``generator``.

    MMagic's testers use the averaged weights. They are put in ``state_dict``, and the trained ones
    in ``ema_state_dict``, as MMEngine's ``EMAHook`` does. MMagic's RealBasicVSR model instead has a
    second generator for the averaged weights, ``generator_ema``, and tests that one. If there is
    only one set of weights, both of its generators get it.
    """
    first = trained if averaged is None else averaged
    row = recognise(first).architecture

    def behind_prefix(prefix: str, state: State) -> State:
        return {prefix + row.mmagic_name(key): value for key, value in state.items()}

    if row.averaged_beside:
        last = averaged if trained is None else trained
        return {
            "meta": {},
            "state_dict": behind_prefix(GENERATOR, last) | behind_prefix(AVERAGED, first),
        }

    def model(prefix: str, state: State) -> State:
        counter = {f"{prefix}step_counter": torch.zeros(1)}  # a buffer of MMagic's BasicVSR model
        return counter | behind_prefix(prefix + GENERATOR, state)

    file: dict[str, Any] = {"meta": {}, "state_dict": model("", first)}
    if averaged is not None and trained is not None:
        file["ema_state_dict"] = {"steps": torch.tensor(0), **model("module.", trained)}
    return file


def write_weights(weights: Weights, path: str | os.PathLike, layout: str) -> None:
    """Writes weights in a layout; the file is written completely or not at all.

    Args:
        weights: the weights. For a layout in :data:`SINGLE_SET`, only the best set is written.
        path: the file; it ends with ``.safetensors`` for that layout and for no other.
        layout: one of :data:`LAYOUTS`.

    Raises:
        ValueError: if the layout is unknown, does not fit the path or cannot hold the network.
    """
    path = os.fspath(path)
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout '{layout}': choose one of {', '.join(LAYOUTS)}")
    if path.endswith(".safetensors") != (layout == "safetensors"):
        raise ValueError(f"layout '{layout}' does not fit the file name {path}")
    if layout == "safetensors":
        write_file(weights.best, path, weights.options)
        return
    if layout == "mmagic":
        file = mmagic_file(weights.trained, weights.averaged)
    elif layout == "official":
        file = {"params": _official(weights)}
    else:
        sets = {"params": weights.trained, "params_ema": weights.averaged}
        file = {name: state for name, state in sets.items() if state is not None}
    if weights.options and layout != "official":
        file[OPTIONS] = weights.options
    save_whole(file, path)


def _official(weights: Weights) -> State:
    """The best set plus every key that the released program needs and the set does not have."""
    if weights.recognised.network != "IART":
        raise ValueError(f"the released program has no {weights.recognised.network}")
    options = weights.recognised.options | weights.options
    network = build_network(Recognised("IART", options))
    network.load_state_dict(weights.best)
    return export_official(network) | weights.best

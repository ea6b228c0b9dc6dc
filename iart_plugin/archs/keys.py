"""Finds out which network a state dict belongs to, and renames the keys of other programs.

The networks use the released programs' keys where these exist, so little has to be renamed.
MMagic's BasicVSR and SPyNet have other keys for some layers, and released IA-RT files hold weights
that are never used and buffers that the constructor computes anyway. A hook that runs on loading
handles all of this. What concerns only one network is in the table of architectures.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Size, Tensor, nn

from iart_plugin.alignment import build_alignment
from iart_plugin.flow import rename_spynet_key
from iart_plugin.weight_files import CheckpointMismatch

from .architecture import ARCHITECTURES, Architecture


@dataclass(frozen=True)
class Recognised:
    """The network that a state dict was recognised as.

    Attributes:
        network: a name in :data:`iart_plugin.archs.architecture.ARCHITECTURES`.
        options: the constructor's options that the shapes tell.
    """

    network: str
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        options = ", ".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.network}({options})"

    @property
    def architecture(self) -> Architecture:
        """The network's row in the table of architectures."""
        return ARCHITECTURES[self.network]

    def sizes(self) -> dict[str, Any]:
        """The options that shapes tell for certain."""
        beside = self.options.get("alignment_options", {}).get("position_channels", 0)
        known = self.options | {"position_channels": beside}
        return {name: known[name] for name in self.architecture.certain if name in known}


def rename(key: str) -> str:
    """The name in this package of a key of either framework."""
    for architecture in ARCHITECTURES.values():
        for theirs, ours in architecture.renames:
            if key.startswith(theirs):
                return rename(ours + key.removeprefix(theirs))
    return rename_spynet_key(key)


def mmagic_spynet_name(key: str) -> str:
    """The name in MMagic of a key of a network's SPyNet; undoes :func:`rename`."""
    # In MMagic a convolution and its activation are one module; here the two are counted apart.
    return re.sub(
        r"^(spynet\.basic_module\.\d+\.basic_module)\.(\d+)\.(weight|bias)$",
        lambda match: f"{match[1]}.{int(match[2]) // 2}.conv.{match[3]}",
        key,
    )


def is_dead(key: str) -> bool:
    """Whether a released file's key does not affect the network's output."""
    patterns = (row.dead for row in ARCHITECTURES.values() if row.dead)
    return any(re.fullmatch(pattern, key) for pattern in patterns)


def recognise(shapes: Mapping[str, Tensor | Size]) -> Recognised | None:
    """Recognises a state dict by its keys and derives the options from its shapes.

    The shapes do not tell the heads of an IA-CNN. They are assumed to be the paper's 8 if 8 divides
    the channels. The other options of an alignment with position channels are assumed to be
    :data:`~iart_plugin.archs.ia_cnn.ALIGNMENT_OPTIONS`.

    Args:
        shapes: tensors or their shapes, by keys without any prefix.

    Returns:
        The network, or None if no network is recognised.

    Raises:
        CheckpointMismatch: if a known network lacks keys from which its options are derived.
    """
    sizes = {
        rename(key): tuple(value.shape if isinstance(value, Tensor) else value)
        for key, value in shapes.items()
    }
    row = next((row for row in ARCHITECTURES.values() if row.matches(sizes)), None)
    if row is None:
        return None
    try:
        return Recognised(row.name, row.options(sizes))
    except KeyError as error:
        raise CheckpointMismatch(f"the {row.title} lacks the key {error}") from error
    except (IndexError, ValueError, ZeroDivisionError) as error:
        raise CheckpointMismatch(
            f"the shapes of the {row.title} are those of no network: {error}"
        ) from error


def translate(state_dict: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """A load hook that renames other programs' keys in place and removes those without effect."""
    for key in [key for key in state_dict if key.startswith(prefix)]:
        name = rename(key.removeprefix(prefix))
        value = state_dict.pop(key)
        if not is_dead(name):
            state_dict[prefix + name] = value


def check_fit(
    network: nn.Module,
    state_dict: Mapping[str, Tensor],
    strict: bool,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Raises CheckpointMismatch, in one line, if a state dict does not fit a network.

    Args:
        network: the network that the weights are for.
        state_dict: the weights.
        strict: whether there must be all of the network's weights and no others.
        options: the options that the file records, see
            :func:`iart_plugin.weight_files.read_options`. With ``strict``, the alignment's options
            must equal the network's, because shapes do not tell all of them.
    """
    given = {rename(key): value for key, value in state_dict.items()}
    given = {key: value for key, value in given.items() if not is_dead(key)}
    problem = _explain(network.state_dict(), given, strict)
    if not problem and strict and options and hasattr(network, "options"):
        problem = _differing_alignment(network.options, options)
    if problem:
        raise CheckpointMismatch(f"the checkpoint does not fit {type(network).__name__}: {problem}")


def _differing_alignment(own: Mapping[str, Any], saved: Mapping[str, Any]) -> str | None:
    """Says how a file's alignment options differ from the network's; None if they do not."""
    widths = {name: own[name] for name in ("num_feat", "embed_dim") if name in own}
    here, there = alignment_settings(own), alignment_settings(widths | dict(saved))
    differing = [
        f"its alignment has {name}={there.get(name)}, the network's {name}={here.get(name)}"
        for name in sorted({*here, *there})
        if here.get(name) != there.get(name)
    ]
    return "; ".join(differing) or None


def alignment_settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """All options that decide what a network's alignment computes, defaults included.

    Args:
        options: a network's ``options``, or those that a file records.

    Raises:
        CheckpointMismatch: if no alignment has such options.
    """
    name, heads = options.get("alignment", "implicit"), options.get("num_heads")
    own = dict(options.get("alignment_options") or {})
    if name == "implicit":
        own.setdefault("num_heads", heads[0] if isinstance(heads, Sequence) else heads)
    channels = options.get("num_feat", options.get("embed_dim"))
    try:
        with torch.device("meta"):
            return {"name": name} | build_alignment(name, channels, **own).settings()
    except ValueError as error:
        raise CheckpointMismatch(f"its options are those of no network: {error}") from error


def _explain(own: Mapping[str, Tensor], given: Mapping[str, Tensor], strict: bool) -> str | None:
    """Says in a line how a state dict differs from the network's own, or None if it does not."""
    sizes = [k for k in given if k in own and given[k].shape != own[k].shape]
    missing = [key for key in own if key not in given] if strict else []
    unexpected = [key for key in given if key not in own] if strict else []
    if not (sizes or missing or unexpected):
        return None
    mine, theirs = recognise(own), recognise(given)
    if mine is not None and theirs is None:
        return f"its keys are of no known network (the first: {', '.join(list(given)[:3])})"
    if mine is not None and mine.network != theirs.network:
        return f"it holds a {theirs.network}, the network is a {mine.network}"
    if mine is not None:
        here, there = mine.sizes(), theirs.sizes()
        differing = [
            f"it has {name}={there[name]}, the network {name}={here[name]}"
            for name in here
            if there[name] != here[name]
        ]
        if differing:
            return "; ".join(differing)
    parts = [
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', …' if len(keys) > 3 else ''})"
        for what, keys in (
            ("of another size", sizes),
            ("missing", missing),
            ("unexpected", unexpected),
        )
        if keys
    ]
    return "keys " + ", ".join(parts)

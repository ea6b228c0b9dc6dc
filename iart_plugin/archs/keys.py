"""Which network a state dict belongs to, and the names that other programs give its keys.

The networks use the released programs' names wherever one exists, so little is renamed: MMagic's
BasicVSR and SPyNet call some layers otherwise, and released IA-RT files hold weights that no
output depends on and buffers that the constructor computes again. A hook on load takes care of
all. What is particular to one network stands in the table of architectures.
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
    """What a state dict is.

    Attributes:
        network: a name in :data:`iart_plugin.archs.architecture.ARCHITECTURES`.
        options: the constructor's options that the shapes give away.
    """

    network: str
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        options = ", ".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.network}({options})"

    @property
    def architecture(self) -> Architecture:
        """The row of the table."""
        return ARCHITECTURES[self.network]

    def sizes(self) -> dict[str, Any]:
        """Those of the options that shapes tell for certain."""
        beside = self.options.get("alignment_options", {}).get("position_channels", 0)
        known = self.options | {"position_channels": beside}
        return {name: known[name] for name in self.architecture.certain if name in known}


def rename(key: str) -> str:
    """The name that a key of either framework's program has here."""
    for architecture in ARCHITECTURES.values():
        for theirs, ours in architecture.renames:
            if key.startswith(theirs):
                return rename(ours + key.removeprefix(theirs))
    return rename_spynet_key(key)


def mmagic_spynet_name(key: str) -> str:
    """The name that MMagic's SPyNet, as part of a network, has for a key; undoes :func:`rename`."""
    # A convolution of SPyNet with its activation is one module there, a convolution alone here.
    return re.sub(
        r"^(spynet\.basic_module\.\d+\.basic_module)\.(\d+)\.(weight|bias)$",
        lambda match: f"{match[1]}.{int(match[2]) // 2}.conv.{match[3]}",
        key,
    )


def is_dead(key: str) -> bool:
    """Whether a released file's key has no influence on the network's output."""
    patterns = (row.dead for row in ARCHITECTURES.values() if row.dead)
    return any(re.fullmatch(pattern, key) for pattern in patterns)


def recognise(shapes: Mapping[str, Tensor | Size]) -> Recognised | None:
    """Recognises a state dict by its keys and reads the options off its shapes.

    Args:
        shapes: keys without any prefix, with their tensors or shapes.

    Returns:
        What it is, or None. Heads of an IA-CNN leave no trace in its shapes and are taken to be
        the paper's 8 where these divide the channels, and an alignment with position channels to
        be otherwise as :func:`warm_start` makes it.

    Raises:
        CheckpointMismatch: if it is of a known network but lacks what its options are read from.
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
    """Load hook: renames other programs' keys in place and drops those without influence."""
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
        network: what it is loaded into.
        state_dict: the weights.
        strict: whether all must be there, and no others.
        options: what the file records, see :func:`iart_plugin.weight_files.read_options`. Of
            those that no shape tells, the alignment's must be the network's where ``strict``.
    """
    given = {rename(key): value for key, value in state_dict.items()}
    given = {key: value for key, value in given.items() if not is_dead(key)}
    problem = _explain(network.state_dict(), given, strict)
    if not problem and strict and options and hasattr(network, "options"):
        problem = _differing_alignment(network.options, options)
    if problem:
        raise CheckpointMismatch(f"the checkpoint does not fit {type(network).__name__}: {problem}")


def _differing_alignment(own: Mapping[str, Any], saved: Mapping[str, Any]) -> str | None:
    """Says how the alignment of a file was set otherwise, or None."""
    widths = {name: own[name] for name in ("num_feat", "embed_dim") if name in own}
    here, there = alignment_settings(own), alignment_settings(widths | dict(saved))
    differing = [
        f"its alignment has {name}={there.get(name)}, the network's {name}={here.get(name)}"
        for name in sorted({*here, *there})
        if here.get(name) != there.get(name)
    ]
    return "; ".join(differing) or None


def alignment_settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """All that decides what a network's alignment computes, defaults filled in.

    Args:
        options: a network's ``options``, or what a file records of them.

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
    if theirs is None:
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

"""The table of architectures: what this package knows of every network, as data.

A network's file ends with the rows that describe it, and ``archs/table.py`` lists the files. A new
network is therefore one file and one line. Checkpoints, ``upscale``, the memory plan, the
complexity study and both frameworks' registries read the table and name no network themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from torch import nn

Sizes = Mapping[str, tuple[int, ...]]
"""The shape of every tensor of a state dict, under the names that its key has here."""


@dataclass(frozen=True)
class Cost:
    """Bytes that a network takes for each low-resolution pixel of a tile, in float32.

    Attributes:
        frame: bytes for each frame of the clip: its input, its flow and the features that wait
            for the other direction.
        step: bytes that are taken once: the largest intermediate results of one frame.
        whole: bytes for each pixel of a whole frame, however it is tiled, that are taken once.
    """

    frame: float
    step: float
    whole: float = 0


def recurrence_cost(
    width: int, *, per_channel: int = 60, streams: bool = True, whole: float = 0
) -> Cost:
    """The cost of a bidirectional network with the upsampler of this package.

    Set by peaks that were measured on a CPU with clips of two lengths: BasicVSR takes 17 kB and
    0.26 kB a frame, IA-CNN 21 kB and 0.45 kB, with 64 features each; 32 features take 18 kB. A
    step's peak lies in the upsampler, whose 64 channels at 4h x 4w exist several times.

    Args:
        width: channels of the features.
        per_channel: bytes of a step for each of these channels.
        streams: whether the network gives its frames one at a time. One that does not holds its
            whole result as well.
        whole: see :class:`Cost`.
    """
    result = 0 if streams else 2 * 3 * 16 * 4
    return Cost(frame=2 * 4 * width + 64 + result, step=20_000 + per_channel * width, whole=whole)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One row of the table.

    Attributes:
        name: what a checkpoint is recognised as.
        title: the published name, for people.
        matches: tells from the keys of a state dict whether it belongs to this network. No two
            rows match the same state dict.
        options: reads off the shapes the constructor's options that they tell. May raise
            ``KeyError`` if a key is missing that every such network has.
        certain: those options that shapes tell for certain, to explain a misfit by.
        network: the class, or None where the weights alone are no super-resolution network.
        variant: the options that make ``network`` this architecture. The first row of a class
            has none.
        buildable: whether the weights alone tell enough to build the network.
        untold: prefixes of the keys of what the weights do not tell, where they do not.
        own_flow: whether the network estimates optical flow itself where none is given.
        cost: the memory that a network of this kind takes.
        model: the name on the command line, or '' if ``upscale`` does not offer the network.
        summary: what ``--help`` says of it.
        starts_from: the name of the architecture whose weights this one can be started from.
        renames: prefixes of keys in other programs, each with the prefix that is used here.
        dead: a regular expression of keys in other programs' files that no output depends on.
        mmagic_name: the name that MMagic's own network has for a key of this one.
    """

    name: str
    title: str
    matches: Callable[[Sizes], bool]
    options: Callable[[Sizes], dict[str, Any]] = lambda sizes: {}
    certain: tuple[str, ...] = ()
    network: type[nn.Module] | None = None
    variant: Mapping[str, Any] = field(default_factory=dict)
    buildable: bool = True
    untold: tuple[str, ...] = ()
    own_flow: bool = True
    cost: Callable[[nn.Module], Cost] | None = None
    model: str = ""
    summary: str = ""
    starts_from: str = ""
    renames: tuple[tuple[str, str], ...] = ()
    dead: str = ""
    mmagic_name: Callable[[str], str] = lambda key: key


ARCHITECTURES: dict[str, Architecture] = {}
"""Every architecture by its name; filled by ``archs/table.py``."""


def register(*architectures: Architecture) -> None:
    """Adds rows to the table.

    Raises:
        ValueError: if a name is taken.
    """
    for architecture in architectures:
        if architecture.name in ARCHITECTURES:
            raise ValueError(f"the table already has an architecture '{architecture.name}'")
        ARCHITECTURES[architecture.name] = architecture


def network_classes() -> list[type[nn.Module]]:
    """Every network's class once, as the frameworks register them."""
    return list(dict.fromkeys(a.network for a in ARCHITECTURES.values() if a.network))


def architecture_of(network: nn.Module) -> Architecture | None:
    """The row that describes a network, from its class and alignment; None for another module."""
    alignment = getattr(network, "options", {}).get("alignment")
    for cls in type(network).__mro__:
        rows = [row for row in ARCHITECTURES.values() if row.network is cls]
        if rows:
            fitting = (row for row in rows if row.variant.get("alignment") == alignment)
            return next(fitting, rows[0])
    return None


def has_prefix(keys: Iterable[str], prefix: str) -> bool:
    """Whether any key starts with ``prefix``."""
    return any(key.startswith(prefix) for key in keys)


def alignment_of(sizes: Sizes, prefix: str) -> str | None:
    """The name of the aligner whose keys start with ``prefix``; None for one without weights."""
    if has_prefix(sizes, f"{prefix}mlp."):
        return "deformable_attention"
    if f"{prefix}weight" in sizes:
        return "deformable_conv"
    return "implicit" if any(has_prefix(sizes, f"{prefix}{layer}.") for layer in "qkv") else None


def count_modules(keys: Iterable[str], prefix: str) -> int:
    """How many numbered modules ``prefix0``, ``prefix1``, … the keys have, without a gap.

    A single odd number, however large, adds nothing: its key is then one too many for the network.
    """
    numbers = {key.removeprefix(prefix).partition(".")[0] for key in keys if key.startswith(prefix)}
    return next(i for i in count() if str(i) not in numbers)

"""The table of architectures, which holds what this package knows about every network as data.

A network's file ends with the rows that describe it, and ``archs/table.py`` lists the files. A new
network therefore needs one file and one line. The code for checkpoints, ``upscale``, the memory
plan, the complexity study and both frameworks' registries reads the table, so it does not have to
name any network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from torch import nn

Sizes = Mapping[str, tuple[int, ...]]
"""The shape of every tensor in a state dict, by the keys that this package uses."""


@dataclass(frozen=True)
class Cost:
    """The memory that a network takes, in float32 bytes per low-resolution pixel.

    Attributes:
        frame: bytes per pixel of a tile for each frame of the clip: its input, its flow and the
            features that are stored for the other direction.
        step: bytes per pixel of a tile, once: the largest intermediate results of one frame.
        whole: bytes per pixel of a whole frame, once, however it is tiled.
    """

    frame: float
    step: float
    whole: float = 0


def recurrence_cost(
    width: int, *, per_channel: int = 60, streams: bool = True, whole: float = 0
) -> Cost:
    """The cost of a bidirectional network with the upsampler of this package.

    The numbers come from peaks that were measured on a CPU with clips of two lengths. Per pixel,
    with 64 feature channels, BasicVSR takes 17 kB plus 0.26 kB per frame, and IA-CNN 21 kB plus
    0.45 kB per frame; with 32 channels it is 18 kB. The peak of a step lies in the upsampler, which
    holds its 64 channels at 4h x 4w several times.

    Args:
        width: channels of the features.
        per_channel: bytes of a step for each of these channels.
        streams: whether the network returns its frames one at a time. If not, it also holds its
            whole result.
        whole: see :class:`Cost`.
    """
    result = 0 if streams else 2 * 3 * 16 * 4
    return Cost(frame=2 * 4 * width + 64 + result, step=20_000 + per_channel * width, whole=whole)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One row of the table.

    Attributes:
        name: the row's name in the table and in :class:`Recognised`.
        title: the published name, as it is shown to people.
        matches: a function that tells from the keys of a state dict whether it belongs to this
            network. No two rows match the same state dict.
        options: a function that derives constructor options from the shapes, as far as they tell.
            It may raise ``KeyError`` if a key is missing that every such network has.
        certain: the options that shapes tell for certain; they explain why weights do not fit.
        network: the class, or None if the weights alone are not a super-resolution network.
        variant: the options with which ``network`` is this architecture. The first row of a class
            has none.
        buildable: whether the weights alone tell enough to build the network.
        untold: if not, prefixes of the keys of the parts that the weights do not tell enough about.
        own_flow: whether the network estimates optical flow itself if none is given.
        cost: a function that returns the memory that such a network takes.
        longest_chunk: the most frames that the network is given to upscale at a time, or None for
            as many as fit the memory. It is for networks whose results become worse in long clips.
        model: the name on the command line, or '' if ``upscale`` does not offer the network.
        summary: the text in ``--help``.
        starts_from: the name of the architecture whose weights can start a training of this one.
        renames: pairs of a key's prefix in other programs and the prefix that is used here.
        dead: a regular expression for keys in other programs' files that do not affect the output.
        mmagic_name: a function that returns the name in MMagic's own network for a key.
        averaged_beside: whether MMagic's model for this network keeps the averaged weights in a
            second generator, which is the one that it tests.
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
    longest_chunk: int | None = None
    model: str = ""
    summary: str = ""
    starts_from: str = ""
    renames: tuple[tuple[str, str], ...] = ()
    dead: str = ""
    mmagic_name: Callable[[str], str] = lambda key: key
    averaged_beside: bool = False


ARCHITECTURES: dict[str, Architecture] = {}
"""Every architecture by its name; ``archs/table.py`` fills it."""


def register(*architectures: Architecture) -> None:
    """Adds rows to the table.

    Raises:
        ValueError: if the table already has a row of that name.
    """
    for architecture in architectures:
        if architecture.name in ARCHITECTURES:
            raise ValueError(f"the table already has an architecture '{architecture.name}'")
        ARCHITECTURES[architecture.name] = architecture


def network_classes() -> list[type[nn.Module]]:
    """The class of every network, without repetition, to register in the frameworks."""
    return list(dict.fromkeys(a.network for a in ARCHITECTURES.values() if a.network))


def architecture_of(network: nn.Module) -> Architecture | None:
    """The row that describes a network, by its class and alignment; None for other modules."""
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
    """Counts the modules ``prefix0``, ``prefix1``, … in the keys, up to the first missing number.

    A key with a larger number does not count, so a damaged file cannot ask for a huge network. It
    is reported later as an unexpected key.
    """
    numbers = {key.removeprefix(prefix).partition(".")[0] for key in keys if key.startswith(prefix)}
    return next(i for i in count() if str(i) not in numbers)

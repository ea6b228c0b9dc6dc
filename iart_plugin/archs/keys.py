"""Which network a state dict belongs to, and the names that other programs give its keys.

The networks use the released programs' names wherever one exists, so little is renamed: MMagic's
BasicVSR and SPyNet call some layers otherwise, and released IA-RT files hold weights that no
output depends on and buffers that the constructor recomputes. A hook on load takes care of all.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import Parameter, signature
from typing import Any

from torch import Size, Tensor, nn

from iart_plugin.alignment import ALIGNMENTS
from iart_plugin.flow import rename_spynet_key
from iart_plugin.weight_files import CheckpointMismatch

from .warm_start import ALIGNMENT_OPTIONS

_MMAGIC_BASICVSR = (
    ("backward_resblocks.", "backward_trunk."),
    ("forward_resblocks.", "forward_trunk."),
    ("upsample1.upsample_conv.", "upconv1."),
    ("upsample2.upsample_conv.", "upconv2."),
)
"""MMagic's BasicVSR names, and the ones here, which are BasicSR's."""

_DEAD = re.compile(
    r"swin_backbone\.\w+\.(conv_first|conv_first_feat|conv_before_upsample)\.(weight|bias)"
    r"|implicit_warp\.(position_bias|window_idx_offset)"
    r"|swin_backbone\..*\.attn\.relative_position_index"
)
"""Keys of released IA-RT files that do not change its output: dead weights and buffers."""


SIZES = (
    *("num_feat", "num_block", "position_channels"),
    *("mid_channels", "embed_dim", "depths", "window_size"),
)
"""The options that shapes tell for certain."""


@dataclass(frozen=True)
class Recognised:
    """What a state dict is.

    Attributes:
        network: 'IART', 'IACNN', 'BasicVSR', 'AlignmentStudyNet' or 'SPyNet'.
        options: the constructor's options that the shapes give away.
    """

    network: str
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        options = ", ".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.network}({options})"

    def sizes(self) -> dict[str, Any]:
        """Those of the options that shapes tell for certain."""
        beside = self.options.get("alignment_options", {}).get("position_channels", 0)
        known = self.options | {"position_channels": beside}
        return {name: known[name] for name in SIZES if name in known}


def rename(key: str) -> str:
    """The name that a key of either framework's program has here."""
    for theirs, ours in _MMAGIC_BASICVSR:
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    return rename_spynet_key(key)


def mmagic_name(key: str) -> str:
    """The name that MMagic's BasicVSR has for a BasicVSR's key; undoes :func:`rename`."""
    for theirs, ours in _MMAGIC_BASICVSR:
        if key.startswith(ours):
            return theirs + key.removeprefix(ours)
    # A convolution of SPyNet with its activation is one module there, a convolution alone here.
    return re.sub(
        r"^(spynet\.basic_module\.\d+\.basic_module)\.(\d+)\.(weight|bias)$",
        lambda match: f"{match[1]}.{int(match[2]) // 2}.conv.{match[3]}",
        key,
    )


def is_dead(key: str) -> bool:
    """Whether a released IA-RT file's key has no influence on the network's output."""
    return _DEAD.fullmatch(key) is not None


def recognise(shapes: Mapping[str, Tensor | Size]) -> Recognised | None:
    """Recognises a state dict by its keys and reads the options off its shapes.

    Args:
        shapes: keys without any prefix, with their tensors or shapes.

    Returns:
        What it is, or None. Heads of an IA-CNN leave no trace in its shapes and are taken to be
        the paper's 8 where these divide the channels, and an alignment with position channels to
        be otherwise as :func:`warm_start` makes it.
    """
    sizes = {
        rename(key): tuple(value.shape if isinstance(value, Tensor) else value)
        for key, value in shapes.items()
    }
    if "swin_backbone.backward_1.norm.weight" in sizes:
        return Recognised("IART", _iart_options(sizes))
    if "fusion.weight" in sizes and "backward_trunk.main.0.weight" in sizes:
        return _recognise_cnn(sizes)
    if "fusion.patch_embed.norm.weight" in sizes:
        return Recognised("AlignmentStudyNet")
    if "basic_module.0.basic_module.0.weight" in sizes:
        return Recognised("SPyNet")
    return None


def _count(keys: Iterable[str], pattern: str) -> int:
    """One more than the largest number that ``pattern``'s group matches in the keys."""
    matches = (re.match(pattern, key) for key in keys)
    return max((int(match[1]) + 1 for match in matches if match), default=0)


def _iart_options(sizes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    branch = "swin_backbone.backward_1."
    layers = range(_count(sizes, re.escape(branch) + r"layers\.(\d+)\."))
    blocks = [f"{branch}layers.{i}.residual_group.blocks." for i in layers]
    tables = [sizes[f"{block}0.attn.relative_position_bias_table"] for block in blocks]
    side = (round((tables[0][0] / 5) ** 0.5) + 1) // 2  # (2 * 3 - 1) (2 * side - 1)^2 rows
    options: dict[str, Any] = {
        "mid_channels": sizes["conv_before_upsample.weight"][0],
        "embed_dim": sizes["conv_first.weight"][0],
        "depths": [_count(sizes, re.escape(block) + r"(\d+)\.") for block in blocks],
        "num_heads": [table[1] for table in tables],
        "window_size": [3, side, side],
    }
    options["alignment"] = "implicit" if "implicit_warp.q.weight" in sizes else "patch"
    if "implicit_warp.position_bias" in sizes:
        window = round(sizes["implicit_warp.position_bias"][1] ** 0.5)
        if window != 2:
            options["alignment_options"] = {"window_size": window}
    return options


def _recognise_cnn(sizes: Mapping[str, tuple[int, ...]]) -> Recognised:
    num_feat = sizes["fusion.weight"][0]
    options: dict[str, Any] = {
        "num_feat": num_feat,
        "num_block": _count(sizes, r"backward_trunk\.main\.2\.(\d+)\."),
    }
    if "alignment.q.weight" not in sizes:
        has_extractor = "extractor.main.0.weight" in sizes
        options |= {"alignment": "flow_warp", "extractor": has_extractor}
        return Recognised("IACNN" if has_extractor else "BasicVSR", options)
    options["num_heads"] = 8 if num_feat % 8 == 0 else 1
    beside = sizes["alignment.q.weight"][1] - num_feat
    if beside:
        options["alignment_options"] = ALIGNMENT_OPTIONS | {"position_channels": beside}
    return Recognised("IACNN", options)


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
    here, there = alignment_settings(own), alignment_settings(saved)
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
    """
    name, heads = options.get("alignment", "implicit"), options.get("num_heads")
    constructor = signature(ALIGNMENTS[name]).parameters.values() if name in ALIGNMENTS else ()
    settings = {p.name: p.default for p in constructor if p.default is not Parameter.empty}
    settings["name"] = name
    if name == "implicit":
        settings["num_heads"] = heads[0] if isinstance(heads, Sequence) else heads
    settings |= options.get("alignment_options") or {}
    settings.pop("check_finite", None)  # changes no number
    return {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}


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

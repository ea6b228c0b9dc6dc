"""Reads, recognises and writes checkpoints of both frameworks and of the released program."""

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from iart_plugin.weight_files import (
    CheckpointMismatch,
    StoredWeights,
    read_options,
    read_state_dict,
    read_weight_sets,
    write_file,
)

from .architecture import ARCHITECTURES, Architecture
from .ia_cnn import ALIGNMENT_OPTIONS, IACNN
from .ia_rt import BRANCHES, IART
from .keys import Recognised, alignment_settings, check_fit, recognise, rename
from .mfsab import relative_position_index
from .warm_start import rows_of, warm_start

RELEASED = ("embed_dim", "num_heads")
"""The options that decide an IA-RT's alignment in the released program."""


class CheckpointInfo(NamedTuple):
    """What :func:`load_checkpoint` found in a file.

    Attributes:
        path: the file.
        container: the entry of the file that held the weights; '' if the file had no entries.
        prefix: the prefix that every key had.
        recognised: the network and its options.
    """

    path: str
    container: str
    prefix: str
    recognised: Recognised


def build_network(recognised: Recognised) -> nn.Module:
    """Builds the network that a state dict was recognised as.

    Raises:
        CheckpointMismatch: if the state dict does not tell enough to build a network.
    """
    row = recognised.architecture
    if row.network is None:
        raise CheckpointMismatch(f"a {row.title} alone is not a super-resolution network")
    if not row.buildable:
        raise CheckpointMismatch(f"an {row.title} is built from its config, not from weights")
    return _build(recognised)


def _build(recognised: Recognised) -> nn.Module:
    row = recognised.architecture
    try:
        return row.network(**recognised.options)
    except (TypeError, ValueError) as error:
        raise CheckpointMismatch(
            f"no {row.title} has the options {recognised.options}: {error}"
        ) from error


def known_titles() -> str:
    """The networks that a checkpoint can hold, for messages."""
    titles = [row.title for row in ARCHITECTURES.values() if row.network and row.buildable]
    return f"{', '.join(titles[:-1])} or {titles[-1]}"


def load_checkpoint(path: str | os.PathLike, **options: Any) -> tuple[nn.Module, CheckpointInfo]:
    """Builds the network that a file holds and loads its weights strictly.

    Shapes do not tell the heads of an IA-CNN, nor an alignment without weights and its options.
    These are read from the file if this package wrote it, and are the paper's otherwise.

    Args:
        path: a file of the released IART program, of BasicSR, of MMagic, or safetensors.
        options: constructor options that replace those found in the file.

    Returns:
        The network, on the CPU and in evaluation mode, and what was found in the file.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointMismatch: if it holds no network that is known here.
    """
    stored, recognised = read_recognised(path)
    saved = stored.options | options
    guessed = recognised.network == "IACNN" and "num_heads" in recognised.options
    if guessed and recognised.options["num_feat"] != 64 and "num_heads" not in saved:
        warnings.warn(
            f"{os.fspath(path)} does not say how many heads its alignment has; taken to be "
            f"{recognised.options.get('num_heads')}. Give num_heads if that is wrong.",
            stacklevel=2,
        )
    with _naming(path):
        recognised = with_options(recognised, stored.options, options)
        network = _load(recognised, stored.best)
    return network, CheckpointInfo(os.fspath(path), stored.container, stored.prefix, recognised)


@contextmanager
def _naming(path: str | os.PathLike) -> Iterator[None]:
    """Puts a file's name in front of the message of any CheckpointMismatch."""
    try:
        yield
    except CheckpointMismatch as error:
        raise CheckpointMismatch(f"{os.fspath(path)}: {error}") from error


def read_recognised(path: str | os.PathLike) -> tuple[StoredWeights, Recognised]:
    """Reads a file and recognises which network its weights belong to.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointMismatch: if it holds no network that is known here.
    """
    stored = read_weight_sets(path)
    with _naming(path):
        recognised = recognise(stored.best)
    if recognised is None:
        raise CheckpointMismatch(
            f"{os.fspath(path)} holds no {known_titles()}; its first keys: "
            f"{', '.join(list(stored.best)[:3])}"
        )
    return stored, recognised


def with_options(
    recognised: Recognised, saved: Mapping[str, Any], given: Mapping[str, Any] | None = None
) -> Recognised:
    """Adds the options that shapes do not tell.

    Args:
        recognised: the network and the options that its shapes tell.
        saved: the options that a file records. It must not contain options that this package does
            not write, such as a path, nor contradict the shapes, for example in a number of blocks.
        given: the caller's options, which replace those of the file.

    Raises:
        CheckpointMismatch: if the file records such options.
    """
    row = recognised.architecture
    if saved and row.buildable:
        with torch.device("meta"):
            written = build_network(recognised).options
        unknown = sorted(set(saved) - set(written))
        if unknown:
            raise CheckpointMismatch(
                f"it records options that no {row.title} has: {', '.join(unknown)}"
            )
        for name in row.certain:
            if saved.get(name, written.get(name)) != written.get(name):
                raise CheckpointMismatch(
                    f"it records {name}={saved[name]!r}, and its shapes are those of "
                    f"{name}={written[name]!r}"
                )
    return Recognised(recognised.network, recognised.options | dict(saved) | dict(given or {}))


def check_whole(recognised: Recognised, state: Mapping[str, Tensor]) -> None:
    """Raises CheckpointMismatch if weights are missing for the network or belong to no part of it.

    The check allocates no memory, whatever sizes the weights claim. It leaves out the parts that
    weights alone do not tell enough about, such as the aligner of an AlignmentStudyNet.
    """
    row = recognised.architecture
    if row.network is None or not (row.buildable or recognised.options):
        return
    told = {key: value for key, value in state.items() if not key.startswith(row.untold)}
    with torch.device("meta"):
        network = _build(recognised)
    check_fit(network, told, strict=True)


def _load(recognised: Recognised, state: Mapping[str, Tensor]) -> nn.Module:
    """Checks that a network's weights are complete, then builds the network and loads them."""
    if recognised.architecture.buildable:
        check_whole(recognised, state)
    network = build_network(recognised)
    network.load_state_dict(state, strict=True)
    return network.eval()


def load_ia_cnn(
    adapter: str | os.PathLike, basicvsr: str | os.PathLike, *, window_size: int = 2
) -> IACNN:
    """Builds an IA-CNN from a BasicVSR checkpoint and the parts that BasicVSR lacks.

    From a RealBasicVSR checkpoint it builds a RealIACNN.

    Args:
        adapter: a file with the weights of the extractor and the alignment, and with those of
            BasicVSR's weights that it replaces; or 'warm-start', see
            :func:`iart_plugin.archs.warm_start`.
        basicvsr: a BasicVSR or RealBasicVSR checkpoint of BasicSR or MMagic.
        window_size: side of the alignment's window for a warm start. A larger window computes the
            same at first. An adapter file records its own size, so this is ignored.

    Returns:
        The network, on the CPU, in evaluation mode.

    Raises:
        FileNotFoundError: if a file does not exist.
        CheckpointMismatch: if a file does not hold what it should.
    """
    state, recognised = _read_basicvsr(basicvsr)
    if adapter == "warm-start":
        row = _started_from(recognised)
        known = recognised.options
        network = row.network(
            **{name: known[name] for name in row.certain if name in known},
            num_heads=_warm_start_heads(known["num_feat"], window_size),
            alignment_options=ALIGNMENT_OPTIONS | {"window_size": window_size},
        )
        network.load_state_dict(state, strict=False)  # the warm start computes the other weights
        return warm_start(network).eval()
    added, _, _ = read_state_dict(adapter)
    state |= {key: value.float() for key, value in added.items()}
    with _naming(adapter):
        recognised = recognise(state)
        if not recognised.architecture.starts_from:
            raise CheckpointMismatch("it holds no implicit alignment to add")
        return _load(with_options(recognised, read_options(adapter)), state)


def save_adapter(network: nn.Module, basicvsr: str | os.PathLike, path: str | os.PathLike) -> None:
    """Saves the adapter that :func:`load_ia_cnn` needs beside a BasicVSR, in half precision.

    Args:
        network: an IA-CNN that was started from ``basicvsr``.
        basicvsr: the checkpoint that the network was started from. Weights that still equal its
            own are left out. So are those that differ by less than half precision can tell, as
            happens in a moving average of unchanged weights.
        path: the adapter file to write, usually ``.safetensors``.

    Raises:
        FileNotFoundError: if ``basicvsr`` does not exist.
        CheckpointMismatch: if it does not fit the network.
    """
    shared, _ = _read_basicvsr(basicvsr)
    try:
        check_fit(network, shared, strict=False)
    except CheckpointMismatch as error:
        raise CheckpointMismatch(f"{os.fspath(basicvsr)}: {error}") from error
    state = {key: value.cpu() for key, value in network.state_dict().items()}
    changed = {
        key: value.half()
        for key, value in state.items()
        if key not in shared
        or not torch.allclose(value, shared[key], rtol=torch.finfo(torch.half).eps / 2, atol=1e-7)
    }
    write_file(changed, path, network.options)


def _read_basicvsr(path: str | os.PathLike) -> tuple[dict[str, Tensor], Recognised]:
    """Reads a BasicVSR checkpoint: its weights under this package's keys, and its options."""
    stored, recognised = read_recognised(path)
    if _started_from(recognised) is None:
        raise CheckpointMismatch(f"{os.fspath(path)} holds {recognised}, not a BasicVSR")
    with _naming(path):
        check_whole(with_options(recognised, stored.options), stored.best)
    return {rename(key): value for key, value in stored.best.items()}, recognised


def _started_from(recognised: Recognised) -> Architecture | None:
    """The architecture that can start from these weights; None if there is none."""
    rows = (row for row in ARCHITECTURES.values() if row.starts_from == recognised.network)
    return next(rows, None)


def _warm_start_heads(num_feat: int, window_size: int) -> int:
    """The paper's 8 heads, or fewer if a head would lack the channels that a warm start needs."""
    needed = rows_of(window_size)
    fitting = (n for n in (8, 4, 2) if num_feat % (2 * n) == 0 and num_feat // n >= needed)
    return next(fitting, 1)


def export_official(network: IART) -> dict[str, Tensor]:
    """Converts an IA-RT's weights to a state dict that the released program loads strictly.

    Weights that the program never uses become zeros, and its constant buffers get the values that
    its constructor computes. Save the result as ``{'params': export_official(network)}``.

    Raises:
        ValueError: if the network's alignment is not the released one's.
    """
    op = network.implicit_warp
    if not hasattr(op, "window_encoding"):
        raise ValueError("the released program has implicit alignment only")
    released = alignment_settings({name: network.options[name] for name in RELEASED})
    for name, value in op.settings().items():
        if name != "window_size" and value != released[name]:
            raise ValueError(
                f"the released program's alignment has {name}={released[name]}, not {value}"
            )
    state = dict(network.state_dict())
    dim = network.conv_first.out_channels
    for branch in BRANCHES:
        shapes = {"conv_first": (dim, 3), "conv_first_feat": (dim, 64)}
        shapes["conv_before_upsample"] = (64, dim)
        for name, (c_out, c_in) in shapes.items():
            key = f"swin_backbone.{branch}.{name}"
            state[f"{key}.weight"] = torch.zeros(c_out, c_in, 3, 3)
            state[f"{key}.bias"] = torch.zeros(c_out)
    for name, module in network.named_modules():
        if hasattr(module, "relative_position_bias_table"):
            index = relative_position_index(module.window_size)
            state[f"{name}.relative_position_index"] = index
    offsets = torch.arange(op.window_size)
    state["implicit_warp.window_idx_offset"] = torch.cartesian_prod(offsets, offsets)
    encoding = op.window_encoding(torch.device("cpu"), torch.float32)
    state["implicit_warp.position_bias"] = encoding.unsqueeze(0)
    return state


def save_checkpoint(network: nn.Module, path: str | os.PathLike) -> None:
    """Saves a network and the options from which :func:`load_checkpoint` rebuilds it.

    The file is written completely or not at all.

    Args:
        network: one of this package's networks.
        path: the file; ``.safetensors``, or any other name for BasicSR's layout (entry ``params``).
    """
    write_file(network.state_dict(), path, network.options)

"""Checkpoint files: read from either framework or the released program, recognised, written."""

import os
import pickle
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .ia_cnn import IACNN
from .ia_rt import BRANCHES, IART
from .keys import CheckpointMismatch, Recognised, recognise, rename
from .mfsab import relative_position_index
from .warm_start import warm_start

CONTAINERS = ("params_ema", "params", "state_dict")
"""Where a file may keep its weights, best first: BasicSR's two and MMagic's."""

PREFIXES = ("generator_ema.", "generator.", "module.")
"""In front of every key of a network that is part of a model, best first."""


class CheckpointInfo(NamedTuple):
    """What :func:`load_checkpoint` found.

    Attributes:
        path: the file.
        container: the entry of the file that held the weights, '' if it is the file.
        prefix: what stood in front of every key.
        recognised: the network and its options.
    """

    path: str
    container: str
    prefix: str
    recognised: Recognised


def read_state_dict(path: str | os.PathLike) -> tuple[dict[str, Tensor], str, str]:
    """Reads a network's weights from a ``.pth``, ``.pt`` or ``.safetensors`` file.

    Args:
        path: the file.

    Returns:
        The state dict without prefix, the container and the prefix that it stood in.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointMismatch: if the file holds no weights, or more than weights.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"checkpoint not found: {path}")
    loaded: Any = read_file(path)
    container = next((name for name in CONTAINERS if name in loaded), "")
    state = loaded[container] if container else loaded
    for prefix in PREFIXES:
        inner = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if inner:
            return inner, container, prefix
    return {k: v for k, v in state.items() if isinstance(v, Tensor)}, container, ""


def read_file(path: str) -> dict[str, Any]:
    """Reads a file as it is, weights only.

    Raises:
        CheckpointMismatch: if it is damaged, or holds more than weights.
    """
    if path.endswith(".safetensors"):
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise CheckpointMismatch(f"{path} is not a safetensors file: {error}") from error
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "it is truncated"
        raise CheckpointMismatch(f"{path} cannot be read as weights: {reason}") from error
    if not isinstance(loaded, dict):
        raise CheckpointMismatch(f"{path} holds a {type(loaded).__name__}, not a state dict")
    return loaded


def build_network(recognised: Recognised) -> nn.Module:
    """Builds the network that a state dict was recognised as.

    Raises:
        CheckpointMismatch: if it is not a whole network.
    """
    if recognised.network == "IART":
        return IART(**recognised.options)
    if recognised.network in ("IACNN", "BasicVSR"):
        return IACNN(**recognised.options)
    raise CheckpointMismatch(f"a {recognised.network} alone is not a super-resolution network")


def load_checkpoint(path: str | os.PathLike) -> tuple[nn.Module, CheckpointInfo]:
    """Builds the network that a file holds and loads it strictly.

    Args:
        path: a file of the released IART program, of BasicSR, of MMagic, or safetensors.

    Returns:
        The network, on the CPU, in evaluation mode, and what was found.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointMismatch: if it holds no network that is known here.
    """
    state, container, prefix = read_state_dict(path)
    recognised = recognise(state)
    if recognised is None:
        known = "IA-RT, PSRT-recurrent, IA-CNN or BasicVSR"
        raise CheckpointMismatch(f"{os.fspath(path)} holds no {known}; keys: {list(state)[:3]}")
    network = build_network(recognised)
    network.load_state_dict(state, strict=True)
    return network.eval(), CheckpointInfo(os.fspath(path), container, prefix, recognised)


def load_ia_cnn(adapter: str | os.PathLike, basicvsr: str | os.PathLike) -> IACNN:
    """Composes an IA-CNN from a BasicVSR checkpoint and the parts that BasicVSR lacks.

    Args:
        adapter: a file with the weights of the extractor and the alignment, which replace or
            add to BasicVSR's; or 'warm-start', see :func:`iart_plugin.archs.warm_start`.
        basicvsr: a BasicVSR checkpoint of BasicSR or MMagic.

    Returns:
        The network, on the CPU, in evaluation mode.

    Raises:
        FileNotFoundError: if a file does not exist.
        CheckpointMismatch: if a file does not hold what it should.
    """
    state, _, _ = read_state_dict(basicvsr)
    recognised = recognise(state)
    if recognised is None or recognised.network != "BasicVSR":
        raise CheckpointMismatch(
            f"{os.fspath(basicvsr)} holds {recognised or 'no known network'}, not a BasicVSR"
        )
    sizes = {name: recognised.options[name] for name in ("num_feat", "num_block")}
    network = IACNN(**sizes)
    state = {rename(key): value for key, value in state.items()}
    if adapter == "warm-start":
        network.load_state_dict(state, strict=False)
        return warm_start(network).eval()
    added, _, _ = read_state_dict(adapter)
    state |= {key: value.float() for key, value in added.items()}
    network.load_state_dict(state, strict=True)
    return network.eval()


def export_official(network: IART) -> dict[str, Tensor]:
    """Writes an IA-RT's weights as a state dict that the released program loads strictly.

    The program's dead weights are zeros, its constant buffers what its constructor computes. Save
    it as ``{'params': export_official(network)}``.

    Raises:
        ValueError: if the network's alignment is not the implicit one.
    """
    op = network.implicit_warp
    if not hasattr(op, "window_encoding"):
        raise ValueError("the released program has implicit alignment only")
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


def save_checkpoint(state: Mapping[str, Tensor], path: str | os.PathLike) -> None:
    """Saves weights whole or not at all: ``.safetensors``, or BasicSR's ``params`` otherwise."""
    path = os.fspath(path)
    temporary = f"{path}.part"
    state = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    if path.endswith(".safetensors"):
        from safetensors.torch import save_file

        save_file(state, temporary)
    else:
        torch.save({"params": state}, temporary)
    os.replace(temporary, path)

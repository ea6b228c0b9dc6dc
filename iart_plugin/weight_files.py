"""Weight files as they lie on a disk: PyTorch's or safetensors, of either framework's layout."""

import hashlib
import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iart_plugin.files import AtomicFile

CONTAINERS = ("params_ema", "params", "state_dict")
"""Where a file may keep its weights, best first: BasicSR's two and MMagic's."""

PREFIXES = ("generator_ema.module.", "generator_ema.", "generator.", "module.")
"""In front of every key of a network that is part of a model, best first."""

OPTIONS = "options"
"""Where a file of this package keeps what rebuilds its network: its constructor's options."""


class CheckpointMismatch(RuntimeError):
    """A checkpoint cannot be read, does not fit a network, or nothing here recognises it."""


def file_digest(path: str | os.PathLike) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


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
    loaded = read_file(path)
    container = next((name for name in CONTAINERS if name in loaded), "")
    state = loaded[container] if container else loaded
    if not isinstance(state, Mapping):
        kind = type(state).__name__
        raise CheckpointMismatch(f"{path}: entry {container!r} is a {kind}, not a state dict")
    state = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    for prefix in PREFIXES:
        inner = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if inner:
            return inner, container, prefix
    return state, container, ""


def read_options(path: str | os.PathLike) -> dict[str, Any]:
    """Reads the constructor's options that :func:`write_file` saved; {} where there are none."""
    path = os.fspath(path)
    if path.endswith(".safetensors"):
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            return json.loads((file.metadata() or {}).get(OPTIONS, "{}"))
    options = read_file(path).get(OPTIONS, {})
    return dict(options) if isinstance(options, Mapping) else {}


def read_file(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a file as it is, weights only.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointMismatch: if it is damaged, or holds more than weights.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"checkpoint not found: {path}")
    try:
        if path.endswith(".safetensors"):
            from safetensors.torch import load_file

            return load_file(path)
        loaded = _load(path)
    except Exception as error:  # unpickling a damaged file can raise anything
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "it is truncated"
        raise CheckpointMismatch(f"{path} cannot be read as weights: {reason}") from error
    if not isinstance(loaded, dict):
        raise CheckpointMismatch(f"{path} holds a {type(loaded).__name__}, not a state dict")
    return loaded


def _load(path: str) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # MMEngine saves its log buffers beside the weights; they are read as what they are not,
        # and dropped, so that its checkpoints open where it is not installed.
        if not hasattr(torch.serialization, "safe_globals"):  # PyTorch before 2.5
            raise
        # Leaving the context forbids all that it allowed, also what was allowed before.
        allowed = torch.serialization.get_safe_globals()
        added = [entry for entry in _log_buffer_globals() if entry not in allowed]
        with torch.serialization.safe_globals(added):
            return torch.load(path, map_location="cpu", weights_only=True)


class _LogBuffer:
    """Stands for MMEngine's HistoryBuffer."""


def _attribute_of_log_buffer(owner: Any, name: str) -> None:
    """Stands for ``getattr``: a buffer is stored with references to its own statistics."""
    if owner is not _LogBuffer:
        raise pickle.UnpicklingError(f"a checkpoint may not read {name!r} of {owner!r}")


def _log_buffer_globals() -> list[Any]:
    return [
        (_LogBuffer, "mmengine.logging.history_buffer.HistoryBuffer"),
        (_attribute_of_log_buffer, "builtins.getattr"),
        *numpy_globals(),
    ]


def numpy_globals() -> list[Any]:
    """What NumPy's arrays and scalars in a checkpoint call, for PyTorch's allow-list."""
    core = np.core if int(np.__version__.partition(".")[0]) < 2 else np._core
    names = ("bool", "int32", "int64", "float32", "float64")
    moved = [  # numpy 2 renamed the module that a file of numpy 1 names, and the reverse
        (getattr(core.multiarray, function), f"{module}.multiarray.{function}")
        for module in ("numpy.core", "numpy._core")
        for function in ("scalar", "_reconstruct")
    ]
    return [np.ndarray, np.dtype, *{type(np.dtype(name)) for name in names}, *moved]


def write_file(
    state: Mapping[str, Tensor],
    path: str | os.PathLike,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Writes weights whole or not at all: ``.safetensors``, or BasicSR's ``params`` otherwise.

    Args:
        state: the weights.
        path: the file.
        options: what rebuilds the network, kept where shapes do not tell it all.
    """
    path = os.fspath(path)
    state = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    if not path.endswith(".safetensors"):
        save_whole({"params": state} | ({OPTIONS: dict(options)} if options else {}), path)
        return
    from safetensors.torch import save_file

    metadata = {"format": "pt"} | ({OPTIONS: json.dumps(options)} if options else {})
    with AtomicFile(path) as temporary:
        save_file(state, temporary, metadata)


def save_whole(content: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Save with ``torch.save``, whole or not at all."""
    # To an open file: PyTorch writes the name of a path into the file.
    with AtomicFile(path) as temporary, temporary.open("wb") as file:
        torch.save(dict(content), file)

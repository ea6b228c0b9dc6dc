"""Checks a weights file before it is loaded, and the weights that were in it afterwards.

Nothing here trusts the file. The size that its headers claim is compared with a limit first, so
that a small compressed file cannot fill the memory.
"""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

LIMIT_VARIABLE = "IART_PLUGIN_MAX_WEIGHTS_GIB"
"""The environment variable that raises :data:`DEFAULT_LIMIT_GIB`."""

DEFAULT_LIMIT_GIB = 2.0
"""The most GiB that a file may hold once decompressed. The networks here need less than 0.1."""

LFS_POINTER = b"version https://git-lfs.github.com/spec"

ZIP_MAGIC = b"PK\x03\x04"


INTEGERS = ("relative_position_index", "window_idx_offset")
"""The last part of the keys that may hold whole numbers: these are buffers, not weights."""

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class CheckpointMismatch(RuntimeError, ValueError):
    """A checkpoint cannot be read, does not fit a network, or holds no network that is known.

    It is a RuntimeError, as PyTorch's own errors about weights are, and a ValueError, as all errors
    of this package about bad input are.
    """


def kind_of_file(path: str) -> str:
    """Checks that a weights file can be loaded, and finds its format from its content.

    Args:
        path: the file; apart from ``.safetensors``, its suffix does not matter.

    Returns:
        'safetensors', 'zip' (PyTorch's format since 1.6) or 'pickle' (its older one).

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointMismatch: if it is not a weights file, is damaged, or is too large.
    """
    if not os.path.exists(path):
        link = f"{path} is a link to a missing file" if os.path.islink(path) else ""
        raise FileNotFoundError(link or f"checkpoint not found: {path}")
    if not os.path.isfile(path):
        kind = "a folder" if os.path.isdir(path) else "a device or a pipe"
        raise CheckpointMismatch(f"{path} is {kind}, not a file of weights")
    with Path(path).open("rb") as file:
        head = file.read(512)
    size = os.path.getsize(path)
    if not head:
        raise CheckpointMismatch(f"{path} is empty")
    if head.startswith(LFS_POINTER):
        raise CheckpointMismatch(
            f"{path} is a Git LFS pointer, not the weights: fetch them with 'git lfs pull'"
        )
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise CheckpointMismatch(f"{path} is a web page, not weights: download the file itself")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size:
        _check_size(path, size)
        return "safetensors"
    if path.endswith(".safetensors") and not head.startswith(ZIP_MAGIC):
        raise CheckpointMismatch(f"{path} cannot be read as weights: it has no safetensors header")
    if not head.startswith(ZIP_MAGIC):
        _check_size(path, size)
        return "pickle"
    _check_zip(path)
    return "zip"


def _check_size(path: str, size: float) -> None:
    """Raises CheckpointMismatch if a file would take more memory than is allowed."""
    try:
        limit = float(os.environ.get(LIMIT_VARIABLE, DEFAULT_LIMIT_GIB))
    except ValueError as error:
        raise CheckpointMismatch(f"{LIMIT_VARIABLE} is no number: {error}") from error
    if size > limit * 2**30:
        raise CheckpointMismatch(
            f"{path} holds {size / 2**30:.1f} GiB, more than the {limit:g} GiB that are allowed; "
            f"if that is right, set {LIMIT_VARIABLE} to a larger number"
        )


def _check_zip(path: str) -> None:
    """Raises CheckpointMismatch if an archive is too large, is damaged, or holds a program."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_size(path, sum(entry.file_size for entry in entries))
            damaged = archive.testzip()
    except CheckpointMismatch:
        raise
    except Exception as error:  # a damaged archive can raise anything
        raise CheckpointMismatch(
            f"{path} cannot be read as weights: it is truncated or damaged ({error})"
        ) from error
    if damaged is not None:
        raise CheckpointMismatch(
            f"{path} cannot be read as weights: it is damaged, the checksum of its part "
            f"'{damaged}' is wrong"
        )
    names = [entry.filename for entry in entries]
    if any(name.endswith("/constants.pkl") for name in names):
        raise CheckpointMismatch(
            f"{path} is a TorchScript program, not a state dict: save the module's state_dict()"
        )
    if not any(name.endswith("data.pkl") for name in names):
        raise CheckpointMismatch(f"{path} is an archive of something else than PyTorch's weights")


def check_values(state: Mapping[str, Tensor], what: str = "the weights") -> None:
    """Checks that a network could compute something with these weights.

    Args:
        state: the weights; they may include the released program's buffers of whole numbers.
        what: the name of the weights in the message.

    Raises:
        CheckpointMismatch: if a tensor is empty, sparse or without data, is not floating-point, or
            holds NaN or infinity, or if all weights are zero.
    """
    for key, value in state.items():
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            raise CheckpointMismatch(f"'{key}' of {what} is no plain tensor with data")
        if value.numel() == 0:
            raise CheckpointMismatch(f"'{key}' of {what} is empty: its shape is {_shape(value)}")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise CheckpointMismatch(
                f"'{key}' of {what} claims a shape of {_shape(value)}, but the file has not as "
                f"many numbers"
            )
        if key.rpartition(".")[2] in INTEGERS:
            continue
        if value.dtype not in FLOATS:
            kind = str(value.dtype).removeprefix("torch.")
            raise CheckpointMismatch(f"'{key}' of {what} is of type {kind}, not floating-point")
        if not value.isfinite().all():
            raise CheckpointMismatch(
                f"'{key}' of {what} holds NaN or infinity: take an earlier checkpoint"
            )
    weights = [value for key, value in state.items() if key.endswith("weight")]
    if len(weights) > 1 and not any(value.any() for value in weights):
        raise CheckpointMismatch(f"{what} are all zero")


def _shape(value: Tensor) -> str:
    return " x ".join(map(str, value.shape)) or "a single number"

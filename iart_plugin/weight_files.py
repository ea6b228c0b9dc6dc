"""Reads and writes weight files: PyTorch's or safetensors, in the layout of either framework.

All code that reads weights uses this module, so that every command accepts the same files. A file
that is refused gives an error of one line that names it.
"""

import hashlib
import json
import os
import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from iart_plugin.files import AtomicFile
from iart_plugin.weight_checks import CheckpointMismatch, check_values, kind_of_file

State = dict[str, Tensor]

CONTAINERS = ("params_ema", "params", "state_dict")
"""The entries of a file that may hold its weights, best first: BasicSR's two, and MMagic's."""

GENERATOR, AVERAGED = "generator.", "generator_ema."
"""The prefixes of a network's keys in MMagic's training models: of the trained weights, and of
their moving average."""

WRAPPERS = ("module.", "_orig_mod.", "model.", "net_g.", "netG.", "net.")
"""Prefixes that all keys have in files of programs that save a wrapped network."""

COUNTERS = ("steps", "step_counter")
"""Keys of counters that training models save beside a network's weights."""

OPTIONS = "options"
"""The entry in which this package saves the constructor's options, to rebuild the network."""


class StoredWeights(NamedTuple):
    """A network's weights from a file, under keys without prefix; at least one set is not None.

    Attributes:
        trained: the weights that the optimizer works on.
        averaged: the exponential moving average of the trained weights.
        options: the constructor's options that :func:`write_file` saved.
        container: the entry of the file that held the best set; '' if the file had no entries.
        prefix: the prefix that the best set's keys had.
    """

    trained: State | None
    averaged: State | None
    options: dict[str, Any]
    container: str
    prefix: str

    @property
    def best(self) -> State:
        """The averaged weights if there are any, which both frameworks' testers prefer too."""
        return self.trained if self.averaged is None else self.averaged


def file_digest(path: str | os.PathLike) -> str:
    """The SHA-256 digest of a file, hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_state_dict(path: str | os.PathLike) -> tuple[State, str, str]:
    """Reads the best set of a network's weights, see :func:`read_weight_sets`.

    Returns:
        The state dict without prefix, and the container and the prefix that it had in the file.
    """
    stored = read_weight_sets(path)
    return stored.best, stored.container, stored.prefix


def read_weight_sets(path: str | os.PathLike) -> StoredWeights:
    """Reads a network's weights from a ``.pth``, ``.pt`` or ``.safetensors`` file.

    Args:
        path: the file, from BasicSR, MMagic, the released program or this package. The prefixes of
            other programs that wrap a network are removed too.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointMismatch: if the file holds no weights or those of several networks, or if the
            weights are not floating-point, not finite or all zero.
    """
    path = os.fspath(path)
    loaded, kind = _read(path)
    options = _metadata(path) if kind == "safetensors" else _options(loaded, path)
    try:
        stored = _find_sets(loaded)
        for name, state in zip(("trained", "averaged"), stored[:2], strict=True):
            if state is not None:
                check_values(state, f"the {name} weights")
    except CheckpointMismatch as error:
        raise CheckpointMismatch(f"{path}: {error}") from error
    return stored._replace(options=options)


def _find_sets(loaded: Mapping[str, Any]) -> StoredWeights:
    """Finds the trained and the averaged weights in what a file holds."""
    trained = averaged = None
    if "params" in loaded or "params_ema" in loaded:
        container = "params_ema" if "params_ema" in loaded else "params"
        if "params" in loaded:
            trained, prefix = _without_prefix(_tensors(loaded, "params"))
        if "params_ema" in loaded:
            averaged, prefix = _without_prefix(_tensors(loaded, "params_ema"))
        return StoredWeights(trained, averaged, {}, container, prefix)
    container = _container(loaded)
    state, outer = _without_wrappers(_tensors(loaded, container))
    if isinstance(loaded.get("ema_state_dict"), Mapping):
        # MMEngine's EMAHook saves the averaged weights as state_dict, the trained ones as this.
        averaged, prefix = _without_prefix(state)
        trained, _ = _without_prefix(_tensors(loaded, "ema_state_dict"))
        return StoredWeights(trained, averaged, {}, container, outer + prefix)
    prefix = ""
    if any(key.startswith(AVERAGED) for key in state):
        averaged, prefix = _part(state, AVERAGED)
        if any(key.startswith(GENERATOR) for key in state):
            trained, _ = _part(state, GENERATOR)
    else:
        trained, prefix = _without_prefix(state)
    return StoredWeights(trained, averaged, {}, container, outer + prefix)


def _container(loaded: Mapping[str, Any]) -> str:
    """The entry that holds the weights; '' if the file itself is a state dict."""
    if "state_dict" in loaded:
        return "state_dict"
    if any(isinstance(value, Tensor) for value in loaded.values()):
        return ""
    wrapped = [
        name
        for name, entry in loaded.items()
        if isinstance(entry, Mapping) and any(isinstance(v, Tensor) for v in entry.values())
    ]
    if not wrapped:
        raise CheckpointMismatch(f"it holds no weights; its entries: {_listed(loaded)}")
    if len(wrapped) > 1:
        raise CheckpointMismatch(
            f"it holds several sets of weights ({_listed(wrapped)}): save the network's alone"
        )
    return wrapped[0]


def _tensors(loaded: Mapping[str, Any], container: str) -> State:
    """The tensors in an entry of a file, or in the file itself if ``container`` is ''."""
    state = loaded[container] if container else loaded
    if not isinstance(state, Mapping):
        raise CheckpointMismatch(
            f"entry {container!r} is a {type(state).__name__}, not a state dict"
        )
    tensors = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        place = f"entry {container!r}" if container else "it"
        raise CheckpointMismatch(f"{place} holds no weights; its entries: {_listed(state)}")
    return tensors


def _without_prefix(state: State) -> tuple[State, str]:
    """Removes all prefixes from a network's keys, and returns what was removed."""
    state, prefix = _without_wrappers(state)
    if not any(key.startswith(GENERATOR) for key in state):
        return _without_counters(state), prefix
    inner, generator = _part(state, GENERATOR)
    return inner, prefix + generator


def _part(state: State, prefix: str) -> tuple[State, str]:
    """Takes the network with this prefix out of a training model, which may hold others too."""
    inner = {key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)}
    roots = {key.partition(".")[0] for key in inner}
    stray = [key for key in state if key.partition(".")[0] in roots]
    if stray:
        raise CheckpointMismatch(
            f"its keys mix names with the prefix '{prefix}' and without it: {_listed(stray)}"
        )
    inner, wrapper = _without_wrappers(inner)
    return _without_counters(inner), prefix + wrapper


def _without_wrappers(state: State) -> tuple[State, str]:
    """Removes the wrappers' prefixes that all keys have, and returns what was removed."""
    found = ""
    while prefix := next((p for p in WRAPPERS if any(key.startswith(p) for key in state)), ""):
        stray = [key for key in state if not key.startswith(prefix) and key not in COUNTERS]
        if stray:
            raise CheckpointMismatch(
                f"its keys mix names with the prefix '{prefix}' and without it: {_listed(stray)}"
            )
        state = {key.removeprefix(prefix): value for key, value in state.items()}
        found += prefix
    return state, found


def _without_counters(state: State) -> State:
    return {key: value for key, value in state.items() if key not in COUNTERS}


def _listed(names: Iterable[Any]) -> str:
    """The first three of some names, for messages."""
    names = [repr(name) for name in names]
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "") if names else "none"


def read_options(path: str | os.PathLike) -> dict[str, Any]:
    """Reads the constructor's options that :func:`write_file` saved; {} if there are none.

    Raises:
        CheckpointMismatch: if the entry is there but does not hold options.
    """
    path = os.fspath(path)
    loaded, kind = _read(path)
    return _metadata(path) if kind == "safetensors" else _options(loaded, path)


def _metadata(path: str) -> dict[str, Any]:
    """Reads the options from the metadata of a safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        options = json.loads(metadata.get(OPTIONS, "{}"))
    except (SafetensorError, ValueError, RecursionError) as error:
        raise CheckpointMismatch(f"{path}: its metadata cannot be read: {error}") from error
    return _options({OPTIONS: options}, path)


def _options(loaded: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Takes the options out of a loaded file."""
    options = loaded.get(OPTIONS, {})
    if isinstance(options, Tensor):  # a weight that happens to have the name
        return {}
    if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
        raise CheckpointMismatch(
            f"{path}: its entry '{OPTIONS}' is no mapping of names to values: {options!r:.80}"
        )
    return dict(options)


def read_file(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a file's entries as they are, refusing anything but weights.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointMismatch: if it is damaged, too large, or holds more than weights.
    """
    return _read(os.fspath(path))[0]


def _read(path: str) -> tuple[dict[str, Any], str]:
    """Reads a file's entries, see :func:`read_file`, and its format, see :func:`kind_of_file`."""
    kind = kind_of_file(path)
    try:
        if kind == "safetensors":
            from safetensors.torch import load_file

            return load_file(path), kind
        loaded = _load(path)
    except Exception as error:  # unpickling a damaged file can raise anything
        raise CheckpointMismatch(f"{path} cannot be read as weights: {_reason(error)}") from error
    if not isinstance(loaded, dict):
        raise CheckpointMismatch(f"{path} holds a {type(loaded).__name__}, not a state dict")
    return loaded, kind


def _reason(error: Exception) -> str:
    """Says in one line why a file cannot be read.

    PyTorch's own message about objects that it refuses to unpickle is replaced, because it advises
    turning that protection off.
    """
    text = str(error).strip()
    if "weights_only" in text or "add_safe_globals" in text:
        found = re.search(r"(?:GLOBAL|global:?)\s+([\w.]+\.[\w.]+)", text)
        name = f" ({found[1]})" if found else ""
        return f"it holds Python objects beside the weights{name}, which could run code"
    return text.splitlines()[0] if text else "it is truncated"


def _load(path: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's remarks on how an old file was written
        return _unpickle(path)


def _unpickle(path: str) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # MMEngine saves its log buffers beside the weights. Stand-ins replace them, so that its
        # checkpoints can be opened without MMEngine.
        if not hasattr(torch.serialization, "safe_globals"):  # PyTorch before 2.5
            raise
        # Leaving the context also forbids what was allowed before it, so that is not added to it.
        allowed = torch.serialization.get_safe_globals()
        added = [entry for entry in safe_globals() if entry not in allowed]
        with torch.serialization.safe_globals(added):
            return torch.load(path, map_location="cpu", weights_only=True)


class _LogBuffer:
    """Stands for MMEngine's HistoryBuffer."""


STATISTICS = ("min", "max", "current", "mean")
"""The methods of MMEngine's HistoryBuffer that its files refer to."""


def safe_globals(history_buffer: type = _LogBuffer) -> list[Any]:
    """Lists all that a checkpoint may call beyond what PyTorch allows; there is no other list.

    Args:
        history_buffer: the class that MMEngine's log buffers become: MMEngine's own, or an empty
            stand-in if they are not needed.

    Returns:
        Entries for ``torch.serialization.safe_globals`` and ``add_safe_globals``.
    """

    def statistic(owner: Any, name: str) -> Any:
        """Replaces ``getattr``, by which a stored buffer refers to its own statistics methods."""
        if owner is not history_buffer or name not in STATISTICS:
            raise pickle.UnpicklingError(f"a checkpoint may not read {name!r} of {owner!r}")
        return getattr(history_buffer, name, None)

    return [
        (history_buffer, "mmengine.logging.history_buffer.HistoryBuffer"),
        (statistic, "builtins.getattr"),
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
    """Writes weights completely or not at all.

    Args:
        state: the weights.
        path: the file. ``.safetensors`` decides its format; any other name gives BasicSR's layout,
            with the weights in the entry ``params``.
        options: the constructor's options that rebuild the network, saved because the weights'
            shapes do not tell all of them.
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
    """Saves with ``torch.save`` so that ``path`` never names an incomplete file."""
    # torch.save writes a path's name into the file; given an open file, it does not.
    with AtomicFile(path) as temporary, temporary.open("wb") as file:
        torch.save(dict(content), file)

"""Reads weight files of any supported program, and writes them completely or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from basicsr.utils import get_root_logger
from torch import Tensor, nn

from iart_plugin.basicsr.resume import save_atomically
from iart_plugin.option_errors import OptionError
from iart_plugin.weight_files import OPTIONS, read_file, read_state_dict


def load(net: nn.Module, path: str, strict: bool, param_key: str | None) -> None:
    """Load a file into a network; ``RecurrentMixPrecisionRTModel.load_network`` describes it.

    Raises:
        OptionError: naming the file, if it holds no weights that fit.
    """
    kind = type(net).__name__
    try:
        weights, container = _read_weights(path, param_key)
        net.load_state_dict(weights, strict=strict)
    except (OSError, RuntimeError, ValueError) as error:
        raise OptionError(
            f"{path} does not fit {kind} as the options describe it: {error}"
        ) from error
    entry = f", entry {container!r}" if container else ""
    get_root_logger().info(f"{kind} took its weights from {path}{entry}.")


def save(nets: Mapping[str, nn.Module], path: Path) -> None:
    """Save networks under their keys, with the options that rebuild them if they have any."""
    payload = {
        key: {name: value.cpu() for name, value in net.state_dict().items()}
        for key, net in nets.items()
    }
    options = getattr(next(iter(nets.values())), "options", None)
    if options is not None:  # the shapes of the weights do not show all of them
        payload[OPTIONS] = options
    save_atomically(payload, path)


def _read_weights(path: str, param_key: str | None) -> tuple[dict[str, Tensor], str]:
    """A file's weights and the entry that held them, preferring ``param_key``."""
    state, container, _ = read_state_dict(path)
    if param_key is None or container in ("", param_key):
        return state, container
    content = read_file(path)
    if param_key not in content:
        return state, container
    return {k.removeprefix("module."): v for k, v in content[param_key].items()}, param_key

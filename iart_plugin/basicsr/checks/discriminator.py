"""Checks the discriminator of an option file by a trial without memory for weights."""

from __future__ import annotations

import inspect
from typing import Any

from iart_plugin.basicsr.checks.options import LARGEST, build_without_weights
from iart_plugin.option_errors import OptionError

KNOWN_PACKAGES = ("basicsr.archs.", "iart_plugin.")
"""Where the networks come from that are tried; those of other packages may not bear a trial."""


def check_discriminator(network: dict[str, Any], size: int) -> None:
    """Check that ``network_d`` can be built and judges frames.

    Args:
        network: the section ``network_d``, whose type is registered.
        size: the width and height of the frames, ``datasets.train.gt_size``.

    Raises:
        OptionError: naming the value that is impossible, or the frames that do not fit.
    """
    import torch
    from basicsr.utils.registry import ARCH_REGISTRY

    arch = ARCH_REGISTRY.get(network["type"])
    if not arch.__module__.startswith(KNOWN_PACKAGES):
        return
    _check_values(arch, network)
    where = f"network_d ({network['type']})"
    try:
        net = build_without_weights(arch, network)
        with torch.device("meta"):
            verdict = net(torch.zeros(2, 3, size, size))
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise OptionError(
            f"{where} cannot judge frames of 3 channels and {size}x{size} pixels: {reason}"
        ) from error
    if not isinstance(verdict, torch.Tensor):
        raise OptionError(f"{where} gives no verdict on frames; UNetDiscriminatorSN does.")


def _check_values(arch: type, network: dict[str, Any]) -> None:
    parameters = inspect.signature(arch).parameters
    for key, value in network.items():
        default = getattr(parameters.get(key), "default", None)
        where = f"network_d.{key} is {value!r}"
        if isinstance(default, bool) and not isinstance(value, bool):
            raise OptionError(f"{where}; it must be true or false.")
        if not key.startswith("num_"):
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LARGEST:
            raise OptionError(f"{where}; it must be a whole number from 1 to {LARGEST:,}.")

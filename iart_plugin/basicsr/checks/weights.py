"""Weight files that the options name: they must be there, readable, and fit their network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from iart_plugin.basicsr.checks.options import build_without_weights
from iart_plugin.option_errors import OptionError
from iart_plugin.weight_files import CheckpointMismatch, read_file, read_options, read_state_dict

KNOWN_PACKAGES = {"network_g": "iart_plugin.", "network_d": "basicsr.archs.discriminator_arch"}
"""Where the networks come from that are built to see whether a weight file fits them."""


def check_weights(opt: dict[str, Any]) -> None:
    """Check the weight files that the options name.

    Args:
        opt: BasicSR's options. In a resumed run the networks' paths are those of the run's own
            checkpoint, which must fit as any other file must.

    Raises:
        OptionError: naming the file, the option that asks for it, and what is wrong.
    """
    for key, path in opt["path"].items():
        if path and key.startswith("pretrain_network"):
            if not isinstance(path, str):
                raise OptionError(f"path.{key} is {path!r}; it must be the name of a file.")
            check_weight_file(Path(path), f"path.{key}")
    for section, network in opt.items():
        if section.startswith("network_") and network.get("spynet_path"):
            check_weight_file(Path(network["spynet_path"]), f"{section}.spynet_path")
    perceptual = (opt.get("train") or {}).get("perceptual_opt")
    if opt["is_train"] and perceptual and perceptual["type"] == "PerceptualLoss":
        from iart_plugin.basicsr.vgg import check_vgg

        check_vgg(perceptual)
    _check_fit(opt)


def check_weight_file(path: Path, key: str) -> None:
    """Refuse a weight file that is missing or no checkpoint.

    Raises:
        OptionError: naming the file and the option that asks for it.
    """
    if not path.is_file():
        raise OptionError(f"{key}: {path} does not exist (looked from {Path.cwd()}).")
    if path.suffix == ".safetensors":
        return
    try:
        read_file(path)
    except CheckpointMismatch as error:
        raise OptionError(
            f"{key}: {path} is not a readable PyTorch checkpoint ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'empty file'})."
        ) from error


def _check_fit(opt: dict[str, Any]) -> None:
    """Weight files must fit the networks that the options describe."""
    from basicsr.utils.registry import ARCH_REGISTRY

    from iart_plugin.archs.keys import check_fit
    from iart_plugin.flow import SPyNet

    for section in ("network_g", "network_d"):
        network, paths, letter = opt.get(section), opt["path"], section[-1]
        arch = ARCH_REGISTRY.get(network["type"]) if network else None
        if arch is None or not arch.__module__.startswith(KNOWN_PACKAGES[section]):
            continue
        path, key = paths.get(f"pretrain_network_{letter}"), f"path.pretrain_network_{letter}"
        try:
            if path:
                strict = paths.get(f"strict_load_{letter}", True)
                state, options = read_state_dict(path)[0], read_options(path)
                check_fit(build_without_weights(arch, network), state, strict, options)
            if path := network.get("spynet_path"):
                key = f"{section}.spynet_path"
                SPyNet(path)
        except (RuntimeError, ValueError) as error:
            raise OptionError(f"{key}: {path} does not fit: {error}") from error

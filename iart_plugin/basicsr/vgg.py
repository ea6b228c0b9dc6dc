"""The VGG network of BasicSR's perceptual loss, from a file that the options name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from basicsr.archs import vgg_arch

from iart_plugin.option_errors import OptionError, check_keys, nearest
from iart_plugin.weight_checks import kind_of_file
from iart_plugin.weight_files import CheckpointMismatch, read_file

KEY = "train.perceptual_opt"


@contextlib.contextmanager
def vgg_weights(options: dict[str, Any] | None) -> Iterator[None]:
    """Let ``PerceptualLoss`` take its weights from ``vgg_path`` while it is built in this block.

    BasicSR has no option for this path, but a constant. Without ``vgg_path`` BasicSR reads
    ``experiments/pretrained_models/vgg19-dcbb9e9d.pth`` if it exists, and torchvision otherwise
    downloads the weights.

    Args:
        options: ``train.perceptual_opt``, from which ``vgg_path`` is taken out; None for no loss.
    """
    path = (options or {}).pop("vgg_path", None)
    before = vgg_arch.VGG_PRETRAIN_PATH
    vgg_arch.VGG_PRETRAIN_PATH = path or before
    try:
        yield
    finally:
        vgg_arch.VGG_PRETRAIN_PATH = before


def check_vgg(options: dict[str, Any]) -> None:
    """Check the network, layers and weights of ``train.perceptual_opt``.

    Raises:
        OptionError: if the network or a layer is unknown, or the file is missing, does not fit or
            holds NaN.
    """
    import torch
    from torchvision.models import vgg

    kind, path = options.get("vgg_type", "vgg19"), options.get("vgg_path")
    if kind.removesuffix("_bn") not in vgg_arch.NAMES:
        raise OptionError(
            f"{KEY}.vgg_type is {kind!r}; it can be {', '.join(vgg_arch.NAMES)}, each also with "
            f"_bn. {nearest(kind, vgg_arch.NAMES)}"
        )
    layers = vgg_arch.NAMES[kind.removesuffix("_bn")]
    layers = vgg_arch.insert_bn(layers) if kind.endswith("_bn") else layers
    if not options.get("layer_weights"):
        raise OptionError(f"{KEY}.layer_weights is not set.")
    check_keys(options["layer_weights"], layers, f"{KEY}.layer_weights ({kind})")
    if path is None:
        return
    if not Path(path).is_file():
        raise OptionError(f"{KEY}.vgg_path: {path} does not exist (looked from {Path.cwd()}).")
    try:
        given, container = read_file(path), kind_of_file(path)
    except CheckpointMismatch as error:
        raise OptionError(f"{KEY}.vgg_path: {path} is unreadable ({error}).") from error
    if container == "safetensors":
        raise OptionError(
            f"{KEY}.vgg_path: {path} is a safetensors file; BasicSR reads VGG from .pth files."
        )
    with torch.device("meta"):
        own = getattr(vgg, kind)(weights=None).state_dict()
    shapes = {key: getattr(value, "shape", None) for key, value in given.items()}
    wrong = [key for key in own if shapes.get(key) != own[key].shape]
    wrong += [key for key in given if key not in own]
    if wrong:
        raise OptionError(
            f"{KEY}.vgg_path: {path} does not hold torchvision's {kind} (first difference: "
            f"'{wrong[0]}')."
        )
    if bad := next((key for key in own if not given[key].isfinite().all()), None):
        raise OptionError(f"{KEY}.vgg_path: '{bad}' of {path} holds NaN or infinity.")

"""Lets MMagic load checkpoints of other programs, and refuses those of another network."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

from mmagic.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor

from iart_plugin.archs.conversion import behind, mmagic_file
from iart_plugin.archs.keys import check_fit, recognise
from iart_plugin.archs.upsampler import UpsamplingNetwork
from iart_plugin.weight_checks import CheckpointMismatch, check_values
from iart_plugin.weight_files import OPTIONS, read_options, read_state_dict

SCHEMES = ("", "http://", "https://")
"""The prefixes of the places that files are loaded from: a path (no prefix) or a web address."""

Loader = Callable[..., Any]


@HOOKS.register_module()
class CheckpointFitHook(Hook):
    """Refuses a checkpoint that does not fit the generator, if the generator is of this package.

    MMEngine loads the weights that happen to fit and only logs the rest. A test with the file of
    another network would therefore measure random weights.

    Args:
        partial: whether the file may lack weights or have additional ones, so that a training can
            start from a part of the network. Then only the sizes of the weights are checked.
    """

    priority = "VERY_HIGH"

    def __init__(self, partial: bool = False) -> None:
        self.partial = partial

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Records the network's options, because the weights' shapes do not show all of them."""
        options = getattr(_generator(runner), "options", None)
        if options is not None:
            checkpoint[OPTIONS] = options

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Checks a file before it is loaded.

        Raises:
            CheckpointMismatch: naming the file, if it does not fit, or holds NaN or whole numbers.
        """
        generator = _generator(runner)
        if not isinstance(generator, UpsamplingNetwork):
            return
        state = checkpoint.get("state_dict", checkpoint)
        weights, options = behind("generator.", state), checkpoint.get(OPTIONS)
        try:
            check_fit(generator, weights, strict=not self.partial, options=options)
            check_values(weights)
        except CheckpointMismatch as error:
            raise CheckpointMismatch(f"{runner._load_from}: {error}") from error


def model_of(runner: Runner) -> Any:
    """The model that a runner trains or tests, without the wrapper for several processes."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _generator(runner: Runner) -> Any:
    generator = getattr(model_of(runner), "generator", None)
    # Models with several optimizers have a wrapper around each of their parts.
    return generator.module if is_model_wrapper(generator) else generator


def accept_other_checkpoints() -> None:
    """Lets MMEngine load this package's networks from BasicSR, official and safetensors files.

    MMagic's own files, and all other files that MMEngine loads, are not changed.
    """
    for scheme in SCHEMES:
        loader = CheckpointLoader._schemes[scheme]
        if not hasattr(loader, "accepts_other_checkpoints"):
            CheckpointLoader.register_scheme(scheme, _translating(loader), force=True)


def _translating(loader: Loader) -> Loader:
    @functools.wraps(loader)
    def load(filename: str, map_location: Any = None, *args: Any, **options: Any) -> Any:
        path = os.path.expanduser(filename)
        if path.endswith(".safetensors") and os.path.isfile(path):
            return _as_mmagic(read_state_dict(path)[0], path, read_options(path))
        loaded = loader(filename, map_location, *args, **options)
        state = _foreign_state_dict(loaded)
        return loaded if state is None else _as_mmagic(state, filename, loaded.get(OPTIONS))

    load.accepts_other_checkpoints = True
    return load


def _foreign_state_dict(loaded: Any) -> dict[str, Tensor] | None:
    """The weights of a file, if it holds a network of this package and is not MMagic's own."""
    if not isinstance(loaded, dict) or "state_dict" in loaded:
        return None
    container = next((name for name in ("params_ema", "params") if name in loaded), None)
    state = loaded if container is None else loaded[container]
    if container is None and not any(
        # MMagic's own networks may be bare state dicts too, but their keys have no such prefixes.
        key.startswith(("backward_trunk.", "swin_backbone."))
        for key in state
    ):
        return None
    recognised = recognise(state)
    return None if recognised is None or recognised.network == "SPyNet" else state


def _as_mmagic(
    state: dict[str, Tensor], path: str, options: dict[str, Any] | None
) -> dict[str, Any]:
    print_log(f"{path}: {recognise(state)}, loaded as the generator", logger="current")
    return mmagic_file(state) | ({OPTIONS: options} if options else {})

"""Loads networks by name, with weights from a file in any of the known layouts."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iart_plugin.archs import ARCHITECTURES, RealIACNN, load_checkpoint, load_ia_cnn
from iart_plugin.archs.architecture import Architecture, architecture_of
from iart_plugin.weight_files import file_digest

from .known_weights import best_here, find, known_by_name, none_here

logger = logging.getLogger(__name__)

AUTO, BICUBIC = "auto", "bicubic"
MODELS = {row.model: row.summary for row in ARCHITECTURES.values() if row.model} | {
    BICUBIC: "no network: bicubic x4, to try a pipeline or to compare with"
}
"""The choices of ``--model`` beside "auto": each network in the table of architectures that
``upscale`` offers, and bicubic interpolation."""


class Bicubic(nn.Module):
    """Bicubic interpolation as a module: (n, t, 3, h, w) to (n, t, 3, 4h, 4w)."""

    def forward(self, lqs: Tensor) -> Tensor:
        """Upscale every frame by itself."""
        frames = F.interpolate(lqs.flatten(0, 1).float(), scale_factor=4, mode="bicubic")
        return frames.unflatten(0, lqs.shape[:2])


@dataclass(frozen=True)
class LoadedModel:
    """A network ready to run.

    Attributes:
        name: One of :data:`MODELS`.
        network: The network with its weights, in evaluation mode.
        digest: SHA-256 of the weights file, hexadecimal; '' without weights.
        summary: A one-line description for people.
        settings: Further settings that change the result, see :meth:`RealIACNN.set_cleaning`.
    """

    name: str
    network: nn.Module
    digest: str
    summary: str
    settings: dict[str, float] = field(default_factory=dict)


def load_model(
    name: str,
    weights: str | Path | None = None,
    *,
    device: torch.device | None = None,
    clean_passes: int | None = None,
    clean_threshold: float | None = None,
) -> LoadedModel:
    """Load a network with its weights.

    The layout of a file (official, BasicSR, MMagic or safetensors), its network and its
    hyper-parameters are recognised from the keys and shapes. BasicVSR weights given for ``ia-cnn``
    warm-start it.

    Args:
        name: One of :data:`MODELS`, or "auto" for the network that the weights belong to.
        weights: The checkpoint, or the name of known weights on this machine. If None, the best
            known weights on this machine are used; see
            :mod:`iart_plugin.inference.known_weights`.
        device: The device that the network will run on, which decides which weights are best; the
            CPU if None.
        clean_passes: How often each frame is cleaned at most, for a network that cleans frames.
        clean_threshold: A frame is cleaned again if the last pass changed it by this much or more,
            on average, in [0, 1].

    Raises:
        ValueError: The name is unknown, there are no weights, or they belong to another network.
        FileNotFoundError: The weights file does not exist.
    """
    if name not in (AUTO, *MODELS):
        raise ValueError(f"--model {name}: choose one of {', '.join((AUTO, *MODELS))}")
    cleaning = {"passes": clean_passes, "threshold": clean_threshold}
    cleaning = {key: value for key, value in cleaning.items() if value is not None}
    if name == BICUBIC:
        _set_cleaning(name, None, cleaning)
        if weights is not None:
            raise ValueError(f"--model bicubic has no weights: leave out --weights {weights}")
        return LoadedModel(name, Bicubic(), "", "bicubic interpolation")
    path = _find(name, device or torch.device("cpu")) if weights is None else _given(weights)
    network, found = _load(name, path)
    if name not in (AUTO, found):
        raise ValueError(f"{path} holds {found} weights, not {name}: pass --model {found}")
    settings = _set_cleaning(found, network, cleaning)
    digest = file_digest(path)
    millions = sum(p.numel() for p in network.parameters()) / 1e6
    summary = f"{found}, {millions:.2f} M parameters, {path.name} (sha256 {digest[:12]})"
    return LoadedModel(found, network.eval(), digest, summary, settings)


def _set_cleaning(name: str, network: nn.Module | None, cleaning: dict[str, Any]) -> dict[str, Any]:
    """Set how a network cleans its frames, and return all such settings.

    Returns:
        The settings in force; {} for a network that does not clean its frames.

    Raises:
        ValueError: ``cleaning`` is not empty, but the network does not clean its frames.
    """
    if not isinstance(network, RealIACNN):
        if cleaning:
            raise ValueError(
                f"--model {name} cleans no frames: leave out --clean-passes and --clean-threshold"
            )
        return {}
    network.set_cleaning(**cleaning)
    return {"passes": network.clean_passes, "threshold": network.clean_threshold}


def _given(weights: str | Path) -> Path:
    """The file that a path or the name of known weights stands for.

    Raises:
        FileNotFoundError: There is no such file; for known weights, the message says where to look.
    """
    path = Path(weights)
    if path.exists():
        return path
    known = known_by_name(str(weights))
    found = find(known) if known else None
    if found is None:
        hint = f"; `iart-plugin weights {known.name}` says where to get it" if known else ""
        raise FileNotFoundError(f"--weights {path}: no such file{hint}")
    return found


def _find(name: str, device: torch.device) -> Path:
    """Find the best weights on this machine for a network.

    Raises:
        ValueError: There are none; the message says where to get them.
    """
    models = {row.model for row in ARCHITECTURES.values() if row.model}
    if name != AUTO:
        wanted = _row(name)
        models = {name} | {
            row.model for row in ARCHITECTURES.values() if row.name == wanted.starts_from
        }
    best = best_here(models, device)
    if best is None:
        raise ValueError(none_here(name, models))
    known, path = best
    logger.info("weights: %s, found in %s (%s)", known.name, path.parent, known.purpose)
    return path


def _row(name: str) -> Architecture:
    return next(row for row in ARCHITECTURES.values() if row.model == name)


def _load(name: str, path: Path) -> tuple[nn.Module, str]:
    network, _ = load_checkpoint(path)
    row = architecture_of(network)
    if name != AUTO and _row(name).starts_from == row.name:
        return load_ia_cnn(adapter="warm-start", basicvsr=path), name
    return network, row.model

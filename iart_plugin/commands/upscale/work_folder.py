"""The folder of an unfinished run: finished segments, and what they were made with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from iart_plugin.files import write_atomically

_RECORD = "run.json"


class WorkFolder:
    """``OUTPUT.unfinished``, beside the output so that finishing is a rename.

    Args:
        output: Where the finished video or folder of images will be.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.path = output.with_name(output.name + ".unfinished")

    def exists(self) -> bool:
        """Whether a run was left unfinished."""
        return (self.path / _RECORD).is_file()

    def record(self) -> dict[str, Any]:
        """What the unfinished run was started with.

        Raises:
            ValueError: The record is damaged.
        """
        path = self.path / _RECORD
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: damaged ({error}); start over with -y") from error

    def begin(self, record: dict[str, Any]) -> None:
        """Empty the folder and write down what the run is made with.

        Raises:
            FileExistsError: A folder of that name which no run has left.
        """
        if self.path.exists() and not self.exists() and any(self.path.iterdir()):
            raise FileExistsError(f"{self.path} is in the way and not an unfinished run: move it")
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True)
        write_atomically(self.path / _RECORD, json.dumps(record, indent=1, sort_keys=True))

    def check(self, record: dict[str, Any]) -> None:
        """Make sure that a run to be continued is the same run.

        Raises:
            ValueError: Names what differs.
        """
        ours = dict(_flat(json.loads(json.dumps(record))))
        theirs = dict(_flat(self.record()))
        different = [k for k in sorted({*ours, *theirs}) if ours.get(k) != theirs.get(k)]
        if different:
            changes = "; ".join(
                f"{k} was {theirs.get(k, 'absent')}, is {ours.get(k, 'absent')}" for k in different
            )
            raise ValueError(
                f"{self.path} is of another run ({changes}): give the same input and options, or "
                "start over with -y instead of --resume"
            )

    def segment(self, number: int) -> Path:
        """A segment's file; it exists once the segment is complete."""
        return self.path / f"segment_{number:06d}"

    @property
    def tail(self) -> Path:
        """What an interrupted process had encoded of its current segment."""
        return self.path / "interrupted_segment"

    @property
    def images(self) -> Path:
        """The folder that images are written to."""
        return self.path / "images"

    @property
    def spool(self) -> Path:
        """Packets of a pipe's other streams."""
        return self.path / "other_streams"

    def finished(self) -> list[Path]:
        """The complete segments before the first incomplete one."""
        paths = []
        while self.segment(len(paths)).exists():
            paths.append(self.segment(len(paths)))
        return paths

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.path, ignore_errors=True)


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, value

"""The folder of an unfinished run: finished segments, and what they were made with.

Everything that a run makes before its output is complete is in this folder, and a run never touches
other files there. Only one run at a time holds the folder's lock. The system releases the lock when
the process ends, however it ends.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import filelock

from iart_plugin.files import LEFT_OVER, write_atomically

logger = logging.getLogger(__name__)

_RECORD, _LOCK, _PARTIAL = "run.json", "lock", "partial.json"
SUFFIX = ".unfinished"


class WorkFolder:
    """``OUTPUT.unfinished``, beside the output so that finishing is a rename.

    Args:
        output: Where the finished video or folder of images will be.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.path = output.with_name(output.name + SUFFIX)
        self._lock = filelock.FileLock(self.path / _LOCK, timeout=0)

    def exists(self) -> bool:
        """Whether a run was left unfinished."""
        return (self.path / _RECORD).is_file()

    def check_free(self) -> None:
        """Make sure that nobody else uses the folder.

        Raises:
            FileExistsError: There is such a folder, and no run has left it.
            BlockingIOError: Another run is writing the same output.
        """
        if self.path.exists() and not self.exists():
            ours = [self.path / _LOCK]
            ours += self.path.glob(LEFT_OVER) if self.path.is_dir() else []
            if not self.path.is_dir() or any(path not in ours for path in self.path.iterdir()):
                raise FileExistsError(
                    f"{self.path} is in the way and not an unfinished run: move it"
                )
        if (self.path / _LOCK).exists():
            self.acquire()
            self._lock.release()

    def acquire(self) -> None:
        """Hold the folder, which is made if it is not there, until :meth:`release`.

        Raises:
            BlockingIOError: Another run is writing the same output.
            OSError: The folder cannot be made.
        """
        there = self.path.is_dir()
        try:
            self.path.mkdir(exist_ok=True)
            self._lock.acquire()
        except filelock.Timeout:
            raise BlockingIOError(
                f"another run is writing {self.output} now: wait for it, or choose another -o"
            ) from None
        except OSError:
            if not there:
                shutil.rmtree(self.path, ignore_errors=True)
            raise

    def release(self) -> None:
        """Let another run have the folder."""
        self._lock.release(force=True)

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
            OSError: There is no room for it.
        """
        self.drop_partial()
        self._clear(but=(_LOCK, _RECORD))  # a run that is killed here has left its record
        write_atomically(self.path / _RECORD, json.dumps(record, indent=1, sort_keys=True))

    def check(self, record: dict[str, Any]) -> None:
        """Make sure that the unfinished run was started with the same record.

        Args:
            record: As :meth:`begin` takes it, or a part of it.

        Raises:
            ValueError: Names what differs.
        """
        ours = dict(_flat(json.loads(json.dumps(record))))
        theirs = dict(_flat({key: self.record().get(key) for key in record}))
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
        """What a stopped process had encoded of its current segment."""
        return self.path / "interrupted_segment"

    @property
    def images(self) -> Path:
        """The folder that images are written to."""
        return self.path / "images"

    @property
    def spool(self) -> Path:
        """Packets of a pipe's other streams."""
        return self.path / "other_streams"

    def segments(self) -> list[Path]:
        """All complete segments that are there, in order."""
        return sorted(self.path.glob("segment_*"))

    def finished(self) -> list[Path]:
        """The complete segments before the first incomplete one."""
        paths = []
        while self.segment(len(paths)).exists():
            paths.append(self.segment(len(paths)))
        return paths

    @property
    def partial(self) -> Path:
        """Where the playable part of a stopped run goes.

        It goes beside the output, or into this folder where something of that name is there that
        the run has not made.
        """
        name = f"{self.output.stem}.partial{self.output.suffix}"
        beside = self.output.with_name(name)
        if os.path.lexists(beside) and not self._made(beside):
            return self.path / f"partial{self.output.suffix}"
        return beside

    def claim_partial(self, path: Path) -> None:
        """Write down that the run has made its partial file."""
        write_atomically(self.path / _PARTIAL, json.dumps(_identity(path)))

    def drop_partial(self) -> None:
        """Delete the partial file that the run had left, and no other."""
        if self._made(self.partial):
            self.partial.unlink()

    def _made(self, path: Path) -> bool:
        try:
            return json.loads((self.path / _PARTIAL).read_text()) == _identity(path)
        except (OSError, ValueError):
            return False

    def remove(self) -> None:
        """Delete the folder and let go of it."""
        self._clear(but=(_LOCK, _RECORD))
        self._clear(but=(_LOCK,))
        with suppress(OSError):  # Windows deletes no open file, so it is closed first there
            (self.path / _LOCK).unlink()
        self.release()
        with suppress(OSError):
            (self.path / _LOCK).unlink(missing_ok=True)
            self.path.rmdir()

    def _clear(self, *, but: tuple[str, ...]) -> None:
        for path in self.path.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name not in but:
                path.unlink(missing_ok=True)


def _identity(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_ino, stat.st_size, stat.st_mtime_ns]


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, value

"""Files and folders that appear under their name only when they are complete."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

LEFT_OVER = ".*.part"
"""A pattern for the temporary files that a killed process has left behind."""


class AtomicFile:
    """A file (or a folder) that is written under a temporary name and renamed when it is complete.

    A reader sees the old file or the whole new one, never a part of it, and several processes may
    write the same file at once. As a context manager it returns the temporary path. At the end of
    the block it renames what was written there, or removes it if the block failed::

        with AtomicFile(path) as temporary:
            torch.save(state, temporary)

    The temporary file is in the same folder, is hidden, and ends in ``.part`` whatever the file's
    suffix is, so that nobody takes it for a finished one.

    Args:
        path: The name of the complete file. Its folder must exist.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        # The name is cut, because a file system takes 255 bytes and the path may have as many.
        name = f".{self.path.name[:32]}.{secrets.token_hex(4)}.part"
        self.temporary = self.path.with_name(name)

    def commit(self, path: str | os.PathLike | None = None) -> None:
        """Make sure the file is on the disk, then rename it to its own name or to ``path``.

        Raises:
            OSError: if the disk is full, or a folder stands where the file should go.
        """
        if self.temporary.is_file():
            with self.temporary.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(self.temporary, path or self.path)

    def discard(self) -> None:
        """Remove what was written under the temporary name, if it is still there."""
        if self.temporary.is_dir():
            shutil.rmtree(self.temporary, ignore_errors=True)
        else:
            self.temporary.unlink(missing_ok=True)

    def __enter__(self) -> Path:
        return self.temporary

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.commit()
        finally:
            self.discard()


def write_atomically(path: str | os.PathLike, data: str | bytes) -> None:
    """Write a file completely or not at all; text is encoded as UTF-8.

    Raises:
        OSError: if the disk is full, or the folder cannot be written to.
    """
    with AtomicFile(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def remove_left_overs(folder: Path) -> None:
    """Remove the temporary files that killed processes have left in a folder.

    No other process may be writing to the folder.
    """
    for path in folder.glob(LEFT_OVER):
        path.unlink(missing_ok=True)

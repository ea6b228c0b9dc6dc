"""Makes one call of a program fail: a write, a rename, an encoder's or a muxer's call.

As SQLite's tests do, a program is run once to count its calls, and then once for each call that
fails. It runs in a forked process, which the failure may also kill.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import av
import cv2

Mode = Literal["full", "refused", "killed"]
"""The disk is full, the call is refused, or the process is killed before the call."""

MODES: tuple[Mode, ...] = ("full", "refused", "killed")
KILLED = 77


@dataclass
class Faults:
    """Counts calls, and makes one of them fail.

    Attributes:
        fail_at: The number of the call that fails, counted from 0; -1 for none.
        mode: How it fails.
        calls: What was called, in order.
    """

    fail_at: int = -1
    mode: Mode = "full"

    def __post_init__(self) -> None:
        self.calls: list[str] = []

    def counted(self, name: str, function: Callable) -> Callable:
        """The function, which counts and may fail."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            if len(self.calls) - 1 == self.fail_at:
                if self.mode == "killed":
                    os._exit(KILLED)
                number = errno.ENOSPC if self.mode == "full" else errno.EINVAL
                kind = av.FFmpegError if name == "mux" else OSError
                raise kind(number, os.strerror(number))
            return function(*args, **kwargs)

        return call

    def install(self) -> None:
        """Count in this process from now on, which cannot be undone."""
        os.replace = self.counted("rename", os.replace)
        os.fsync = self.counted("fsync", os.fsync)
        cv2.imencode = self.counted("encode", cv2.imencode)
        Path.mkdir = self.counted("mkdir", Path.mkdir)
        open_path, open_media = Path.open, av.open

        def open_counted(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if not set(mode) & set("wxa"):
                return open_path(path, mode, *args, **kwargs)
            opened = self.counted("open", open_path)(path, mode, *args, **kwargs)
            return Watched(opened, {"write": "write", "close": "close"}, self)

        def open_media_counted(file: Any, mode: str | None = None, *args: Any, **kwargs: Any):
            opened = open_media(file, mode, *args, **kwargs)
            if mode != "w":
                return opened
            names = {"mux": "mux", "mux_one": "mux", "start_encoding": "mux", "close": "mux"}
            return Watched(opened, names, self)

        Path.open = open_counted
        av.open = open_media_counted
        create = av.CodecContext.create
        faults = self

        class CodecContext:
            @staticmethod
            def create(*args: Any, **kwargs: Any) -> Any:
                return Watched(create(*args, **kwargs), {"encode": "encode"}, faults)

        av.CodecContext = CodecContext


class Watched:
    """Stands for an object, some of whose methods are counted."""

    def __init__(self, inner: Any, names: dict[str, str], faults: Faults) -> None:
        self.__dict__.update(_inner=inner, _names=names, _faults=faults)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        return self._faults.counted(self._names[name], value) if name in self._names else value

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._inner, name, value)

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def run_forked(program: Callable[[], Any], faults: Faults, log: Path) -> int:
    """Run a program in a process of its own; its exit code, 1 for an exception.

    Args:
        program: What to run.
        faults: What fails in it.
        log: Gets what it says, and the names of the calls if it ends by itself.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        # Whatever a test runner has put in their place.
        sys.stdout = os.fdopen(1, "w", buffering=1, errors="backslashreplace")
        sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace")
        faults.install()
        try:
            program()
            code = 0
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        os.write(1, ("\ncalls: " + " ".join(faults.calls) + "\n").encode())
    finally:
        os._exit(code)
    return code


def calls_of(log: Path) -> list[str]:
    """The calls that :func:`run_forked` has written down."""
    return log.read_text().rsplit("calls: ", 1)[1].split()

"""Code that all commands share: exit codes, error messages, and logging to the console."""

from __future__ import annotations

import argparse
import functools
import logging
import sys
from collections.abc import Callable, Sequence

from iart_plugin import extras

logger = logging.getLogger("iart_plugin")
EXIT_ERROR, EXIT_INTERRUPTED = 1, 130


def one_line(error: BaseException) -> str:
    """An error's message without line breaks, with its type if the message alone says little."""
    if isinstance(error, ImportError) and extras.advice(error.name):
        return extras.advice(error.name)
    if isinstance(error, OSError) and error.strerror:
        name = f"{error.filename}: " if error.filename else ""
        text = f"{name}{error.strerror}"
    else:
        text = " ".join(str(error).split())
    expected = isinstance(error, (ValueError, OSError, MemoryError))
    return text if expected and text else f"{type(error).__name__}: {text}"


def fail(error: BaseException) -> int:
    """Print an error as one line, and return the exit code.

    Raises:
        BrokenPipeError: If that is the error. The command line ends quietly, because whatever read
            the output has gone.
    """
    if isinstance(error, BrokenPipeError):
        raise error
    print(f"error: {one_line(error)}", file=sys.stderr)
    return EXIT_ERROR


def command_parser(name: str, text: str) -> argparse.ArgumentParser:
    """A parser for a command whose ``--help`` begins with the docstring of its module.

    Args:
        name: The command as ``iart-plugin`` knows it.
        text: The docstring.
    """
    return argparse.ArgumentParser(
        prog=f"iart-plugin {name}",
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def one_line_errors(main: Callable[..., int]) -> Callable[..., int]:
    """Let a command's ``main(argv)`` end with one line and an exit code if the input is bad.

    Only errors that the input causes are shown like this: ``ValueError``, of which unusable weights
    are a kind, and ``OSError``. Any other error is a fault of the program, and its trace is shown.
    """

    @functools.wraps(main)
    def guarded(argv: Sequence[str] | None = None) -> int:
        try:
            return main(argv)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return EXIT_INTERRUPTED
        except (OSError, ValueError) as error:
            return fail(error)

    return guarded


def set_up_logging(*, verbose: bool, quiet: bool) -> None:
    """Send the package's messages to standard error, at the level that was asked for."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    logger.handlers[:] = [handler]
    logger.propagate = False
    level = logging.DEBUG if verbose else (logging.WARNING if quiet else logging.INFO)
    logger.setLevel(level)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno <= logging.INFO else f"{record.levelname.lower()}: {text}"

"""The command line: ``iart-plugin COMMAND``, or ``python -m iart_plugin COMMAND``."""

from __future__ import annotations

import importlib
import os
import sys

from iart_plugin import __version__, extras

COMMANDS = {
    "upscale": ("iart_plugin.commands.upscale.cli", "make a video or images four times as large"),
    "weights": ("iart_plugin.commands.weights", "list published weights, or download some"),
    "doctor": ("iart_plugin.commands.doctor", "say what is installed, and check its results"),
    "configs": ("iart_plugin.commands.configs", "list, print or copy an option file or a config"),
    "convert": ("iart_plugin.commands.convert", "convert a checkpoint for another program"),
    "warm-start": (
        "iart_plugin.commands.warm_start",
        "start an IA-CNN from the weights of a BasicVSR",
    ),
    "export": ("iart_plugin.commands.export", "write a network or a part of it as ONNX or .pt2"),
    "prepare-clips": ("iart_plugin.commands.prepare_clips", "make training clips from videos"),
    "prepare-reds": ("iart_plugin.commands.prepare_reds", "prepare REDS for training"),
    "prepare-sintel": ("iart_plugin.commands.prepare_sintel", "check and prepare MPI-Sintel"),
    "prepare-vimeo90k": ("iart_plugin.commands.prepare_vimeo90k", "prepare Vimeo-90K"),
    "check-dataset": ("iart_plugin.commands.check_dataset", "find what is wrong with data sets"),
    "evaluate-no-reference": (
        "iart_plugin.commands.evaluate_no_reference",
        "measure results without ground truth",
    ),
    "complexity": ("iart_plugin.commands.complexity", "count parameters and FLOPs, measure time"),
}
"""For each command, its module and what it does. The module's ``main(argv)`` returns the exit
code."""

EXIT_BROKEN_PIPE = 141
"""What a shell reports for a program that ended because nobody read its output any more."""


def usage() -> str:
    """The text that ``--help`` prints."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {command:<{width}}{text}" for command, (_, text) in COMMANDS.items()]
    return "\n".join(
        ["usage: iart-plugin COMMAND [-h] …", "       iart-plugin --version", "", *lines]
    )


def main() -> int:
    """Run the command that the first argument names, and return its exit code."""
    try:
        code = _run_command()
        print(end="", flush=True)
        return code
    except BrokenPipeError:
        # Whatever read the output, such as `head`, has gone. Python flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE


def _run_command() -> int:
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(usage())
        return 0
    if name == "--version":
        print(f"iart_plugin {__version__}")
        return 0
    if name not in COMMANDS:
        print(f"{usage()}\n\nerror: no command {name!r}", file=sys.stderr)
        return 2
    try:
        return importlib.import_module(COMMANDS[name][0]).main(sys.argv[2:])
    except ModuleNotFoundError as error:
        line = extras.advice(error.name)
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())

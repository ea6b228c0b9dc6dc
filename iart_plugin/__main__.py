"""``python -m iart_plugin COMMAND``: the package's command line."""

import importlib
import sys

COMMANDS = {
    "upscale": ("iart_plugin.commands.upscale.cli", "upscale a video or images by 4"),
    "export": ("iart_plugin.commands.export", "write parts of a network as ONNX"),
}
"""Each command's module, whose ``main(argv)`` returns the exit code, and what it does."""


def main() -> int:
    """Run the command that the first argument names."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in COMMANDS:
        return importlib.import_module(COMMANDS[name][0]).main(sys.argv[2:])
    lines = [f"  {command:<10}{text}" for command, (_, text) in COMMANDS.items()]
    wanted_help = name in ("-h", "--help")
    print("usage: python -m iart_plugin COMMAND [-h] …\n\n" + "\n".join(lines),
          file=sys.stdout if wanted_help else sys.stderr)  # fmt: skip
    if not wanted_help:
        print(f"\nerror: no command {name!r}", file=sys.stderr)
    return 0 if wanted_help else 2


if __name__ == "__main__":
    sys.exit(main())

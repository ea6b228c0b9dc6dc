"""Convert a checkpoint for another program: the command ``iart-plugin convert``."""

import sys

from iart_plugin.commands.convert import main

if __name__ == "__main__":
    sys.exit(main())

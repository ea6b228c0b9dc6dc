"""Another name for the command ``iart-plugin prepare-reds``."""

import sys

from iart_plugin.commands.prepare_reds import main

if __name__ == "__main__":
    sys.exit(main())

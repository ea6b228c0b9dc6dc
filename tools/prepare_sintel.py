"""Another name for the command ``iart-plugin prepare-sintel``."""

import sys

from iart_plugin.commands.prepare_sintel import main

if __name__ == "__main__":
    sys.exit(main())

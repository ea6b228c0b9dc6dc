"""Another name for the command ``iart-plugin prepare-clips``."""

import sys

from iart_plugin.commands.prepare_clips import main

if __name__ == "__main__":
    sys.exit(main())

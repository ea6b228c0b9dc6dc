"""Another name for the command ``iart-plugin prepare-vimeo90k``."""

import sys

from iart_plugin.commands.prepare_vimeo90k import main

if __name__ == "__main__":
    sys.exit(main())

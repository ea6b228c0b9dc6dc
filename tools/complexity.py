"""Another name for the command ``iart-plugin complexity``."""

import sys

from iart_plugin.commands.complexity import main

if __name__ == "__main__":
    sys.exit(main())

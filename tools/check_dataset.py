"""Another name for the command ``iart-plugin check-dataset``."""

import sys

from iart_plugin.commands.check_dataset import main

if __name__ == "__main__":
    sys.exit(main())

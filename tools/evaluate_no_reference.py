"""Another name for the command ``iart-plugin evaluate-no-reference``."""

import sys

from iart_plugin.commands.evaluate_no_reference import main

if __name__ == "__main__":
    sys.exit(main())

"""Make an IA-CNN out of a BasicVSR checkpoint: the command ``iart-plugin warm-start``."""

import sys

from iart_plugin.commands.warm_start import main

if __name__ == "__main__":
    sys.exit(main())

"""Run MMagic's own tools/train.py on any config, also with numpy 2.

    python tools/mmagic_train.py CONFIG.py [--work-dir FOLDER] [--resume] [--cfg-options …]

The arguments are those of ``mim train mmagic``, which starts the same tool.
"""

import iart_plugin.mmagic  # noqa: F401  registers; also in workers that start by importing this file
from iart_plugin.mmagic import tools

if __name__ == "__main__":
    tools.run("train")

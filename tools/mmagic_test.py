"""Run MMagic's own tools/test.py on any config, also with numpy 2.

    python tools/mmagic_test.py CONFIG.py CHECKPOINT [--work-dir FOLDER] [--cfg-options …]

The arguments are those of ``mim test mmagic``, which starts the same tool.
"""

import iart_plugin.mmagic  # noqa: F401  registers; also in workers that start by importing this file
from iart_plugin.mmagic import tools

if __name__ == "__main__":
    tools.run("test")

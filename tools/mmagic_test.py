"""Run MMagic's own test tool: the same as ``python -m iart_plugin.mmagic.test``.

python tools/mmagic_test.py CONFIG.py CHECKPOINT [--work-dir FOLDER] [--cfg-options …]
"""

import iart_plugin.mmagic  # noqa: F401  registers; also in workers that start by importing this file
from iart_plugin.mmagic import tools

if __name__ == "__main__":
    tools.run("test")

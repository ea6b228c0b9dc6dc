"""Run MMagic's own train tool: the same as ``python -m iart_plugin.mmagic.train``.

python tools/mmagic_train.py CONFIG.py [--work-dir FOLDER] [--cfg-options …]
"""

import iart_plugin.mmagic  # noqa: F401  registers; also in workers that start by importing this file
from iart_plugin.mmagic import tools

if __name__ == "__main__":
    tools.run("train")

"""Run BasicSR's training on any option file, with outputs in the working directory.

    python tools/basicsr_train.py -opt configs/basicsr/train/FILE.yml
    torchrun --nproc_per_node 2 tools/basicsr_train.py -opt FILE.yml --launcher pytorch

The options are those of ``python -m basicsr.train``. The option file may do
without the plugin's line.
"""

import iart_plugin.basicsr  # noqa: F401  registers; also in workers that start by importing this file
from iart_plugin.basicsr import pipeline

if __name__ == "__main__":
    pipeline.run("train")

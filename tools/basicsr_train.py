"""Run BasicSR's training: the same as ``python -m iart_plugin.basicsr.train``.

    python tools/basicsr_train.py -opt configs/basicsr/train/FILE.yml
    torchrun --nproc_per_node 2 tools/basicsr_train.py -opt FILE.yml --launcher pytorch

The options are those of ``python -m basicsr.train``.
"""

import iart_plugin.basicsr  # noqa: F401  registers; also in workers that start by importing this file
from iart_plugin.basicsr import pipeline

if __name__ == "__main__":
    pipeline.run("train")

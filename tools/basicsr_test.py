"""Run BasicSR's testing: the same as ``python -m iart_plugin.basicsr.test``.

    python tools/basicsr_test.py -opt configs/basicsr/test/FILE.yml
    torchrun --nproc_per_node 2 tools/basicsr_test.py -opt FILE.yml --launcher pytorch

The options are those of ``python -m basicsr.test``.
"""

import iart_plugin.basicsr  # noqa: F401  registers; also in workers that start by importing this file
from iart_plugin.basicsr import pipeline

if __name__ == "__main__":
    pipeline.run("test")

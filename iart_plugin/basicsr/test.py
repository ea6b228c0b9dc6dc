"""Run BasicSR's testing on any option file, with outputs in the working directory.

    python -m iart_plugin.basicsr.test -opt FILE.yml
    torchrun --nproc_per_node 2 -m iart_plugin.basicsr.test -opt FILE.yml --launcher pytorch

The options are those of ``python -m basicsr.test``. The option file may do without the plugin's
line, and ``iart-plugin configs`` copies one.
"""

from iart_plugin.basicsr import pipeline

if __name__ == "__main__":
    pipeline.run("test")

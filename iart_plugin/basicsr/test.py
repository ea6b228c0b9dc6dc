"""Run BasicSR's testing on any option file, with outputs in the working directory.

    python -m iart_plugin.basicsr.test -opt FILE.yml
    torchrun --nproc_per_node 2 -m iart_plugin.basicsr.test -opt FILE.yml --launcher pytorch

The arguments are those of ``python -m basicsr.test``. The option file need not have the plugin's
line. ``iart-plugin configs`` copies option files.
"""

from iart_plugin.basicsr import pipeline

if __name__ == "__main__":
    pipeline.run("test")

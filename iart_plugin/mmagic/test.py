"""Run MMagic's own test tool with this package in place, also with numpy 2.

    python -m iart_plugin.mmagic.test CONFIG.py CHECKPOINT [--work-dir FOLDER] [--cfg-options …]

The arguments are those of ``mim test mmagic``, which starts the same tool.
"""

from iart_plugin.mmagic import tools

if __name__ == "__main__":
    tools.run("test")

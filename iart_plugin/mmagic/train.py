"""Run MMagic's own train tool after importing this package; this also works with numpy 2.

    python -m iart_plugin.mmagic.train CONFIG.py [--resume] [--work-dir FOLDER] [--cfg-options …]

The arguments are those of ``mim train mmagic``, which starts the same tool.
"""

from iart_plugin.mmagic import tools

if __name__ == "__main__":
    tools.run("train")

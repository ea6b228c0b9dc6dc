"""Installation; pyproject.toml holds the metadata. This file adds one build step.

The configs and the model index go into the wheel in MIM's layout, ``iart_plugin/.mim``, which
setuptools cannot be told in pyproject.toml because ``.mim`` is no package's name.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent


class BuildWithConfigs(build_py):
    """Copies the configs and the model index beside the package's modules."""

    def run(self) -> None:
        """Builds as usual; an editable install finds the configs in the checkout instead."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, "iart_plugin", ".mim")
        shutil.rmtree(target, ignore_errors=True)
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(HERE / "configs", target / "configs", ignore=ignored)
        shutil.copy2(HERE / "model-index.yml", target)


setup(cmdclass={"build_py": BuildWithConfigs})

"""Video super-resolution with implicit resampling-based alignment (CVPR 2024).

Importing the package registers nothing and imports nothing heavy. Import
:mod:`iart_plugin.basicsr` or :mod:`iart_plugin.mmagic` to register the parts in a framework.
"""

from .fused import is_fused, set_fused

__all__ = ["is_fused", "set_fused"]
__version__ = "0.1.0"

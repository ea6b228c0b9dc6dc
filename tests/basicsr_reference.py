"""BasicSR's own networks, for comparison."""

import iart_plugin.basicsr  # noqa: F401  isort: skip  mends BasicSR's import

from basicsr.archs.basicvsr_arch import BasicVSR
from basicsr.archs.spynet_arch import SpyNet

__all__ = ["BasicVSR", "SpyNet"]

"""BasicSR's own SPyNet, for comparison."""

from torch import nn

import iart_plugin.basicsr  # noqa: F401  mends BasicSR's import


def spynet() -> nn.Module:

    from basicsr.archs.spynet_arch import SpyNet

    return SpyNet().eval()

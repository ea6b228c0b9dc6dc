"""BasicSR's own SPyNet, for comparison."""

from torch import nn

from iart_plugin.compat import mend_basicsr


def spynet() -> nn.Module:
    mend_basicsr()
    from basicsr.archs.spynet_arch import SpyNet

    return SpyNet().eval()

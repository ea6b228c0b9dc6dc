"""BasicSR's own BasicVSR, for comparison."""

from torch import nn

from iart_plugin.compat import mend_basicsr


def basicvsr() -> nn.Module:
    mend_basicsr()
    from basicsr.archs.basicvsr_arch import BasicVSR

    return BasicVSR(num_feat=64, num_block=30).eval()

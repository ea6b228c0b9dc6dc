"""BasicSR's own BasicVSR, for comparison."""

from torch import nn

import iart_plugin.basicsr  # noqa: F401  mends BasicSR's import


def basicvsr() -> nn.Module:

    from basicsr.archs.basicvsr_arch import BasicVSR

    return BasicVSR(num_feat=64, num_block=30).eval()

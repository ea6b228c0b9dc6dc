"""The linear layer, by the library that is fastest for it."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .processor import has_fast_mkl

HAS_ONEDNN = torch.backends.mkldnn.is_available()


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, out: Tensor | None = None
) -> Tensor:
    """Like :func:`torch.nn.functional.linear` for rows of tokens.

    On a CPU where MKL, PyTorch's own choice, is slow, float32 goes through oneDNN as a 1 x 1
    convolution over channels-last tokens.

    Args:
        x: (..., in) contiguous.
        weight: (out, in).
        bias: (out,).
        out: (rows, out), rows being all of ``x``'s, where the result may be written, without
            gradients: fresh memory costs a CPU as much as the product.

    Returns:
        (..., out).
    """
    is_slow = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    is_slow = is_slow and HAS_ONEDNN and not has_fast_mkl()
    if not is_slow or torch.compiler.is_compiling() or x.numel() == 0:
        if out is None or bias is None:
            return F.linear(x, weight, bias)
        torch.addmm(bias, x.reshape(-1, x.shape[-1]), weight.t(), out=out)
        return out.view(*x.shape[:-1], len(weight))
    image = x.reshape(1, 1, -1, x.shape[-1]).permute(0, 3, 1, 2)
    out = F.conv2d(image, weight[..., None, None], bias)
    return out.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)

"""The linear layer, by the library that is fastest for it."""

import torch
import torch.nn.functional as F
from torch import Tensor

HAS_ONEDNN = torch.backends.mkldnn.is_available()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Like :func:`torch.nn.functional.linear` for rows of tokens.

    On a CPU, float32 goes through oneDNN as a 1 x 1 convolution over channels-last tokens, where
    PyTorch's own choice is MKL, which uses half of the vector unit of other makers' processors.

    Args:
        x: (..., in) contiguous.
        weight: (out, in).
        bias: (out,).

    Returns:
        (..., out).
    """
    is_slow = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    if not is_slow or not HAS_ONEDNN or torch.compiler.is_compiling() or x.numel() == 0:
        return F.linear(x, weight, bias)
    image = x.reshape(1, 1, -1, x.shape[-1]).permute(0, 3, 1, 2)
    out = F.conv2d(image, weight[..., None, None], bias)
    return out.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)

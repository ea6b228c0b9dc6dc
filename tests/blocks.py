"""Random blocks of the backbone, for the tests of their forms."""

import torch
from torch import Tensor

from iart_plugin.kernels.mfsab_sizes import BlockWeights


def random_block(
    clips: int,
    frames: int,
    height: int,
    width: int,
    *,
    channels: int = 12,
    heads: int = 2,
    window: tuple[int, int] = (8, 8),
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> tuple[Tensor, BlockWeights, Tensor]:
    """Returns tokens (n, t, h, w, c), weights and factors of stochastic depth (2, n)."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int, mean: float = 0.0, std: float = 0.2) -> Tensor:
        values = torch.randn(shape, generator=generator, dtype=torch.float64)
        return (mean + std * values).to(device, dtype)

    c, hidden, tokens = channels, 2 * channels, frames * window[0] * window[1]
    weights = BlockWeights(
        normal(heads, tokens, tokens),
        *(normal(3 * c, c), normal(c, c), normal(hidden, c), normal(c, hidden)),
        *(normal(c, mean=1), normal(c), normal(3 * c)),
        *(normal(c, mean=1), normal(c), normal(c), normal(c), normal(hidden)),
    )
    scales = 0.5 + torch.rand(2, clips, generator=generator, dtype=torch.float64)
    return normal(clips, frames, height, width, c, std=1), weights, scales.to(device, dtype)

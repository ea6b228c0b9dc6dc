"""Reads the attention's weights of an implicit alignment (Eq. 8) out of the alignment itself."""

import torch
from torch import Tensor

from iart_plugin.ops import ImplicitAlignment
from iart_plugin.ops.alignment_forms import split_position


@torch.no_grad()
def attention_weights(
    alignment: ImplicitAlignment, reference: Tensor, current: Tensor, flow: Tensor
) -> Tensor:
    """The weight of every pixel of the window, for every position and head.

    The result of an alignment is the mean of the window's values, weighted by the attention, plus
    a part that does not depend on the values. So the values are replaced by a 1 at one pixel of
    each window and by 0 at all others. What the result then gains is that pixel's weight. The keys
    and the queries stay as they are, and whichever form of the alignment is in use computes it.

    Args:
        alignment: the operation.
        reference: (n, c, h, w) features of the other frame.
        current: (n, c, h, w) features of this frame.
        flow: (n, 2, h, w) displacements in pixels, x then y. All windows must lie in the frame;
            at the border the weight of a repeated pixel is counted for the pixel that it repeats.

    Returns:
        (n, heads, window, window, h, w) weights: the window's rows, then its columns, then the
        current frame's positions. They sum up to 1 over the window.
    """
    size = alignment.window_size
    projected = alignment.project_reference(reference)
    height, width = reference.shape[-2:]
    keys = projected.keys_values[..., : alignment.channels]
    base, _ = split_position(flow)
    row, column = torch.arange(height) % size, torch.arange(width) % size

    def align(values: Tensor) -> Tensor:
        """The first channel of every head of the result for these values, (h, w)."""
        values = values.to(keys).flatten()[:, None].expand_as(keys)
        replaced = projected._replace(keys_values=torch.cat((keys, values), -1))
        aligned = alignment.align(replaced, current, flow)
        return aligned.unflatten(1, (alignment.num_heads, -1))[:, :, 0]

    without = align(torch.zeros(height, width))
    # A window holds one pixel of each class (row % size, column % size), wherever it begins.
    classes = torch.stack(
        [
            align((row[:, None] == y) & (column == x)) - without
            for y in range(size)
            for x in range(size)
        ],
        2,
    )  # (n, heads, size * size, h, w)
    offset = torch.arange(size, device=base.device).view(size, 1, 1)
    y = (base[:, 1, None, None] + offset[:, None]) % size  # (n, size, 1, h, w)
    x = (base[:, 0, None, None] + offset) % size  # (n, 1, size, h, w)
    index = (y * size + x).flatten(1, 2).unsqueeze(1)  # (n, 1, size * size, h, w)
    return classes.take_along_dim(index, 2).unflatten(2, (size, size))

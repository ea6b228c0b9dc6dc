"""Random crop, flips and transposition that change the flow vectors with the pixels.

A flow vector points from a pixel of one frame to its match in another. Mirroring the frames mirrors
the vectors too, and transposing them swaps the vectors' components. Without this, alignment would
be trained on wrong motion. The tests check that augmenting and then warping gives the same as
warping and then augmenting.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# The entries of a sample that are augmented, and whether they are on the high-resolution grid.
GRIDS = {"lq": False, "gt": True, "flows": False, "valid": False}


@dataclass(frozen=True, kw_only=True)
class FlowAugmentation:
    """A random crop, flips and transposition of a sample of :class:`SintelFlowDataset`.

    The random numbers come from PyTorch's generator, which its data loader seeds in every worker.

    Attributes:
        crop_size: Side of the square crop in low-resolution pixels; ``None`` keeps the frame.
        flip: Whether to flip left-right and up-down, each for half of the samples.
        transpose: Whether to transpose half of the samples.
    """

    crop_size: int | None = None
    flip: bool = True
    transpose: bool = True

    def __post_init__(self) -> None:
        if self.crop_size is not None and self.crop_size < 1:
            raise ValueError(f"crop_size must be at least 1, got {self.crop_size}")

    def __call__(self, sample: dict) -> dict:
        """Augment one sample.

        Args:
            sample: ``lq`` (t, 3, h, w), and any of ``gt`` (t, 3, s h, s w), ``flows``
                (t - 1, 2, h, w) and ``valid`` (t - 1, 1, h, w). Other entries pass unchanged.

        Returns:
            A new dict with the same keys.

        Raises:
            ValueError: If the crop is larger than the frames.
        """
        height, width = sample["lq"].shape[-2:]
        if self.crop_size is not None:
            if self.crop_size > min(height, width):
                raise ValueError(
                    f"crop_size {self.crop_size} is larger than the {height}x{width} frames "
                    f"of {sample.get('key', 'this sample')}"
                )
            top = _random_below(height - self.crop_size + 1)
            left = _random_below(width - self.crop_size + 1)
            sample = crop(sample, top, left, self.crop_size, self.crop_size)
        if self.flip and _random_below(2):
            sample = flip_horizontal(sample)
        if self.flip and _random_below(2):
            sample = flip_vertical(sample)
        if self.transpose and _random_below(2):
            sample = transpose(sample)
        return sample


def crop(sample: dict, top: int, left: int, height: int, width: int) -> dict:
    """Cut the same area out of every entry; it is given in low-resolution pixels."""
    scale = sample["gt"].shape[-1] // sample["lq"].shape[-1] if "gt" in sample else 1

    def cut(value: Tensor, is_high: bool) -> Tensor:
        s = scale if is_high else 1
        return value[..., s * top : s * (top + height), s * left : s * (left + width)]

    return _map(sample, cut)


def flip_horizontal(sample: dict) -> dict:
    """Mirror left and right: the vectors' x changes sign."""
    return _flow_map(_map(sample, lambda v, _: v.flip(-1)), [-1.0, 1.0])


def flip_vertical(sample: dict) -> dict:
    """Mirror top and bottom: the vectors' y changes sign."""
    return _flow_map(_map(sample, lambda v, _: v.flip(-2)), [1.0, -1.0])


def transpose(sample: dict) -> dict:
    """Swap rows and columns: the vectors' x and y change places."""
    sample = _map(sample, lambda v, _: v.transpose(-1, -2).contiguous())
    if "flows" in sample:
        sample["flows"] = sample["flows"].flip(1)
    return sample


def _map(sample: dict, change) -> dict:
    return {k: change(v, GRIDS[k]) if k in GRIDS else v for k, v in sample.items()}


def _flow_map(sample: dict, signs: list[float]) -> dict:
    if "flows" in sample:
        sample["flows"] = sample["flows"] * sample["flows"].new_tensor(signs).view(1, 2, 1, 1)
    return sample


def _random_below(bound: int) -> int:
    return int(torch.randint(bound, ()))

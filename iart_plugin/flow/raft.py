"""RAFT (Teed & Deng, ECCV 2020) from torchvision: the more precise, slower flow of Table 1."""

import os

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iart_plugin.ops.precision import full_precision

from .spynet import check_frames

MULTIPLE = 8
SMALLEST_SIDE = 128
"""The smallest side in pixels. RAFT needs two pixels per side on each of four levels of its
features, which are at 1/8 of the frame's resolution."""


class RAFT(nn.Module):
    """torchvision's ``raft_large`` with the interface of :class:`iart_plugin.flow.SPyNet`.

    Args:
        path: a file with torchvision's ``raft_large`` weights. With ``None``, torchvision downloads
            its ``C_T_SKHT_V2`` weights, to which torchvision's licence terms apply.
        num_updates: refinement steps.

    Raises:
        FileNotFoundError: if ``path`` does not exist.
        ValueError: if the file holds something else.
    """

    def __init__(self, path: str | os.PathLike | None = None, *, num_updates: int = 12) -> None:
        super().__init__()
        from torchvision.models.optical_flow import Raft_Large_Weights, raft_large

        if num_updates < 1:
            raise ValueError(f"num_updates must be at least 1, got {num_updates}")
        self.num_updates = num_updates
        if path is None:
            self.raft = raft_large(weights=Raft_Large_Weights.C_T_SKHT_V2, progress=True)
            return
        if not os.path.isfile(path):
            raise FileNotFoundError(f"RAFT weights not found: {path}")
        self.raft = raft_large(weights=None)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        try:
            self.raft.load_state_dict(loaded)
        except (RuntimeError, TypeError) as error:
            raise ValueError(
                f"{path} does not hold weights of torchvision's raft_large: {str(error)[:200]}"
            ) from error

    def forward(self, current: Tensor, reference: Tensor) -> Tensor:
        """Estimates the flow from ``current`` to ``reference``.

        Args:
            current: (n, 3, h, w) RGB in [0, 1].
            reference: (n, 3, h, w) RGB in [0, 1].

        Returns:
            (n, 2, h, w) float32 displacements in pixels, x then y.

        Raises:
            ValueError: if the frames are not two RGB batches of one size.
        """
        check_frames(current, reference)
        height, width = current.shape[-2:]
        right, bottom = (
            max(-(-side // MULTIPLE) * MULTIPLE, SMALLEST_SIDE) - side for side in (width, height)
        )
        with full_precision(current.device):
            frames = torch.cat((current, reference)).float() * 2 - 1
            frames = F.pad(frames, (0, right, 0, bottom), mode="replicate")
            flow = self.raft(*frames.chunk(2), num_flow_updates=self.num_updates)[-1]
        return flow[..., :height, :width]

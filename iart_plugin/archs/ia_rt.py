"""IA-RT: second-order bidirectional recurrence of Transformers (Fig. 2 of the supplement).

PSRT-recurrent (Shi et al., NeurIPS 2022) with implicit alignment in place of patch alignment.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from iart_plugin.alignment import build_alignment
from iart_plugin.ops import warp

from .mfsab import BackbonePlans, MFSABBackbone
from .recurrent import RecurrentNetwork

BRANCHES = ("backward_1", "forward_1", "backward_2", "forward_2")


class IART(RecurrentNetwork):
    """IA-RT, or with ``alignment='patch'`` the PSRT-recurrent baseline.

    Takes the released option files' ``network_g`` as it is, and loads released checkpoints
    strictly. Nothing needs the official program's 64 x 64 input: any size from one pixel works.

    Args:
        mid_channels: channels between the recurrence and the upsampler.
        embed_dim: C, channels of the recurrence.
        depths: blocks in each of a backbone's layers.
        num_heads: attention heads in each layer; the first is also the implicit alignment's.
        window_size: (3, rows, columns) of an attention window.
        num_frames: frames a backbone sees; the recurrence supplies 3.
        cpu_cache_length: clips with more frames keep their features in the CPU's memory.
        is_low_res_input: True; the released program's other case never worked.
        use_checkpoint: recompute activations in the backward pass, for all branches or for each
            of the four.
        spynet_path: weights of the flow network, see :class:`RecurrentNetwork`.
        alignment: a name in :data:`iart_plugin.alignment.ALIGNMENTS`.
        alignment_options: further options of the alignment.
        img_size: accepted from option files; does not change the network.
        patch_size: accepted from option files; must be 1 or None.

    Raises:
        ValueError: if an option has a value that the network does not have.
    """

    def __init__(
        self,
        mid_channels: int = 64,
        embed_dim: int = 120,
        depths: Sequence[int] = (6, 6, 6),
        num_heads: Sequence[int] = (6, 6, 6),
        window_size: Sequence[int] = (3, 8, 8),
        num_frames: int = 3,
        cpu_cache_length: int = 100,
        is_low_res_input: bool = True,
        use_checkpoint: bool | Sequence[bool] = False,
        spynet_path: str | os.PathLike | None = None,
        alignment: str = "implicit",
        *,
        alignment_options: dict[str, Any] | None = None,
        img_size: Any = None,
        patch_size: Any = None,
    ) -> None:
        if not is_low_res_input:
            raise ValueError("is_low_res_input must be true: inputs are low-resolution frames")
        if num_frames != 3:
            raise ValueError(f"num_frames must be 3, got {num_frames}")
        if len(window_size) != 3 or window_size[0] != num_frames:
            raise ValueError(f"window_size must be (3, rows, columns), got {list(window_size)}")
        if patch_size is not None and _as_list(patch_size) != [1] * len(_as_list(patch_size)):
            raise ValueError(f"patch_size must be 1, got {patch_size}")
        super().__init__(mid_channels, spynet_path=spynet_path)
        self.cpu_cache_length = cpu_cache_length
        self.options = {
            "mid_channels": mid_channels,
            "embed_dim": embed_dim,
            "depths": list(depths),
            "num_heads": list(num_heads),
            "window_size": list(window_size),
            "alignment": alignment,
            "alignment_options": dict(alignment_options or {}),
        }
        self.conv_first = nn.Conv2d(3, embed_dim, 3, padding=1)
        self.swin_backbone = nn.ModuleDict(
            {
                name: MFSABBackbone(
                    embed_dim,
                    depths=depths,
                    num_heads=num_heads,
                    window_size=window_size,
                    use_checkpoint=recompute,
                )
                for name, recompute in zip(BRANCHES, _per_branch(use_checkpoint), strict=True)
            }
        )
        options = dict(alignment_options or {})
        if alignment == "implicit":
            options.setdefault("num_heads", num_heads[0])
        self.implicit_warp = build_alignment(alignment, embed_dim, **options)
        self.conv_before_upsample = nn.Conv2d(embed_dim, mid_channels, 3, padding=1)

    def branches(self) -> list[nn.Module]:
        return [self.swin_backbone[name] for name in BRANCHES]

    def _frames(self, lqs: Tensor, forward: Tensor, backward: Tensor) -> Iterator[Tensor]:
        n, t, _, h, w = lqs.shape
        store = torch.device("cpu") if t > self.cpu_cache_length else lqs.device
        plans = self.swin_backbone[BRANCHES[0]].plan(n, h, w, lqs.device)
        features = [self.conv_first(frame).to(store) for frame in lqs.unbind(1)]
        for name in BRANCHES[:-1]:
            features = [
                output.to(store)
                for output in self._branch(name, features, forward, backward, plans)
            ]
            features = features[::-1] if name.startswith("backward") else features
        last = self._branch(BRANCHES[-1], features, forward, backward, plans)
        for frame, output in zip(lqs.unbind(1), last, strict=True):
            yield self.upsample(self.conv_before_upsample(output), frame)

    def _branch(
        self,
        name: str,
        features: list[Tensor],
        forward: Tensor,
        backward: Tensor,
        plans: BackbonePlans,
    ) -> Iterator[Tensor]:
        """Yields a branch's outputs in its own direction."""
        backbone = self.swin_backbone[name]
        if name.startswith("backward"):
            features, flows = features[::-1], backward.flip(1)
        else:
            flows = forward
        return self.propagate(features, flows.unbind(1), backbone, plans, flows.device)

    def propagate(
        self,
        features: list[Tensor],
        flows: tuple[Tensor, ...],
        backbone: MFSABBackbone,
        plans: BackbonePlans,
        device: torch.device,
    ) -> Iterator[Tensor]:
        """Yields a branch's outputs, frame by frame in the order given.

        Args:
            features: t features (n, c, h, w) of the branch before, in this branch's direction.
            flows: t - 1 flows (n, 2, h, w); element i maps frame i + 1 to frame i of this order.
            backbone: refines (previous, current, before previous).
            plans: the backbone's window plans.
            device: where to work; the features may have been put away elsewhere.
        """
        weights = backbone.prepare()
        previous = before = None  # the branch's last two outputs, projected for alignment
        for i, current in enumerate(features):
            current = current.to(device)
            if previous is None:
                aligned = aligned_before = current
            else:
                flow = flows[i - 1]
                aligned = self.implicit_warp.align(previous, current, flow)
                if before is None:
                    aligned_before = torch.zeros_like(current)
                else:
                    flow_before = flow + warp(flows[i - 2], flow)
                    aligned_before = self.implicit_warp.align(before, current, flow_before)
            output = backbone(torch.stack((aligned, current, aligned_before), 1), plans, weights)
            yield output
            if i + 1 < len(features):
                previous, before = self.implicit_warp.project_reference(output), previous


def _as_list(value: Any) -> list:
    return list(value) if isinstance(value, Sequence) else [value]


def _per_branch(use_checkpoint: bool | Sequence[bool]) -> list[bool]:
    """One flag for each branch."""
    flags = _as_list(use_checkpoint)
    flags = flags * len(BRANCHES) if len(flags) == 1 else flags
    if len(flags) != len(BRANCHES):
        raise ValueError(
            f"use_checkpoint must be one flag or one for each of {', '.join(BRANCHES)}, "
            f"got {use_checkpoint}"
        )
    return [bool(flag) for flag in flags]

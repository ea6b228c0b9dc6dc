"""IA-RT: second-order bidirectional recurrence of Transformers (Fig. 2 of the supplement).

This is PSRT-recurrent (Shi et al., NeurIPS 2022) with implicit instead of patch alignment.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from iart_plugin.alignment import build_alignment
from iart_plugin.ops import warp

from .architecture import (
    Architecture,
    Cost,
    Sizes,
    alignment_of,
    count_modules,
    has_prefix,
    recurrence_cost,
)
from .feature_cache import CacheOptions, FeatureCache
from .mfsab import MFSABBackbone
from .recurrent import RecurrentNetwork

BRANCHES = ("backward_1", "forward_1", "backward_2", "forward_2")


class IART(RecurrentNetwork):
    """IA-RT; with ``alignment='patch'``, the PSRT-recurrent baseline.

    It accepts ``network_g`` of the released option files unchanged, and loads released checkpoints
    strictly. Inputs need not have the official program's 64 x 64 pixels; any size works.

    Args:
        mid_channels: channels between the recurrence and the upsampler.
        embed_dim: C, channels of the recurrence.
        depths: blocks in each of a backbone's layers.
        num_heads: attention heads in each layer; the first number is also used for the implicit
            alignment.
        window_size: (3, rows, columns) of an attention window.
        cpu_cache_length: clips with more frames store their features in main memory, as if
            ``cache`` were 'cpu'.
        use_checkpoint: recompute activations in the backward pass; one flag for all branches, or
            one for each of the four.
        spynet_path: weights of the flow network, see :class:`RecurrentNetwork`; likewise
            ``cache`` and ``cache_limit``.
        alignment: a name in :data:`iart_plugin.alignment.ALIGNMENTS`.
        alignment_options: further options of the alignment.
        num_frames: only for old option files: the frames that a backbone sees; must be 3.
        is_low_res_input: only for old option files: must be true.
        img_size: only for old option files: does not change the network.
        patch_size: only for old option files: must be 1 or None.

    Raises:
        ValueError: if an option has a value that the network does not support.
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
        cache: str = "device",
        cache_limit: int | None = None,
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
        super().__init__(
            mid_channels, spynet_path=spynet_path, cache=cache, cache_limit=cache_limit
        )
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
        """The four branches, in the order in which they are computed."""
        return [self.swin_backbone[name] for name in BRANCHES]

    def _cache_of(self, frames: int) -> CacheOptions:
        is_long = frames > self.cpu_cache_length and self.cache.cache == "device"
        return self.cache._replace(cache="cpu", limit=0) if is_long else self.cache

    def _frames(self, lqs: Tensor, forward: Tensor, backward: Tensor) -> Iterator[Tensor]:
        t = lqs.shape[1]
        new_cache = self._caches(t)
        cache = None
        for name in BRANCHES:
            is_backward = name.startswith("backward")
            order = range(t - 1, -1, -1) if is_backward else range(t)
            flows = backward.unbind(1)[::-1] if is_backward else forward.unbind(1)
            features = (self._feature(cache, lqs, i) for i in order)
            outputs = self.propagate(features, flows, self.swin_backbone[name])
            if name == BRANCHES[-1]:
                for i, output in zip(order, outputs, strict=True):
                    yield self.upsample(self.conv_before_upsample(output), lqs[:, i])
                return
            following = new_cache()
            for i, output in zip(order, outputs, strict=True):
                following.put(i, output)
            cache = following

    def _feature(self, cache: FeatureCache | None, lqs: Tensor, i: int) -> Tensor:
        """A frame's features from the previous branch, or from the frame for the first branch."""
        return self.conv_first(lqs[:, i]) if cache is None else cache.take(i, lqs.device)

    def propagate(
        self,
        features: Iterable[Tensor],
        flows: Sequence[Tensor],
        backbone: MFSABBackbone,
    ) -> Iterator[Tensor]:
        """Yields a branch's outputs, frame by frame in the order given.

        Args:
            features: t features (n, c, h, w) of the previous branch, in this branch's order.
            flows: t - 1 of (n, 2, h, w); element i maps frame i + 1 to frame i of this order.
            backbone: refines the current features, given them between the aligned outputs for the
                previous frame and for the frame before that.
        """
        prepared = backbone.prepare()
        project = self.implicit_warp.projector()
        output = before = None
        for i, current in enumerate(features):
            # `previous` and `before` are the last two outputs, projected for alignment.
            previous = None
            if output is None:
                aligned = aligned_before = current
            else:
                previous = project(output)
                flow = flows[i - 1]
                aligned = self.implicit_warp.align(previous, current, flow)
                if before is None:
                    aligned_before = torch.zeros_like(current)
                else:
                    flow_before = flow + warp(flows[i - 2], flow)
                    aligned_before = self.implicit_warp.align(before, current, flow_before)
            # The frames are stacked with channels last in memory, as the backbone reads them.
            rows = [x.permute(0, 2, 3, 1) for x in (aligned, current, aligned_before)]
            frames = torch.stack(rows, 1).permute(0, 1, 4, 2, 3)
            before = previous
            del current, aligned, aligned_before, rows, previous
            output = backbone(frames, prepared)
            yield output


def _as_list(value: Any) -> list:
    return list(value) if isinstance(value, Sequence) else [value]


def _per_branch(use_checkpoint: bool | Sequence[bool]) -> list[bool]:
    """Turns one flag, or a list of them, into one flag for each branch."""
    flags = _as_list(use_checkpoint)
    flags = flags * len(BRANCHES) if len(flags) == 1 else flags
    if len(flags) != len(BRANCHES):
        raise ValueError(
            f"use_checkpoint must be one flag or one for each of {', '.join(BRANCHES)}, "
            f"got {use_checkpoint}"
        )
    return [bool(flag) for flag in flags]


DEAD_KEYS = (
    r"swin_backbone\.\w+\.(conv_first|conv_first_feat|conv_before_upsample)\.(weight|bias)"
    r"|implicit_warp\.(position_bias|window_idx_offset)"
    r"|swin_backbone\..*\.attn\.relative_position_index"
)
"""Keys of released files that do not affect the output: unused weights, and buffers."""


def _options(sizes: Sizes) -> dict[str, Any]:
    """Derives the constructor's options from the shapes of a state dict."""
    branch = f"swin_backbone.{BRANCHES[0]}."
    layers = range(count_modules(sizes, f"{branch}layers."))
    blocks = [f"{branch}layers.{i}.residual_group.blocks." for i in layers]
    tables = [sizes[f"{block}0.attn.relative_position_bias_table"] for block in blocks]
    side = (round((tables[0][0] / 5) ** 0.5) + 1) // 2  # (2 * 3 - 1) (2 * side - 1)^2 rows
    options: dict[str, Any] = {
        "mid_channels": sizes["conv_before_upsample.weight"][0],
        "embed_dim": sizes["conv_first.weight"][0],
        "depths": [count_modules(sizes, block) for block in blocks],
        "num_heads": [table[1] for table in tables],
        "window_size": [3, side, side],
        "alignment": alignment_of(sizes, "implicit_warp.") or "patch",
    }
    if "implicit_warp.position_bias" in sizes:
        window = round(sizes["implicit_warp.position_bias"][1] ** 0.5)
        if window != 2:
            options["alignment_options"] = {"window_size": window}
    return options


def _cost(network: nn.Module) -> Cost:
    return recurrence_cost(network.conv_first.out_channels, per_channel=200)


_COMMON = {
    "network": IART,
    "options": _options,
    "certain": ("mid_channels", "embed_dim", "depths", "window_size"),
    "cost": _cost,
    "dead": DEAD_KEYS,
}

ROWS = (
    Architecture(
        name="IART",
        title="IA-RT",
        model="ia-rt",
        summary="IA-RT: PSRT-recurrent with implicit alignment",
        matches=lambda sizes: (
            has_prefix(sizes, "swin_backbone.") and has_prefix(sizes, "implicit_warp.")
        ),
        **_COMMON,
    ),
    Architecture(
        name="PSRT",
        title="PSRT-recurrent",
        model="psrt",
        summary="PSRT-recurrent, patch alignment",
        variant={"alignment": "patch"},
        matches=lambda sizes: (
            has_prefix(sizes, "swin_backbone.") and not has_prefix(sizes, "implicit_warp.")
        ),
        **_COMMON,
    ),
)

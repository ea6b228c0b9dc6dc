"""IA-CNN: first-order bidirectional recurrence with implicit alignment (Fig. 1 of the supplement).

This is BasicVSR (Chan et al., CVPR 2021) with implicit alignment instead of warping. The paper
states 64 channels, 30 residual blocks per branch, 8 heads and 8.5 M parameters; no code was
released. Implicit alignment needs a query from the current frame's features, which BasicVSR does
not compute. A feature extractor as deep as a branch supplies them here, and gives 8,521,263
parameters, in agreement with the paper. All other keys and shapes are BasicVSR's, so that its
checkpoints can be loaded.

The option files add ``position_channels`` and ``padding_mode: zeros`` to the paper's design. With
these the network can start by computing exactly what a BasicVSR computes, see warm_start.py.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iart_plugin.alignment import build_alignment

from .architecture import (
    Architecture,
    Cost,
    Sizes,
    alignment_of,
    count_modules,
    has_prefix,
    recurrence_cost,
)
from .keys import mmagic_spynet_name
from .recurrent import RecurrentNetwork
from .upsampler import NEGATIVE_SLOPE, channels_last, lrelu


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a ReLU between and a shortcut around."""

    def __init__(self, num_feat: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.conv2 = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        for conv in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(conv.weight)
            conv.weight.data.mul_(0.1)  # deep stacks start close to the identity, as in EDSR
            nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, c, h, w) to the same shape."""
        # Added in place, because no gradient depends on the convolution's result.
        return self.conv2(F.relu(self.conv1(x), inplace=True)).add_(x)


class ConvResidualBlocks(nn.Module):
    """A convolution and ``num_block`` residual blocks: (n, in, h, w) -> (n, num_feat, h, w)."""

    def __init__(self, in_channels: int, num_feat: int, num_block: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(in_channels, num_feat, 3, padding=1),
            nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True),
            nn.Sequential(*(ResidualBlock(num_feat) for _ in range(num_block))),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, in_channels, h, w) to (n, num_feat, h, w)."""
        return self.main(channels_last(x))


class IACNN(RecurrentNetwork):
    """IA-CNN; with another alignment, a BasicVSR with a feature extractor.

    Args:
        num_feat: channels of the features.
        num_block: residual blocks in each branch and in the extractor.
        num_heads: heads of the implicit alignment.
        spynet_path: weights of the flow network, see :class:`RecurrentNetwork`; likewise
            ``cache`` and ``cache_limit``.
        alignment: a name in :data:`iart_plugin.alignment.ALIGNMENTS`. BasicVSR has 'flow_warp'.
        alignment_options: further options of the alignment.
        extractor: whether to build the feature extractor; its output is the alignment's query.
            Without it and with ``alignment='flow_warp'`` the network is exactly BasicVSR. The
            extractor runs only for alignments that read the current frame. For the others, turn it
            off when training with several processes.

    Raises:
        ValueError: if a size is impossible, the alignment is unknown, or it needs an extractor.
    """

    def __init__(
        self,
        num_feat: int = 64,
        num_block: int = 30,
        num_heads: int = 8,
        spynet_path: str | os.PathLike | None = None,
        alignment: str = "implicit",
        *,
        alignment_options: dict[str, Any] | None = None,
        extractor: bool = True,
        cache: str = "device",
        cache_limit: int | None = None,
    ) -> None:
        if num_feat < 1 or num_block < 0:
            raise ValueError(
                f"num_feat must be positive and num_block not negative, "
                f"got {num_feat} and {num_block}"
            )
        super().__init__(num_feat, spynet_path=spynet_path, cache=cache, cache_limit=cache_limit)
        options = dict(alignment_options or {})
        if alignment == "implicit":
            options.setdefault("num_heads", num_heads)
        self.num_feat = num_feat
        self.options = {
            "num_feat": num_feat,
            "num_block": num_block,
            "num_heads": num_heads,
            "alignment": alignment,
            "alignment_options": options,
            "extractor": extractor,
        }
        self.alignment = build_alignment(alignment, num_feat, **options)
        if self.alignment.uses_current and not extractor:
            raise ValueError(
                f"alignment {alignment!r} reads the current frame's features: "
                f"it needs extractor=True"
            )
        self.extractor = ConvResidualBlocks(3, num_feat, num_block) if extractor else None
        self.backward_trunk = ConvResidualBlocks(num_feat + 3, num_feat, num_block)
        self.forward_trunk = ConvResidualBlocks(num_feat + 3, num_feat, num_block)
        self.fusion = nn.Conv2d(2 * num_feat, num_feat, 1)

    def branches(self) -> list[nn.Module]:
        """The two branches: backward and forward in time."""
        return [self.backward_trunk, self.forward_trunk]

    def _frames(self, lqs: Tensor, forward: Tensor, backward: Tensor) -> Iterator[Tensor]:
        t, new_cache = lqs.shape[1], self._caches(lqs.shape[1])
        queries, behind = new_cache(), new_cache()

        def inputs(order: range) -> Iterator[tuple[Tensor, Tensor | None]]:
            """Yields each frame with its query, which the forward branch reuses."""
            for i in order:
                query = None
                if self.alignment.uses_current:
                    if order.step < 0:
                        query = self.extractor(lqs[:, i])
                        queries.put(i, query)
                    else:
                        query = queries.take(i, lqs.device)
                yield lqs[:, i], query

        order = range(t - 1, -1, -1)
        back = self.propagate(inputs(order), backward.unbind(1)[::-1], self.backward_trunk)
        for i, features in zip(order, back, strict=True):
            behind.put(i, features)
        ahead = self.propagate(inputs(range(t)), forward.unbind(1), self.forward_trunk)
        for i, features in enumerate(ahead):
            both = torch.cat((behind.take(i, lqs.device), features), 1)
            yield self.upsample(lrelu(self.fusion(both)), lqs[:, i])

    def propagate(
        self,
        inputs: Iterable[tuple[Tensor, Tensor | None]],
        flows: Sequence[Tensor],
        trunk: nn.Module,
    ) -> Iterator[Tensor]:
        """Yields a branch's features, frame by frame in the order given.

        Args:
            inputs: t pairs of a frame (n, 3, h, w), in the branch's direction, and its extracted
                features (n, c, h, w), or None if the alignment does not read them.
            flows: t - 1 of (n, 2, h, w); element i maps frame i + 1 to frame i of this order.
            trunk: the branch's residual blocks.
        """
        project = self.alignment.projector()
        features = None
        for i, (frame, query) in enumerate(inputs):
            if features is None:
                n, _, h, w = frame.shape
                aligned = frame.new_zeros(n, self.num_feat, h, w)
            else:
                aligned = self.alignment(features, query, flows[i - 1], project)
            features = trunk(torch.cat((frame, aligned), 1))
            yield features


ALIGNMENT_OPTIONS = {"position_channels": 16, "padding_mode": "zeros"}
"""The alignment's options when a network starts from a BasicVSR. The encodings of window pixels 0
and 1 can be told apart with 16 channels, but not with 4 or 8. BasicVSR has zeros outside the
frame."""

MMAGIC_NAMES = (
    ("backward_resblocks.", "backward_trunk."),
    ("forward_resblocks.", "forward_trunk."),
    ("upsample1.upsample_conv.", "upconv1."),
    ("upsample2.upsample_conv.", "upconv2."),
)
"""Pairs of a key's prefix in MMagic's BasicVSR and the one used here, which is BasicSR's."""


def mmagic_name(key: str) -> str:
    """The name in MMagic's BasicVSR of a key of the BasicVSR in this package."""
    for theirs, ours in MMAGIC_NAMES:
        if key.startswith(ours):
            return theirs + key.removeprefix(ours)
    return mmagic_spynet_name(key)


def options_from_shapes(sizes: Sizes) -> dict[str, Any]:
    """Derives the constructor's options from the shapes of a state dict."""
    num_feat = sizes["fusion.weight"][0]
    options: dict[str, Any] = {
        "num_feat": num_feat,
        "num_block": count_modules(sizes, "backward_trunk.main.2."),
    }
    alignment = alignment_of(sizes, "alignment.")
    if alignment != "implicit":
        extractor = has_prefix(sizes, "extractor.")
        return options | {"alignment": alignment or "flow_warp", "extractor": extractor}
    options["num_heads"] = 8 if num_feat % 8 == 0 else 1
    beside = sizes["alignment.q.weight"][1] - num_feat
    if beside:
        options["alignment_options"] = ALIGNMENT_OPTIONS | {"position_channels": beside}
    return options


def _cost(network: nn.Module) -> Cost:
    return recurrence_cost(network.num_feat)


BASICVSR = {"alignment": "flow_warp", "extractor": False}
"""The options that turn IA-CNN into BasicVSR, and RealIACNN into RealBasicVSR."""


def extends_basicvsr(sizes: Sizes) -> bool:
    """Whether a state dict has an extractor or an aligner with weights, which BasicVSR lacks."""
    return has_prefix(sizes, "extractor.") or has_prefix(sizes, "alignment.")


def _is_cnn(sizes: Sizes) -> bool:
    return has_prefix(sizes, "backward_trunk.") and not has_prefix(sizes, "image_cleaning.")


_COMMON = {
    "network": IACNN,
    "options": options_from_shapes,
    "certain": ("num_feat", "num_block", "position_channels"),
    "cost": _cost,
}

ROWS = (
    Architecture(
        name="IACNN",
        title="IA-CNN",
        model="ia-cnn",
        summary="IA-CNN: BasicVSR with implicit alignment",
        starts_from="BasicVSR",
        matches=lambda sizes: _is_cnn(sizes) and extends_basicvsr(sizes),
        **_COMMON,
    ),
    Architecture(
        name="BasicVSR",
        title="BasicVSR",
        model="basicvsr",
        summary="BasicVSR, bilinear flow warping",
        variant=BASICVSR,
        matches=lambda sizes: _is_cnn(sizes) and not extends_basicvsr(sizes),
        renames=MMAGIC_NAMES,
        mmagic_name=mmagic_name,
        **_COMMON,
    ),
)

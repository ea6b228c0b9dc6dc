"""The network of the alignment study (Sec. 5, Sec. B.1): one aligner between two fixed halves.

Everything but the aligner is the same in every row of Table 1, Fig. 3, Table 3 and Table 4, and
the flow is an input. The network sees a frame and the next one, because Sintel has ground-truth
flow in this direction only.
"""

import math
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from iart_plugin.alignment import build_alignment
from iart_plugin.flow import SPyNet, given_flows
from iart_plugin.flow.spynet import clip_flows

from .architecture import Architecture, Sizes, count_modules, has_prefix, recurrence_cost
from .mfsab import MFSABBackbone
from .upsampler import UpsamplingNetwork

ALIGNED = ("features", "images")
REFINED = ("current", "aligned")  # in the order in which the second backbone sees them
COLOURS = 3


class AlignmentStudyNet(UpsamplingNetwork):
    """Super-resolves every frame from its own features and the next frame's, aligned to it.

    A convolution and a first backbone extract the features of each frame. The next frame's features
    are aligned to the current ones, and a second backbone fuses the two. The last frame of a clip
    has no next frame and is fused with itself.

    Args:
        alignment: a name in :data:`iart_plugin.alignment.ALIGNMENTS` ('none' is 'w/o Align.'), or
            ``None`` for 'w/o Prop.': every frame is fused with itself.
        alignment_options: the aligner's own options. 'implicit' has the network's number of heads
            unless they say otherwise.
        align: what is aligned, 'features' or 'images'. With 'images', the next frame itself is
            aligned before the convolution and backbone extract its features. An aligner with
            weights then works on ``embed_dim`` channels, which a 1 x 1 convolution, as it mixes no
            positions, makes from the colours; another one turns them back into colours.
        refined: which frame of a pair the second backbone refines, and so has a shortcut around it,
            'aligned' or 'current'. The study has always refined the aligned one, which makes the
            errors of every aligner more visible: the network must learn to replace what they spoil.
        embed_dim: C, channels of features.
        mid_channels: channels that enter the upsampler.
        hr_channels: channels of the upsampler at four times the size.
        depths: blocks in each layer of both backbones.
        num_heads: attention heads of every layer.
        window_size: (rows, columns) of an attention window.
        use_checkpoint: recompute activations in the backward pass.
        spynet_path: weights of a frozen SPyNet that estimates the flow if none is given. The study
            does not use it. Without it, flow must be given with the clip.

    Raises:
        ValueError: if an option is unknown or does not fit.
    """

    def __init__(
        self,
        alignment: str | None = "implicit",
        *,
        alignment_options: dict[str, Any] | None = None,
        align: str = "features",
        refined: str = "aligned",
        embed_dim: int = 60,
        mid_channels: int = 64,
        hr_channels: int = 64,
        depths: Sequence[int] = (3, 3, 3),
        num_heads: int = 6,
        window_size: Sequence[int] = (8, 8),
        use_checkpoint: bool = False,
        spynet_path: str | os.PathLike | None = None,
    ) -> None:
        super().__init__(mid_channels, hr_channels)
        if align not in ALIGNED:
            raise ValueError(f"align must be one of {', '.join(ALIGNED)}, got {align!r}")
        if refined not in REFINED:
            raise ValueError(f"refined must be one of {', '.join(REFINED)}, got {refined!r}")
        if len(window_size) != 2:
            raise ValueError(f"window_size must be (rows, columns), got {list(window_size)}")
        self.align = align
        self.conv_first = nn.Conv2d(COLOURS, embed_dim, 3, padding=1)
        self.extractor, self.fusion = (
            MFSABBackbone(
                embed_dim,
                depths=depths,
                num_heads=[num_heads] * len(depths),
                window_size=(frames, *window_size),
                output_frame=output,
                use_checkpoint=use_checkpoint,
            )
            for frames, output in ((1, 0), (2, REFINED.index(refined)))
        )
        self.conv_before_upsample = nn.Conv2d(embed_dim, mid_channels, 3, padding=1)
        # Built last, so that one seed gives all other weights the same values in every row.
        self.alignment = self._build_alignment(alignment, alignment_options, num_heads, embed_dim)
        self.lift = self.lower = None
        weighted = self.alignment is not None and any(True for _ in self.alignment.parameters())
        if align == "images" and weighted:
            self.lift = nn.Conv2d(COLOURS, embed_dim, 1)
            self.lower = nn.Conv2d(embed_dim, COLOURS, 1)
        self.spynet = None
        if spynet_path is not None:
            self.spynet = SPyNet(spynet_path).eval().requires_grad_(False)

    @staticmethod
    def _build_alignment(
        name: str | None, options: dict[str, Any] | None, num_heads: int, channels: int
    ) -> nn.Module | None:
        if name is None:
            if options:
                raise ValueError(f"without propagation there is nothing to set: {options}")
            return None
        options = dict(options or {})
        if name == "implicit":
            options.setdefault("num_heads", num_heads)
        return build_alignment(name, channels, **options)

    def forward(self, lqs: Tensor, flows: Tensor | tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Super-resolves a clip.

        Args:
            lqs: (n, t, 3, h, w) RGB in [0, 1], t, h, w >= 1.
            flows: (n, t - 1, 2, h, w) in pixels, x then y; element i maps frame i to frame i + 1.
                A pair (forward, backward), as the recurrent networks take it, is accepted too, and
                its second element is used. ``None`` is allowed with ``spynet_path``, for clips of
                one frame, and for networks that do not align.

        Returns:
            (n, t, 3, 4h, 4w), about [0, 1], not clamped.

        Raises:
            ValueError: if the clip or the flows have the wrong shape, or flow is missing.
        """
        if lqs.dim() != 5 or lqs.shape[2] != COLOURS or 0 in lqs.shape:
            raise ValueError(f"expected a clip (n, t, 3, h, w), got {tuple(lqs.shape)}")
        flows = self._flows(lqs, flows)
        n, t = lqs.shape[:2]
        features = self._extract(lqs.flatten(0, 1)).unflatten(0, (n, t))
        following = features
        if self.alignment is not None and t > 1:
            aligned = self._align_next(lqs, features, flows)
            following = torch.cat((aligned, features[:, -1:]), 1)
        pairs = torch.stack((features, following), 2).flatten(0, 1)  # (n * t, 2, c, h, w)
        fused = self.fusion(pairs)
        frames = self.upsample(self.conv_before_upsample(fused), lqs.flatten(0, 1))
        return frames.unflatten(0, (n, t))

    def _extract(self, frames: Tensor) -> Tensor:
        return self.extractor(self.conv_first(frames).unsqueeze(1))

    def _align_next(self, lqs: Tensor, features: Tensor, flows: Tensor) -> Tensor:
        """Features of frames 1 .. t - 1 aligned to frames 0 .. t - 2: (n, t - 1, c, h, w)."""
        n, t = lqs.shape[:2]
        flow = flows.flatten(0, 1)
        source = features if self.align == "features" else lqs
        current, reference = source[:, :-1].flatten(0, 1), source[:, 1:].flatten(0, 1)
        if self.align == "features":
            aligned = self.alignment(reference, current, flow)
        elif self.lift is not None:
            aligned = self.lower(self.alignment(self.lift(reference), self.lift(current), flow))
            aligned = self._extract(aligned)
        else:
            aligned = self._extract(self.alignment(reference, current, flow))
        return aligned.unflatten(0, (n, t - 1))

    def _flows(self, lqs: Tensor, flows: Tensor | tuple[Tensor, Tensor] | None) -> Tensor:
        n, t, _, h, w = lqs.shape
        if flows is None and (self.alignment is None or t == 1):
            return lqs.new_zeros(n, t - 1, 2, h, w)
        if flows is None:
            if self.spynet is None:
                raise ValueError("give flows with the clip, or the network a spynet_path")
            with torch.no_grad():
                return clip_flows(self.spynet, lqs)[1]
        pair = (flows, flows) if isinstance(flows, Tensor) else flows
        return given_flows(lqs, pair)[1]


def _options(sizes: Sizes) -> dict[str, Any]:
    """The constructor's options without the aligner's, from the shapes; {} if these do not tell."""
    layers = range(count_modules(sizes, "extractor.layers."))
    blocks = [f"extractor.layers.{i}.residual_group.blocks." for i in layers]
    rows, heads = sizes[f"{blocks[0]}0.attn.relative_position_bias_table"]
    side = (math.isqrt(rows) + 1) // 2  # (2 side - 1)^2 rows
    if (2 * side - 1) ** 2 != rows:
        return {}  # windows that are not square; shapes do not tell their sides
    return {
        "alignment": None,
        "embed_dim": sizes["conv_first.weight"][0],
        "mid_channels": sizes["conv_before_upsample.weight"][0],
        "hr_channels": sizes["conv_hr.weight"][0],
        "depths": [count_modules(sizes, block) for block in blocks],
        "num_heads": heads,
        "window_size": [side, side],
    }


ROWS = (
    Architecture(
        name="AlignmentStudyNet",
        title="AlignmentStudyNet",
        network=AlignmentStudyNet,
        matches=lambda sizes: has_prefix(sizes, "fusion.patch_embed."),
        options=_options,
        buildable=False,  # the weights do not tell which aligner without weights it has
        untold=("alignment.", "lift.", "lower.", "spynet."),
        own_flow=False,
        cost=lambda network: recurrence_cost(network.conv_first.out_channels, streams=False),
    ),
)

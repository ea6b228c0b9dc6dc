"""The parts of a network that ``iart-plugin export`` can write, as modules without a loop.

A part has named inputs and outputs. The alignment, RealIACNN's cleaning and IA-CNN's cells take any
batch size, height and width. IA-RT's cell takes one size, because the number of its attention
windows is fixed. The whole network takes one size and one number of frames, because its loop over
the frames is unrolled.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from iart_plugin.archs import IACNN, IART, RealIACNN
from iart_plugin.archs.ia_rt import BRANCHES
from iart_plugin.archs.recurrent import RecurrentNetwork
from iart_plugin.archs.upsampler import lrelu
from iart_plugin.ops import ImplicitAlignment, warp

PARTS = ("alignment", "cleaning", "cell", "bidirectional-cell")
DIRECTIONS = ("forward", "backward")

Shape = tuple[int | str, ...]
"""The sizes of a tensor's axes; a name in place of a number is an axis of any size."""


class Export(NamedTuple):
    """A module to export, and a description of its tensors.

    Attributes:
        module: The module to export.
        inputs: The shape of each input, by its name.
        outputs: Names of the outputs.
    """

    module: nn.Module
    inputs: dict[str, Shape]
    outputs: tuple[str, ...]

    @property
    def is_fixed(self) -> bool:
        """Whether every size is fixed."""
        return not any(isinstance(size, str) for shape in self.inputs.values() for size in shape)

    def example(
        self, n: int = 2, height: int = 24, width: int = 40, *, seed: int = 0
    ) -> tuple[Tensor, ...]:
        """Random inputs: flows have a few pixels, and everything else is in [0, 1].

        Args:
            n: The batch size, where it is not fixed.
            height: The height, where it is not fixed.
            width: The width, where it is not fixed.
            seed: The seed of the random numbers.
        """
        generator = torch.Generator().manual_seed(seed)
        sizes = {"n": n, "height": height, "width": width}
        tensors = []
        for name, shape in self.inputs.items():
            x = torch.rand([sizes.get(size, size) for size in shape], generator=generator)
            tensors.append(x * 8 - 4 if name.endswith("flow") else x)
        return tuple(tensors)


def _map(channels: int) -> Shape:
    """The shape of features or frames of any batch size, height and width."""
    return ("n", channels, "height", "width")


class RecurrentCell(nn.Module):
    """One step of one of IA-CNN's two branches, with the output frame made from it.

    Args:
        network: The network that provides the layers.
        direction: The "forward" or the "backward" branch.
        bidirectional: Whether the step also takes the other branch's features, as in the network.
            Without them a step is causal, and the fusion reads zeros in their place.

    Raises:
        ValueError: The direction is unknown.
    """

    def __init__(
        self, network: IACNN, *, direction: str = "forward", bidirectional: bool = False
    ) -> None:
        super().__init__()
        if direction not in DIRECTIONS:
            raise ValueError(f"direction must be forward or backward, got {direction!r}")
        self.network = network
        self.direction = direction
        self.bidirectional = bidirectional

    def forward(
        self, frame: Tensor, previous: Tensor, flow: Tensor, other: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run one step.

        At the first step of a clip, ``previous`` and ``flow`` are zeros. The network aligns nothing
        there. An aligner turns zeros into its biases, so this step leaves the aligner's result out.

        Args:
            frame: (n, 3, h, w) RGB in [0, 1]; for RealIACNN the frame that :class:`Cleaning` made.
            previous: (n, c, h, w) features of the previous step.
            flow: (n, 2, h, w) in pixels, from this frame to the frame of the previous step.
            other: (n, c, h, w) features of the other branch for this frame.

        Returns:
            (n, c, h, w) features for the next step, and the frame (n, 3, 4h, 4w).
        """
        net = self.network
        query = net.extractor(frame) if net.alignment.uses_current else None
        aligned = net.alignment(previous, query, flow)
        aligned = torch.where(_is_set(previous), aligned, torch.zeros_like(aligned))
        trunk = net.forward_trunk if self.direction == "forward" else net.backward_trunk
        features = trunk(torch.cat((frame, aligned), 1))
        other = torch.zeros_like(features) if other is None else other
        pair = (other, features) if self.direction == "forward" else (features, other)
        fused = lrelu(net.fusion(torch.cat(pair, 1)))
        return features, net.upsample(fused, frame)


class Cleaning(nn.Module):
    """RealIACNN's cleaning of frames, which comes before its branches and its flow network."""

    def __init__(self, network: RealIACNN) -> None:
        super().__init__()
        self.network = network

    def forward(self, frame: Tensor) -> Tensor:
        """Map frames (n, 3, h, w) RGB in [0, 1], each by itself, to cleaned ones."""
        return self.network.prepare(frame.unsqueeze(1)).squeeze(1)


class TransformerCell(nn.Module):
    """One step of one of the four branches of IA-RT or PSRT-recurrent.

    The first branch reads frames. The others read the features of the branch before them, and the
    last one also makes the output frame.

    Args:
        network: The network that provides the layers.
        branch: One of :data:`iart_plugin.archs.ia_rt.BRANCHES`.

    Raises:
        ValueError: The branch is unknown.
    """

    def __init__(self, network: IART, *, branch: str = BRANCHES[-1]) -> None:
        super().__init__()
        if branch not in BRANCHES:
            raise ValueError(f"branch must be one of {', '.join(BRANCHES)}, got {branch!r}")
        self.network = network
        self.branch = branch

    def forward(
        self,
        current: Tensor,
        previous: Tensor,
        before: Tensor,
        flow: Tensor,
        previous_flow: Tensor,
        frame: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Run one step.

        At the first step of a clip, ``previous``, ``before`` and the flows are zeros; at the second
        step, ``before`` and ``previous_flow`` are.

        Args:
            current: (n, c, h, w) features of the branch before this one, for this frame; for the
                first branch the frame, (n, 3, h, w) RGB in [0, 1].
            previous: (n, c, h, w) features of this branch's previous step.
            before: (n, c, h, w) features of the step before that.
            flow: (n, 2, h, w) in pixels, from this frame to the frame of the previous step.
            previous_flow: (n, 2, h, w) the flow of the previous step.
            frame: (n, 3, h, w) the frame, for the last branch.

        Returns:
            (n, c, h, w) features for the next step; for the last branch also the output frame
            (n, 3, 4h, 4w).
        """
        net = self.network
        current = net.conv_first(current) if self.branch == BRANCHES[0] else current
        align = net.implicit_warp
        aligned = torch.where(_is_set(previous), align(previous, current, flow), current)
        flow_before = flow + warp(previous_flow, flow)
        aligned_before = align(before, current, flow_before)
        # The network has the current features twice at the first step, and zeros at the second.
        unset = torch.where(_is_set(previous), torch.zeros_like(current), current)
        aligned_before = torch.where(_is_set(before), aligned_before, unset)
        backbone = net.swin_backbone[self.branch]
        features = backbone(torch.stack((aligned, current, aligned_before), 1), backbone.prepare())
        if frame is None:
            return features
        return features, net.upsample(net.conv_before_upsample(features), frame)


def _is_set(features: Tensor) -> Tensor:
    """Whether features are those of a step, and not the zeros of a clip's start: (n, 1, 1, 1)."""
    return (features != 0).flatten(1).any(1).view(-1, 1, 1, 1)


class WholeNetwork(nn.Module):
    """A network that estimates its own flow, from frames to frames."""

    def __init__(self, network: RecurrentNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor) -> Tensor:
        """Map (1, t, 3, h, w) RGB in [0, 1] to (1, t, 3, 4h, 4w)."""
        return self.network(frames)


def select_whole(network: nn.Module, frames: int, size: tuple[int, int]) -> Export:
    """The whole network, for a number of frames and a size (height, width).

    Raises:
        ValueError: The network does not estimate flow.
    """
    if not isinstance(network, RecurrentNetwork):
        raise ValueError(f"--whole: {type(network).__name__} does not estimate the flow itself")
    return Export(WholeNetwork(network), {"frames": (1, frames, 3, *size)}, ("hr_frames",))


def select_part(
    network: nn.Module,
    part: str,
    *,
    direction: str = "forward",
    branch: str = BRANCHES[-1],
    size: tuple[int, int] | None = None,
) -> Export:
    """The part of a network to export.

    Args:
        network: An IACNN or an IART.
        part: One of :data:`PARTS`.
        direction: The branch of an IA-CNN's cell.
        branch: The branch of an IA-RT's cell.
        size: The height and width of an IA-RT's cell.

    Raises:
        ValueError: The network has no such part.
    """
    if part not in PARTS:
        raise ValueError(f"--part {part}: choose one of {', '.join(PARTS)}")
    if part == "alignment":
        op = network.implicit_warp if isinstance(network, IART) else network.alignment
        if not isinstance(op, ImplicitAlignment):
            raise ValueError(f"--part alignment: this network aligns by {type(op).__name__}")
        inputs = {"reference": _map(op.channels), "current": _map(op.channels), "flow": _map(2)}
        return Export(op, inputs, ("aligned",))
    cleans = isinstance(network, RealIACNN)
    if part == "cleaning":
        if not cleans:
            raise ValueError(f"--part cleaning: {type(network).__name__} cleans no frames")
        return Export(Cleaning(network), {"frame": _map(3)}, ("cleaned",))
    if isinstance(network, IART):
        return _transformer_cell(network, part, branch, size)
    if not isinstance(network, IACNN):
        raise ValueError(f"--part {part}: {type(network).__name__} has no such part")
    both = part == "bidirectional-cell"
    cell = RecurrentCell(network, direction=direction, bidirectional=both)
    frame = "cleaned" if cleans else "frame"
    inputs = {frame: _map(3), "previous": _map(network.num_feat), "flow": _map(2)}
    if both:
        inputs["other"] = _map(network.num_feat)
    return Export(cell, inputs, ("features", "hr_frame"))


def _transformer_cell(
    network: IART, part: str, branch: str, size: tuple[int, int] | None
) -> Export:
    if part != "cell":
        raise ValueError(f"--part {part}: the branches of an IA-RT follow each other; use cell")
    if size is None:
        raise ValueError("--part cell: that of an IA-RT needs --size HEIGHT WIDTH")
    features, frame, flow = ((1, c, *size) for c in (network.conv_first.out_channels, 3, 2))
    is_first, is_last = branch == BRANCHES[0], branch == BRANCHES[-1]
    inputs = {"frame": frame} if is_first else {"current": features}
    inputs |= {"previous": features, "before": features, "flow": flow, "previous_flow": flow}
    inputs |= {"frame": frame} if is_last else {}
    outputs = ("features", "hr_frame") if is_last else ("features",)
    return Export(TransformerCell(network, branch=branch), inputs, outputs)

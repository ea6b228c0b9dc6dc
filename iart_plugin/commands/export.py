"""``python -m iart_plugin export``: writes parts of a network as ONNX and checks them.

The export of a whole recurrent network would work for one number of frames only, because the loop
over the frames would be unrolled. So one step is exported, and the player or engine that uses it
runs the loop.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from iart_plugin import extras
from iart_plugin.archs import IACNN, IART
from iart_plugin.archs.upsampler import lrelu
from iart_plugin.files import AtomicFile
from iart_plugin.ops import ImplicitAlignment

logger = logging.getLogger("iart_plugin")

OPSET = 18
TOLERANCE = 1e-4  # largest difference from PyTorch, for values of about 1
PARTS = ("alignment", "cell", "bidirectional-cell")


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
        if direction not in ("forward", "backward"):
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
            frame: (n, 3, h, w) RGB in [0, 1].
            previous: (n, c, h, w) features of the previous step.
            flow: (n, 2, h, w) in pixels, from this frame to the frame of the previous step.
            other: (n, c, h, w) features of the other branch for this frame.

        Returns:
            (n, c, h, w) features for the next step, and the frame (n, 3, 4h, 4w).
        """
        net = self.network
        query = net.extractor(frame) if net.alignment.uses_current else None
        aligned = net.alignment(previous, query, flow)
        has_previous = (previous != 0).flatten(1).any(1).to(aligned.dtype)
        aligned = aligned * has_previous.view(-1, 1, 1, 1)
        trunk = net.forward_trunk if self.direction == "forward" else net.backward_trunk
        features = trunk(torch.cat((frame, aligned), 1))
        other = torch.zeros_like(features) if other is None else other
        pair = (other, features) if self.direction == "forward" else (features, other)
        fused = lrelu(net.fusion(torch.cat(pair, 1)))
        return features, net.upsample(fused, frame)


class Export(NamedTuple):
    """A module to export, and a description of its tensors.

    Attributes:
        module: The module to export.
        inputs: Names of the inputs.
        outputs: Names of the outputs.
        channels: Number of channels of each input.
    """

    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    channels: tuple[int, ...]

    def example(self, n: int, height: int, width: int, *, seed: int = 0) -> tuple[Tensor, ...]:
        """Random inputs: the flow has a few pixels, and frames are in [0, 1]."""
        generator = torch.Generator().manual_seed(seed)
        tensors = []
        for name, channels in zip(self.inputs, self.channels, strict=True):
            x = torch.rand(n, channels, height, width, generator=generator)
            tensors.append(x * 8 - 4 if name == "flow" else x)
        return tuple(tensors)


def select_part(network: nn.Module, part: str, *, direction: str = "forward") -> Export:
    """The part of a network to export.

    Args:
        network: An IACNN; for the part "alignment" also an IART.
        part: One of :data:`PARTS`.
        direction: The branch of a cell.

    Raises:
        ValueError: The network has no such part.
    """
    if part not in PARTS:
        raise ValueError(f"--part {part}: choose one of {', '.join(PARTS)}")
    if part == "alignment":
        op = network.implicit_warp if isinstance(network, IART) else network.alignment
        if not isinstance(op, ImplicitAlignment):
            raise ValueError(f"--part alignment: this network aligns by {type(op).__name__}")
        names = ("reference", "current", "flow")
        return Export(op, names, ("aligned",), (op.channels, op.channels, 2))
    if not isinstance(network, IACNN):
        raise ValueError(f"--part {part}: for IA-CNN and BasicVSR, not {type(network).__name__}")
    both = part == "bidirectional-cell"
    cell = RecurrentCell(network, direction=direction, bidirectional=both)
    names, channels = ("frame", "previous", "flow"), (3, network.num_feat, 2)
    if both:
        names, channels = (*names, "other"), (*channels, network.num_feat)
    return Export(cell, names, ("features", "hr_frame"), channels)


def export_onnx(export: Export, path: str | Path, *, opset: int = OPSET) -> None:
    """Write a part as ONNX, for any batch size, height and width.

    Raises:
        ValueError: The opset is older than 18.
        ImportError: onnx or onnxscript is missing.
    """
    if opset < OPSET:
        raise ValueError(f"--opset {opset}: needs {OPSET} or newer")
    module = export.module.eval().cpu()
    n, height, width = (torch.export.Dim(name) for name in ("n", "height", "width"))
    shapes = tuple({0: n, 2: height, 3: width} for _ in export.inputs)
    with torch.no_grad():
        program = torch.onnx.export(
            module,
            export.example(2, 24, 40),
            input_names=list(export.inputs),
            output_names=list(export.outputs),
            dynamic_shapes=shapes,
            opset_version=opset,
            dynamo=True,
            verbose=False,
        )
    with AtomicFile(path) as unfinished:
        program.save(str(unfinished), external_data=False)


def check_onnx(
    export: Export, path: str | Path, *, sizes: Sequence[tuple[int, int, int]] = ()
) -> float:
    """Compare a file, run by onnxruntime, with PyTorch.

    Args:
        export: The part that was exported.
        path: The ONNX file.
        sizes: The sizes (n, h, w) to try; the default sizes differ from the example's size.

    Returns:
        The largest absolute difference.

    Raises:
        ImportError: onnxruntime is missing.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = 0.0
    for n, height, width in sizes or ((2, 24, 40), (1, 70, 130), (3, 40, 8)):
        inputs = export.example(n, height, width, seed=height)
        with torch.no_grad():
            expected = export.module(*inputs)
        expected = expected if isinstance(expected, tuple) else (expected,)
        feed = {name: x.numpy() for name, x in zip(export.inputs, inputs, strict=True)}
        for ours, theirs in zip(session.run(None, feed), expected, strict=True):
            worst = max(worst, float(np.abs(ours - theirs.numpy()).max()))
    return worst


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return the exit code."""
    from iart_plugin.commands.console import EXIT_ERROR, one_line, set_up_logging

    parser = argparse.ArgumentParser(
        prog="python -m iart_plugin export", description="Write a part of a network as ONNX."
    )
    add = parser.add_argument
    add("--weights", required=True, metavar="FILE", help="checkpoint, as for upscale")
    add("--model", default="ia-cnn", choices=["ia-cnn", "ia-rt", "basicvsr"])
    add("--part", default="alignment", choices=PARTS)
    add("--direction", default="forward", choices=["forward", "backward"], help="of a cell")
    add("-o", "--output", required=True, metavar="FILE.onnx")
    add("--opset", type=int, default=OPSET)
    add("-v", "--verbose", action="store_true")
    arguments = parser.parse_args(argv)
    set_up_logging(verbose=arguments.verbose, quiet=False)
    try:
        extras.require("onnx", "onnxscript", "onnxruntime")
        from iart_plugin.inference.models import load_model

        network = load_model(arguments.model, arguments.weights).network
        export = select_part(network, arguments.part, direction=arguments.direction)
        export_onnx(export, arguments.output, opset=arguments.opset)
        worst = check_onnx(export, arguments.output)
        if worst > TOLERANCE:
            raise RuntimeError(f"{arguments.output} differs from PyTorch by {worst:.1e}")
    except Exception as error:
        logger.error("%s", one_line(error), exc_info=arguments.verbose)
        return EXIT_ERROR
    logger.info("wrote %s; it differs from PyTorch by at most %.1e", arguments.output, worst)
    return 0


if __name__ == "__main__":
    sys.exit(main())

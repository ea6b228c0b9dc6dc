"""Write a network, or a part of it, as ONNX or as PyTorch's .pt2, and check what was written.

    iart-plugin export --weights FILE --part alignment -o alignment.onnx
    iart-plugin export --weights FILE --part cell -o cell.pt2
    iart-plugin export --weights FILE --whole --frames 7 --size 180 320 -o network.onnx

The loop of a whole network over its frames is unrolled, so the file works for one number of frames
and one size. A cell is one step of the loop, and the program that uses it runs the loop.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from iart_plugin import extras
from iart_plugin.archs.ia_rt import BRANCHES, IART
from iart_plugin.commands.console import (
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    command_parser,
    one_line,
    set_up_logging,
)
from iart_plugin.commands.export_parts import (
    DIRECTIONS,
    PARTS,
    Export,
    select_part,
    select_whole,
)
from iart_plugin.files import AtomicFile
from iart_plugin.inference.models import AUTO, BICUBIC, MODELS, load_model

logger = logging.getLogger("iart_plugin")

OPSET = 18
TOLERANCE = 1e-4  # largest difference from PyTorch, for values of about 1
FORMATS = (".onnx", ".pt2")
SIZES = ((2, 24, 40), (1, 70, 130), (3, 40, 8))
"""The sizes (n, h, w) on which a part that takes any size is compared; the first is the one that it
is traced with."""

Program = Callable[..., Sequence[Tensor]]


def export(part: Export, path: str | Path, *, opset: int = OPSET) -> float:
    """Write a part, and compare the file with PyTorch before it gets its name.

    Args:
        part: What to write.
        path: The file, ``.onnx`` or ``.pt2``.
        opset: The version of ONNX's operators.

    Returns:
        The largest absolute difference.

    Raises:
        ValueError: The suffix is unknown, or the opset is older than 18.
        FileNotFoundError: The file's folder does not exist.
        RuntimeError: The file differs from PyTorch by more than :data:`TOLERANCE`.
        ImportError: onnx, onnxscript or onnxruntime is missing.
    """
    path = Path(path)
    check_target(path, opset)
    with AtomicFile(path) as unfinished, torch.no_grad():
        program = _trace(part)
        if path.suffix == ".onnx":
            _save_onnx(program, part, unfinished, opset)
        else:
            with unfinished.open("wb") as file:
                torch.export.save(program, file)
        worst = compare(part, _load(unfinished, path.suffix))
        if not worst <= TOLERANCE:
            raise RuntimeError(f"{path} differs from PyTorch by {worst:.1e}, so it was not kept")
    return worst


def check_target(path: Path, opset: int = OPSET) -> None:
    """Raise an error if a file cannot be written; :func:`export` says which."""
    if path.suffix not in FORMATS:
        raise ValueError(f"--output {path}: the file's name must end with {' or '.join(FORMATS)}")
    if opset < OPSET:
        raise ValueError(f"--opset {opset}: needs {OPSET} or newer")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"--output {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise IsADirectoryError(f"--output {path} is a folder")
    if path.suffix == ".onnx":
        extras.require("onnx", "onnxscript", "onnxruntime")


def _trace(part: Export) -> torch.export.ExportedProgram:
    """The part's computation as a graph."""
    axes = {name: torch.export.Dim(name) for name in ("n", "height", "width")}
    shapes = tuple(
        {i: axes[size] for i, size in enumerate(shape) if isinstance(size, str)}
        for shape in part.inputs.values()
    )
    return torch.export.export(
        part.module.eval().cpu(),
        part.example(),
        dynamic_shapes=shapes,
        strict=False,
        prefer_deferred_runtime_asserts_over_guards=True,  # else it does not prove sizes equal
    )


def _save_onnx(program: torch.export.ExportedProgram, part: Export, path: Path, opset: int) -> None:
    written = torch.onnx.export(
        program,
        input_names=list(part.inputs),
        output_names=list(part.outputs),
        opset_version=opset,
        dynamo=True,
        verbose=False,
    )
    written.save(str(path), external_data=False)


def _load(path: Path, suffix: str) -> Program:
    """A file as a function that takes and returns tensors, run by onnxruntime or by PyTorch."""
    if suffix == ".pt2":
        module = torch.export.load(path).module()
        return lambda *inputs: _as_tuple(module(*inputs))
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in session.get_inputs()]

    def run(*inputs: Tensor) -> list[Tensor]:
        feed = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
        return [torch.from_numpy(output) for output in session.run(None, feed)]

    return run


def _as_tuple(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def compare(part: Export, program: Program, sizes: Sequence[tuple[int, int, int]] = SIZES) -> float:
    """The largest absolute difference of a program from the part in PyTorch; infinite after a NaN.

    Args:
        part: The part that was exported.
        program: What to compare with it.
        sizes: The sizes (n, h, w) to try. A part of one size is tried on two random inputs.
    """
    worst = 0.0
    sizes = sizes[:2] if part.is_fixed else sizes
    for seed, size in enumerate(sizes, start=1):
        inputs = part.example(*size, seed=seed)
        with torch.no_grad():
            expected = _as_tuple(part.module(*inputs))
            found = program(*inputs)
        for ours, theirs in zip(found, expected, strict=True):
            if ours.shape != theirs.shape:
                raise RuntimeError(f"the shape is {tuple(ours.shape)}, not {tuple(theirs.shape)}")
            difference = float((ours - theirs).abs().max())
            worst = max(worst, math.inf if math.isnan(difference) else difference)
    return worst


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return the exit code."""
    arguments = _parser().parse_args(argv)
    set_up_logging(verbose=arguments.verbose, quiet=False)
    try:
        check_target(arguments.output, arguments.opset)
        network = load_model(arguments.model, arguments.weights).network
        worst = export(_select(network, arguments), arguments.output, opset=arguments.opset)
    except KeyboardInterrupt:
        logger.error("interrupted; nothing was written")
        return EXIT_INTERRUPTED
    except Exception as error:
        logger.error("%s", one_line(error), exc_info=arguments.verbose)
        return EXIT_ERROR
    logger.info("wrote %s; it differs from PyTorch by at most %.1e", arguments.output, worst)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("export", __doc__)
    add = parser.add_argument
    models = [AUTO, *(model for model in MODELS if model != BICUBIC)]
    add("--weights", required=True, metavar="FILE", help="checkpoint, as for upscale")
    add("--model", default=AUTO, choices=models, help="default: what the weights belong to")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--part", default="alignment", choices=PARTS, help="default: alignment")
    what.add_argument("--whole", action="store_true", help="the whole network")
    add("--direction", choices=DIRECTIONS, help="of IA-CNN's cell (default: forward)")
    add("--branch", choices=BRANCHES, help=f"of IA-RT's cell (default: {BRANCHES[-1]})")
    add("--frames", type=_positive, metavar="N", help="of --whole (default: 5)")
    size = {"type": _positive, "nargs": 2, "metavar": ("HEIGHT", "WIDTH")}
    add("--size", **size, help="of the frames, for --whole (default: 64 64) and IA-RT's cell")
    add("-o", "--output", required=True, type=Path, metavar="FILE", help=".onnx or .pt2")
    add("--opset", type=int, default=OPSET, help=f"of ONNX (default: {OPSET})")
    add("-v", "--verbose", action="store_true")
    return parser


def _positive(text: str) -> int:
    """A number of frames or pixels on the command line."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return int(text)


def _select(network: torch.nn.Module, arguments: argparse.Namespace) -> Export:
    """What the options ask for.

    Raises:
        ValueError: The network has no such part, or an option has no effect on it.
    """
    if arguments.whole:
        used = ("frames", "size")
    elif arguments.part in ("alignment", "cleaning"):
        used = ()
    else:
        used = ("size", "branch") if isinstance(network, IART) else ("direction",)
    given = {name: getattr(arguments, name) for name in ("frames", "size", "direction", "branch")}
    given = {name: value for name, value in given.items() if value is not None}
    for name in given:
        if name not in used:
            raise ValueError(f"--{name} has no effect on this export: leave it out")
    if arguments.whole:
        return select_whole(network, **{"frames": 5, "size": (64, 64), **given})
    return select_part(network, arguments.part, **given)


if __name__ == "__main__":
    sys.exit(main())

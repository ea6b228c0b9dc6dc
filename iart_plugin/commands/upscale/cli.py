"""``iart-plugin upscale``: arguments, messages and exit codes."""

from __future__ import annotations

import argparse
import re
import signal
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from tqdm.contrib.logging import logging_redirect_tqdm

from iart_plugin.commands.console import (
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    logger,
    one_line,
    set_up_logging,
)

from .options import UpscaleOptions

if TYPE_CHECKING:
    from .distributed import Group

_LONGEST = 10**7  # seconds, about four months
OLDEST_PYAV = 18  # colour tags of frames and copied streams' flags do not work before


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``upscale``."""
    parser = argparse.ArgumentParser(
        prog="iart-plugin upscale",
        usage="%(prog)s INPUT [INPUT …] OUTPUT [options]",
        description="Upscale films, or images, by 4. Sound and subtitles are copied.",
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="video file, folder of images, glob in quotes, "
        "- for standard input, or a folder of films or of folders of images")  # fmt: skip
    add("-o", "--output", metavar="OUTPUT", help="the output, if it is not the last name: .mp4, "
        ".mov, .mkv, .webm, a folder for PNG or for several films, or -")  # fmt: skip
    _add_network(parser.add_argument_group("network").add_argument)
    group = parser.add_argument_group("how frames are cut (by free memory where not given)")
    add = group.add_argument
    add("--tile", type=_tile, metavar="N|HxW", help="sides of a tile in source pixels; 0: no tiles")
    add("--overlap", type=int, default=24, help="source pixels that two tiles share (default 24)")
    add("--chunk", type=int, help="frames of the result that are made at a time")
    add("--warm-up", type=int, default=10, help="frames read around a chunk (default 10)")
    add("--no-scene-detection", dest="scene_detection", action="store_false",
        help="do not restart the recurrence at cuts")  # fmt: skip
    group = parser.add_argument_group("output")
    add = group.add_argument
    add("--codec", help="encoder, e.g. libx264, libx265, ffv1, h264_nvenc")
    add("--crf", type=float, help="quality, smaller is better (default 16 to 24 by encoder)")
    add("--preset", help="the encoder's speed")
    add("--pixel-format", "--pix-fmt", dest="pix_fmt", help="the encoder's pixel format (default: "
        "the source's depth and chroma; of images in all but .mkv 8 bits and 4:2:0, as players "
        "want it)")  # fmt: skip
    add("--scale", type=float, metavar="N", help="from 1 to 4 times as large (default 4)")
    add("--height", type=int, metavar="PIXELS", help="the output's height, instead of --scale")
    _add_selection(add)
    add("--lossless", action="store_true", help="keep the network's result exactly")
    add("--fps", type=_rate, metavar="N|N/M", help="images a second (default 24)")
    add(
        "--pipe-format",
        default="y4m",
        choices=["y4m", "nut"],
        help="format on standard output (default y4m)",
    )
    _add_streams(add)
    add("--compare", nargs="?", const="side", choices=["side", "slide"], help="also write a "
        "before/after video and PNG, side by side or with a sliding line")  # fmt: skip
    group = parser.add_argument_group("the run")
    add = group.add_argument
    add("-y", "--overwrite", action="store_true", help="replace the output, or start over")
    add("--resume", action="store_true", help="continue an interrupted run")
    add("--dry-run", action="store_true", help="say what would be done, with memory and time")
    add("--on-error", default="conceal", choices=["conceal", "fail"],
        help="a broken frame becomes the frame before it (conceal, default), or ends the run (fail)"
        )  # fmt: skip
    add("--ignore-disk-space", dest="check_disk", action="store_false",
        help="start although the estimate says that the disk is too small")  # fmt: skip
    add("-v", "--verbose", action="store_true", help="more messages, and a trace with an error")
    add("-q", "--quiet", action="store_true", help="warnings and errors only")
    return parser


def _add_network(add: Callable) -> None:
    """The options about the network, and how it computes."""
    from iart_plugin.inference.models import AUTO, MODELS

    names = "; ".join(f"{k}: {v}" for k, v in MODELS.items())
    add("--model", default=AUTO, choices=[AUTO, *MODELS],
        help=f"{AUTO}: the network that the weights belong to (default); {names}")  # fmt: skip
    add("--weights", metavar="FILE", help="checkpoint: official, BasicSR, MMagic or .safetensors "
        "(default: the best that is here, see iart-plugin weights)")  # fmt: skip
    add("--clean-passes", type=int, metavar="N", help="real-*: clean a frame N times at most "
        "(default 3)")  # fmt: skip
    add("--clean-threshold", type=_share, metavar="X", help="real-*: clean a frame again while "
        "its mean change is X or more, of [0, 1] (default 5/255)")  # fmt: skip
    add("--device", default="auto", help="auto, cuda, cuda:N, mps or cpu")
    add("--precision", default="auto", choices=["auto", "fp32", "bf16", "fp16"],
        help="auto: bf16 on cuda (fp16 before Ampere), else fp32")  # fmt: skip
    add("--self-ensemble", action="store_true", help="average over the 8 flips and turns of a "
        "frame, which takes 8 times as long")  # fmt: skip
    add("--compile", action="store_true", help="compile the network for this film with "
        "torch.compile: for GPUs and long films, as the first frame takes a minute or more"
        )  # fmt: skip


def _add_streams(add: Callable) -> None:
    """The options about the streams of the source."""
    add("--audio", default="copy", choices=["copy", "encode", "none"], help="copy sound, and "
        "encode it only if the container cannot hold it (copy, default); always encode it; or "
        "leave it out")  # fmt: skip
    add("--no-audio", dest="audio", action="store_const", const="none", help="--audio none")
    add("--no-subtitles", dest="subtitles", action="store_false", help="leave out subtitles")
    add("--deinterlace", default="auto", choices=["auto", "off"], help="make interlaced frames "
        "whole (auto, default), or leave them as they are")  # fmt: skip


def _fraction(text: str) -> Fraction:
    """A number or a fraction; ``Fraction`` would compute without end on 1e999999999."""
    if re.search(r"e[+-]?[\d_]{4}", text.lower()):
        raise ValueError(text)
    return Fraction(text)


def _rate(text: str) -> Fraction:
    try:
        return _fraction(text)
    except (ValueError, ZeroDivisionError):
        message = f"{text!r}: write a number, as 25 or 24000/1001"
        raise argparse.ArgumentTypeError(message) from None


def _share(text: str) -> float:
    """A number, or a fraction such as 5/255."""
    try:
        return float(_fraction(text))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r}: write a number, as 0.02 or 5/255") from None


def _add_selection(add: Callable) -> None:
    for name, text in (("--start", "from here on"), ("--end", "up to here")):
        add(name, type=_seconds, metavar="TIME", help=f"{text}: seconds, or H:MM:SS.SSS")
    add("--frames", type=int, metavar="N", help="at most N frames, for a preview")


def _tile(text: str) -> tuple[int, int]:
    try:
        sides = [int(part) for part in text.lower().split("x")]
        height, width = sides * 2 if len(sides) == 1 else sides
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: write one number, or HEIGHTxWIDTH") from None
    return height, width


def _seconds(text: str) -> Fraction:
    try:
        parts = [_fraction(part) for part in text.split(":")]
        time = sum((part * 60**i for i, part in enumerate(reversed(parts))), Fraction(0))
        if len(parts) > 3 or min(parts) < 0 or time > _LONGEST:
            raise ValueError
    except (ValueError, ZeroDivisionError):
        message = f"{text!r}: write seconds, or H:MM:SS.SSS"
        raise argparse.ArgumentTypeError(message) from None
    return time


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    arguments = vars(build_parser().parse_intermixed_args(argv))
    verbose, inputs, output = (arguments.pop(name) for name in ("verbose", "inputs", "output"))
    options = UpscaleOptions("", "", **arguments)
    set_up_logging(verbose=verbose, quiet=options.quiet)
    try:
        import av
    except ImportError:
        av = None
    if av is None or int(av.__version__.split(".")[0]) < OLDEST_PYAV:
        logger.error("PyAV %d or newer is needed: pip install 'av>=%d'", OLDEST_PYAV, OLDEST_PYAV)
        return EXIT_ERROR
    av.logging.set_level(av.logging.WARNING if verbose else None)
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _run_all(inputs, output, options, verbose=verbose)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _run_all(
    inputs: list[str], output: str | None, options: UpscaleOptions, *, verbose: bool
) -> int:
    """Run one film after another. A bad one does not stop the others, unless processes share it."""
    from .distributed import Group
    from .films import plan_films, split_output

    try:
        runs = plan_films(*split_output(inputs, output), options)
        if len(runs) > 1 or runs[0].output != (output or inputs[-1]):
            Path(runs[0].output).parent.mkdir(exist_ok=True)
    except (OSError, ValueError) as error:
        logger.error("%s", one_line(error), exc_info=verbose)
        return EXIT_ERROR
    group = Group.join()
    try:
        return _run_films(runs, group, verbose=verbose)
    finally:
        group.leave()


def _run_films(runs: list[UpscaleOptions], group: Group, *, verbose: bool) -> int:
    bad = []
    for film in runs:
        if len(runs) > 1 and film.resume and group.share(is_finished(film)):
            logger.info("%s is there already", film.output)
            continue
        code = _run(film, group, verbose=verbose)
        if code == EXIT_INTERRUPTED:
            return code
        bad += [film.input] if code else []
        if bad and group.size > 1:  # the other processes may be waiting for this one
            break
    if bad and len(runs) > 1:
        left = ", and the films after it are left out" if group.size > 1 else ""
        logger.error("%d of %d films failed: %s%s", len(bad), len(runs), ", ".join(bad), left)
    return EXIT_ERROR if bad else 0


def is_finished(options: UpscaleOptions) -> bool:
    """Whether an earlier run has made this output."""
    from .target import Target

    target = Target.of(options.output)
    return target.path.exists() and not target.work.exists()


def _run(options: UpscaleOptions, group: Group, *, verbose: bool) -> int:
    from .run import Interrupted, upscale_video

    try:
        with logging_redirect_tqdm([logger]):
            result = upscale_video(options, group)
    except Interrupted as error:
        logger.error("%s", error)
        return EXIT_INTERRUPTED
    except KeyboardInterrupt:
        logger.error("interrupted")
        return EXIT_INTERRUPTED
    except Exception as error:
        logger.error("%s", one_line(error), exc_info=verbose)
        return EXIT_ERROR
    if group.is_first and not options.dry_run:
        logger.info("wrote %s: %d frames", result.output, result.frames)
        if result.comparison:
            logger.info("wrote %s", result.comparison)
        if result.problems:
            logger.warning("%d problem(s) in the source, concealed", len(result.problems))
    return 0


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt

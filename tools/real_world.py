"""Compare bicubic, BasicVSR and a RealIACNN on a clip that is blurred, noisy and compressed.

    python tools/real_world.py start weights/RealIACNN_start.pth
    python tools/real_world.py show experiments/RealIACNN_clips_N5/models/net_g_latest.pth

`start` makes the RealIACNN from which configs/basicsr/train/RealIACNN_clips_N5.yml trains: an
IA-CNN with BasicVSR's public weights behind a cleaning network that changes nothing at first.

`show` degrades a part of Big Buck Bunny (Blender Foundation, CC BY 3.0) by that option file's
recipe and a seed, and upscales it in the three ways. It prints PSNR, NIQE and the temporal warping
error, and writes the frames and a picture below results/real_world/.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from tabulate import tabulate
from torch import nn

import iart_plugin.basicsr  # noqa: F401  mends BasicSR's import
from iart_plugin.archs import RealIACNN, load_checkpoint, load_ia_cnn, save_checkpoint
from iart_plugin.basicsr.degradation import degrade_clip
from iart_plugin.basicsr.degradation_schema import Degradation
from iart_plugin.basicsr.option_files import read_option_file
from iart_plugin.commands.evaluate_no_reference import build_metric, measure, temporal
from iart_plugin.data.degradation import imresize
from iart_plugin.data.packaged import basicvsr_weights, big_buck_bunny
from iart_plugin.data.preparation import read_frames
from iart_plugin.inference import upscale
from iart_plugin.pictures import write_png

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = ROOT / "configs/basicsr/train/RealIACNN_clips_N5.yml"
FIRST_FRAME = 26
WINDOW = (slice(180, 500), slice(330, 810))
"""Rows and columns of the part of the 1280x720 frames that is the ground truth."""

ZOOM = (slice(90, 270), slice(60, 300))
"""Rows and columns of the ground truth that the picture shows."""

Clip = list[np.ndarray]


def start(output: Path) -> None:
    """Write a RealIACNN that computes what BasicVSR with its public weights computes."""
    source = load_ia_cnn("warm-start", basicvsr_weights())
    network = RealIACNN(**source.options)
    missing, _ = network.load_state_dict(source.state_dict(), strict=False)
    last = network.image_cleaning[1]
    last.weight.data.zero_()
    last.bias.data.zero_()
    output.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(network, output)
    print(f"{output}: {len(missing)} tensors of the cleaning network are new")


def show(weights: Path, *, seed: int, frames: int, output: Path) -> None:
    """Degrade the clip, upscale it in every way, measure, and draw the picture."""
    networks = {"BasicVSR": basicvsr_weights(), "RealIACNN": weights}
    networks = {name: load_checkpoint(path)[0] for name, path in networks.items()}
    options = read_option_file(OPTIONS)["datasets"]["train"]["degradation"]
    video = islice(read_frames(big_buck_bunny(), FIRST_FRAME + frames), FIRST_FRAME, None)
    truth = [np.ascontiguousarray(frame[WINDOW][..., ::-1]) for frame in video]
    low = degrade_clip(truth, seed, recipe=Degradation.model_validate(options))
    clips = {
        "input": low,
        "bicubic": [imresize(frame, 4) for frame in low],
        **{name: _upscaled(low, network) for name, network in networks.items()},
        "ground truth": truth,
    }
    for name, clip in clips.items():
        for index, frame in enumerate(clip):
            write_png(output / "clips" / name / f"{index:08d}.png", frame)
    niqe = {"NIQE": build_metric("niqe")}
    rows = []
    for name in list(clips)[1:]:
        folder = output / "clips" / name
        quality = measure(folder, niqe, every=False)["NIQE"]
        flicker = 1000 * temporal(folder, output / "clips" / "ground truth")
        psnr = None if clips[name] is truth else _psnr(clips[name], truth)
        rows.append((name, psnr, quality, flicker))
    heads = ("", "PSNR (dB)", "NIQE", "warping error x 1000")
    print(tabulate(rows, heads, tablefmt="pipe", floatfmt=("", ".2f", ".2f", ".3f")))
    picture = output / "comparison.jpg"
    cv2.imwrite(str(picture), _picture(clips, frames // 2), [cv2.IMWRITE_JPEG_QUALITY, 90])
    print(picture)


def _upscaled(low: Clip, network: nn.Module) -> Clip:
    return list(upscale(low, network, precision="fp32", scene_detection=False))


def _psnr(clip: Clip, truth: Clip) -> float:
    """The mean over frames of the PSNR of all three channels."""
    errors = [np.mean((a.astype(float) - b) ** 2) for a, b in zip(clip, truth, strict=True)]
    return float(np.mean([10 * np.log10(255**2 / error) for error in errors]))


def _picture(clips: dict[str, Clip], index: int) -> np.ndarray:
    """The zoomed part of one frame of every clip, side by side: (h, w, 3), BGR, uint8."""
    panels = []
    for name, clip in clips.items():
        frame = clip[index]
        if name == "input":
            frame = cv2.resize(frame, None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST)
        panel = cv2.cvtColor(frame[ZOOM], cv2.COLOR_RGB2BGR)
        panel = cv2.resize(panel, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
        panel = cv2.copyMakeBorder(panel, 36, 4, 4, 4, cv2.BORDER_CONSTANT, value=(255, 255, 255))
        cv2.putText(panel, name, (8, 26), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (0, 0, 0), 2, cv2.LINE_AA)
        panels.append(panel)
    blank = np.full_like(panels[0], 255)
    return np.vstack([np.hstack(panels[:3]), np.hstack([*panels[3:], blank])])


def main(argv: Sequence[str] | None = None) -> None:
    """Run the part of the tool that the first argument names: ``start`` or ``show``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(dest="part", required=True)
    begin = parts.add_parser("start", help="write the network that the training starts from")
    begin.add_argument("output", type=Path)
    compare = parts.add_parser("show", help="degrade a clip, upscale it and measure")
    compare.add_argument("weights", type=Path, help="a trained RealIACNN")
    compare.add_argument("--seed", type=int, default=8, help="of the degradation (default 8)")
    compare.add_argument("--frames", type=int, default=8, help="length of the clip (default 8)")
    compare.add_argument("--output", type=Path, default=ROOT / "results" / "real_world")
    args = parser.parse_args(argv)
    try:
        if args.part == "start":
            start(args.output)
        else:
            show(args.weights, seed=args.seed, frames=args.frames, output=args.output)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

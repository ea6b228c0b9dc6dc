"""Make an IA-CNN checkpoint out of a BasicVSR checkpoint, with trained weights or without.

    python tools/warm_start_ia_cnn.py BASICVSR.pth ia_cnn.pth [--clips FOLDER]
    python tools/warm_start_ia_cnn.py BASICVSR.pth ia_cnn.pth --adapter ADAPTER.safetensors

An adapter holds what training changed, see tools/make_adapter.py. Without one the implicit
alignment is solved for so that it resamples almost as BasicVSR's bilinear warping does;
iart_plugin/archs/warm_start.py says how. It needs to know what BasicVSR's features are like, which
is measured on noise, or better on some low-resolution clips, a folder of PNG frames each. The input
may be BasicSR's or MMagic's, the output is a .pth for BasicSR (entry ``params``) or a .safetensors
file.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from iart_plugin.archs import load_ia_cnn, save_checkpoint
from iart_plugin.data.sintel import read_frame

FRAMES = slice(2, 6)
SIZE = 64


def read_clips(folder: Path) -> Tensor:
    """The third to the sixth frame of every clip, 64 x 64 in the middle: (n, 4, 3, 64, 64)."""
    clips = []
    for clip in sorted(path for path in folder.iterdir() if path.is_dir()):
        frames = [read_frame(path) for path in sorted(clip.glob("*.png"))[FRAMES]]
        if len(frames) < 4 or any(min(frame.shape[:2]) < SIZE for frame in frames):
            raise ValueError(f"{clip} needs six PNG frames of at least {SIZE}x{SIZE}")
        y, x = ((side - SIZE) // 2 for side in frames[0].shape[:2])
        clips.append(np.stack(frames)[:, y : y + SIZE, x : x + SIZE])
    if not clips:
        raise ValueError(f"{folder} holds no folders of frames")
    return torch.from_numpy(np.stack(clips)).permute(0, 1, 4, 2, 3).float() / 255


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("basicvsr", help="BasicVSR checkpoint, BasicSR's or MMagic's layout")
    parser.add_argument("output", help="where to write the IA-CNN, .pth or .safetensors")
    parser.add_argument("--adapter", default="warm-start", help="trained weights to add")
    parser.add_argument("--clips", type=Path, help="low-resolution clips to measure features on")
    args = parser.parse_args(argv)
    try:
        clips = None if args.clips is None else read_clips(args.clips)
        network = load_ia_cnn(args.adapter, args.basicvsr, clips)
        save_checkpoint(network, args.output)
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(f"{args.output}: IA-CNN, {sum(p.numel() for p in network.parameters()):,} parameters")


if __name__ == "__main__":
    main()

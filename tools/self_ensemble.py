r"""Write what a network gives on average over the eight flips and transpositions of its input.

    python tools/self_ensemble.py basicvsr WEIGHTS datasets/clips/train/BIx4 \
        datasets/clips/train/ensemble --precision bf16

The average is better than each of the eight results, and as a training target it is less noisy than
the ground truth: an option file takes it as ``dataroot_gt``. Every folder of PNG frames is one
clip. Repeated frames, as in clips that are played back and forth, are computed once. Complete clips
are kept, so a run that was stopped can be resumed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from torch import nn
from tqdm import tqdm

from iart_plugin.inference import upscale
from iart_plugin.inference.models import load_model
from iart_plugin.pictures import read_picture, write_png


def run_clip(network: nn.Module, source: Path, target: Path, precision: str) -> None:
    """Write one clip's frames under the same names, unless the clip is already complete."""
    paths = sorted(source.glob("*.png"))
    if not paths:
        raise ValueError(f"{source} holds no PNG frames")
    if len(list(target.glob("*.png"))) == len(paths):
        return
    first: dict[bytes, str] = {}
    for path in paths:
        first.setdefault(path.read_bytes(), path.name)
    frames = [read_picture(source / name) for name in first.values()]
    options = {"chunk": len(frames), "tile": 0, "scene_detection": False, "precision": precision}
    upscaled = upscale(frames, network, self_ensemble=True, **options)
    for name, frame in zip(first.values(), upscaled, strict=True):
        write_png(target / name, frame)
    for path in paths:
        if (original := first[path.read_bytes()]) != path.name:
            shutil.copy2(target / original, target / path.name)


def luma_psnr(result: Path, truth: Path) -> float:
    """Return the mean PSNR of a folder's frames on luma, in dB, as BasicSR counts it."""
    import iart_plugin.basicsr  # noqa: F401  isort: skip  mends BasicSR's import
    from basicsr.metrics import calculate_psnr

    figures = []
    for path in result.glob("*.png"):
        pair = (read_picture(name)[..., ::-1] for name in (path, truth / path.name))  # BGR
        figures.append(calculate_psnr(*pair, 0, test_y_channel=True))
    return sum(figures) / len(figures)


def main(argv: list[str] | None = None) -> None:
    """Compute the clips that are not complete yet and, with ``--gt``, print the PSNR of all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a name of `python -m iart_plugin upscale --model`")
    parser.add_argument("weights", type=Path)
    parser.add_argument("source", type=Path, help="folders of low-resolution PNG frames")
    parser.add_argument("target", type=Path)
    parser.add_argument("--clips", nargs="+", help="only these folders")
    parser.add_argument("--gt", type=Path, help="ground truth to measure PSNR against")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    args = parser.parse_args(argv)
    clips = args.clips or sorted(path.name for path in args.source.glob("*") if path.is_dir())
    try:
        if not clips:
            raise ValueError(f"{args.source} holds no folders of frames")
        network = load_model(args.model, args.weights).network
        for clip in tqdm(clips, unit="clip"):
            run_clip(network, args.source / clip, args.target / clip, args.precision)
        if args.gt is not None:
            figures = {clip: luma_psnr(args.target / clip, args.gt / clip) for clip in clips}
            for clip, figure in figures.items():
                print(f"{clip} {figure:.4f} dB")
            print(f"mean {sum(figures.values()) / len(figures):.4f} dB")
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

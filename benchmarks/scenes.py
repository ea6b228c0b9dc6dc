"""Compares the cuts that this package's detector and PySceneDetect's find in edits of your films.

    pip install scenedetect==0.6.7.1
    python -m benchmarks.scenes FOLDER

Pieces of the folder's films are joined, so that every cut is known, and changed in ways that make
cuts hard to detect. This made the table in ``iart_plugin/inference/scenes.py``.
"""

import argparse
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
from tabulate import tabulate

from iart_plugin.inference.scenes import SceneDetector

Frames = list[np.ndarray]
Edit = tuple[Frames, list[int]]
LONGEST = 132  # frames of a film


def read(path: Path) -> Frames:
    """Reads up to ``LONGEST`` frames of a film, (360, 640, 3) uint8 RGB."""
    frames: Frames = []
    with av.open(str(path)) as file:
        for frame in file.decode(video=0):
            frames.append(frame.reformat(640, 360, "rgb24").to_ndarray())
            if len(frames) == LONGEST:
                break
    return frames


def joined(parts: Sequence[Frames]) -> Edit:
    """Joins parts; returns the frames and, for each cut, the index of the first frame after it."""
    cuts = np.cumsum([len(part) for part in parts])[:-1].tolist()
    return [frame for part in parts for frame in part], cuts


def edit(clips: list[Frames], seed: int) -> Edit:
    """Joins 30 random pieces of 8 to 60 frames; neighbouring pieces come from different clips."""
    rng, parts, last = random.Random(seed), [], None
    for _ in range(30):
        last = rng.choice([i for i in range(len(clips)) if i != last])
        length = min(rng.randint(8, 60), len(clips[last]))
        start = rng.randint(0, len(clips[last]) - length)
        parts.append(clips[last][start : start + length])
    return joined(parts)


def brighter(frames: Frames, factors: Sequence[float]) -> Frames:
    """Multiplies each frame by its factor; the frames and the result are uint8 RGB."""
    return [
        np.clip(frame * np.float32(factor), 0, 255).astype(np.uint8)
        for frame, factor in zip(frames, factors, strict=True)
    ]


def material(clips: list[Frames]) -> Iterator[tuple[str, list[Edit]]]:
    """Yields all that the detectors are measured on: a name, and edits with their true cuts."""
    rng = np.random.RandomState(0)
    joins = [(a[:12], b[:12]) for a, b in pairwise(clips)]
    fades = np.linspace(1, 0, 12)

    def noisy(frames: Frames) -> Frames:
        return [np.clip(f + rng.normal(0, 25, f.shape), 0, 255).astype(np.uint8) for f in frames]

    def shaken(frames: Frames) -> Frames:
        return [np.roll(f, tuple(rng.randint(-24, 25, 2)), (0, 1)) for f in frames]

    yield "three edits", [edit(clips, seed) for seed in (1, 2, 3)]
    yield "noise", [joined([noisy(a), noisy(b)]) for a, b in joins[:10]]
    yield (
        "shots of 2 frames",
        [joined([clip[i : i + 2] for clip in clips[i : i + 8]]) for i in range(0, 12, 2)],
    )
    yield (
        "8 % of the brightness",
        [joined([brighter(a, [0.08] * 12), brighter(b, [0.08] * 12)]) for a, b in joins],
    )
    yield "jump cuts", [joined([c[:12], c[28:]]) for c in clips if len(c) >= 40]
    yield "frames left out", [(c[::step], []) for c in clips for step in (2, 4, 8)]
    yield "shaken", [(shaken(c[:20]), []) for c in clips]
    yield "flash", [(c[:8] + brighter(c[8:9], [1.8]) + c[9:], []) for c in clips]
    yield "fades", [(brighter(c[:12], f), []) for c in clips for f in (fades, fades[::-1])]


def ours(frames: Frames) -> list[int]:
    """Returns the cuts that this package's detector finds."""
    detector = SceneDetector()
    return [i for i, frame in enumerate(frames) if detector.is_cut(frame)]


def theirs(name: str) -> Callable[[Frames], list[int]]:
    """Returns a function that finds cuts with one of PySceneDetect's detectors."""
    import scenedetect

    def find(frames: Frames) -> list[int]:
        detector = getattr(scenedetect, name)(min_scene_len=1)
        found: list[int] = []
        for i, frame in enumerate(frames):
            found += detector.process_frame(i, np.ascontiguousarray(frame[..., ::-1]))
        return found

    return find


def main() -> None:
    """Measure, and print a table of the true cuts found and of the false cuts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="films without cuts in them")
    clips = [read(path) for path in sorted(parser.parse_args().folder.glob("*.mp4"))]
    cv2.setNumThreads(1)
    names = ("AdaptiveDetector", "ContentDetector", "HashDetector")
    detectors = {"this one": ours, **{name: theirs(name) for name in names}}
    rows = []
    for what, edits in material(clips):
        cells = []
        for find in detectors.values():
            found = [(set(find(frames)), set(cuts)) for frames, cuts in edits]
            right = sum(len(a & b) for a, b in found)
            cells.append(f"{right}, {sum(len(a - b) for a, b in found)}")
        rows.append([f"{what} ({sum(len(cuts) for _, cuts in edits)})", *cells])
    print(tabulate(rows, ["material (cuts in it)", *detectors]))


if __name__ == "__main__":
    main()

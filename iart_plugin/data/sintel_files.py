"""The files of MPI-Sintel: its clips and their split, the paths, and which files are missing.

The layout is Sintel's own, and :mod:`iart_plugin.data.synthetic` writes the same::

    root/training/{clean,final}/<clip>/frame_0001.png ...       frames, 8-bit RGB
    root/training/flow/<clip>/frame_0001.flo ...                frame t to frame t + 1
    root/training/occlusions/<clip>/frame_0001.png ...          255: not seen in frame t + 1
    root/training/invalid/<clip>/frame_0001.png ...             255: the vector itself is void
    root/training/clean_bicubic_x4/<clip>/frame_0001.png ...    optional, made by prepare-sintel
    root/split.json                                             optional {"train": [], "test": []}
"""

import json
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from iart_plugin.data.degradation import bicubic_downsample
from iart_plugin.pictures import checked_size, read_picture, write_png

# Sintel's training clips and their numbers of frames: 1064 frames, 1041 flow fields.
SINTEL_FRAMES = {
    **{
        f"{scene}_{take}": 50
        for scene, takes in {
            "alley": (1, 2),
            "ambush": (5, 7),
            "bamboo": (1, 2),
            "bandage": (1, 2),
            "cave": (2, 4),
            "market": (2, 5),
            "mountain": (1,),
            "shaman": (2, 3),
            "sleeping": (1, 2),
            "temple": (2, 3),
        }.items()
        for take in takes
    },
    "ambush_2": 21,
    "ambush_4": 33,
    "ambush_6": 20,
    "market_6": 40,
}
TEST_CLIPS = ("ambush_5", "market_6", "mountain_1")
RENDERS = ("clean", "final")
MASKS = ("occlusions", "invalid")
FRAME_NAME = re.compile(r"frame_(\d{4})\.png")


@dataclass(frozen=True)
class Window:
    """Consecutive frames of one clip, numbered from ``first`` (Sintel counts from 1)."""

    clip: str
    first: int
    length: int

    @property
    def frames(self) -> range:
        """The numbers of the frames."""
        return range(self.first, self.first + self.length)


@dataclass(frozen=True, kw_only=True)
class SintelFiles:
    """The files of a copy of Sintel, and which windows of them are complete.

    Attributes:
        training: The folder ``training``.
        render: 'clean' or 'final'.
        has_true_flow: Whether ground-truth flow must be there, with its masks.
        skips_missing: Whether windows that lack a file are left out. Otherwise a missing file is
            an error.
    """

    training: Path
    render: str
    has_true_flow: bool
    skips_missing: bool

    def path(self, kind: str, clip: str, number: int) -> Path:
        """The path of a frame, a flow field or a mask."""
        suffix = "flo" if kind == "flow" else "png"
        return self.training / kind / clip / f"frame_{number:04d}.{suffix}"

    def windows(self, clip: str, num_frames: int | None) -> list[Window]:
        """Every window of ``num_frames`` frames in a clip; for None, its longest complete pieces.

        Raises:
            FileNotFoundError: If a file is missing, unless missing files are skipped.
        """
        runs = self._complete_runs(clip)
        if num_frames is None:
            # A single frame left over by missing flow is not a clip, but a one-frame clip is one.
            shortest = 2 if self.skips_missing else 1
            return [Window(clip, run[0], len(run)) for run in runs if len(run) >= shortest]
        return [
            Window(clip, first, num_frames)
            for run in runs
            for first in run
            if first + num_frames <= run[-1] + 1
        ]

    def _complete_runs(self, clip: str) -> list[list[int]]:
        """Lists of consecutive frame numbers with all the flow that is needed between them."""
        folder = self.training / self.render / clip
        numbers = frame_numbers(folder)
        if not self.skips_missing:
            self._check_complete(clip, numbers)
        runs: list[list[int]] = []
        for number in numbers:
            follows = runs and runs[-1][-1] == number - 1
            if follows and (not self.has_true_flow or self.path("flow", clip, number - 1).exists()):
                runs[-1].append(number)
            else:
                runs.append([number])
        if not runs:
            warnings.warn(f"{folder} has no frames: the clip is left out", stacklevel=5)
        return runs

    def _check_complete(self, clip: str, numbers: list[int]) -> None:
        count = max(numbers, default=1)
        wanted = [self.path(self.render, clip, n) for n in range(1, count + 1)]
        if self.has_true_flow:
            # A data set without masks has no mask folders. A mask folder with gaps is an error.
            masks = [kind for kind in MASKS if (self.training / kind).is_dir()]
            wanted += [
                self.path(kind, clip, n) for n in range(1, count) for kind in ("flow", *masks)
            ]
        missing = [path for path in wanted if not path.exists()]
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} files of clip {clip} are missing, the first: {missing[0]}; "
                f"complete it, or pass on_missing='skip'"
            )


def frame_numbers(folder: Path) -> list[int]:
    """The numbers of the frames in a clip's folder, in order; other files do not count."""
    found = (FRAME_NAME.fullmatch(path.name) for path in folder.glob("frame_*.png"))
    return sorted(int(match[1]) for match in found if match)


def clip_names(root: Path, clips: str | Sequence[str]) -> list[str]:
    """The names of clips that ``'train'``, ``'test'`` or a list of names stands for.

    Raises:
        ValueError: If the split has no such part, a name is not a folder's name, or
            ``root/split.json`` is damaged.
    """
    if isinstance(clips, str):
        path = Path(root) / "split.json"
        split = _read_split(path)
        if clips not in split:
            where = f" ({path})" if path.exists() else ""
            raise ValueError(f"clips must be one of {sorted(split)}{where} or names, got {clips!r}")
        return list(split[clips])
    if not clips:
        raise ValueError("clips is an empty list")
    for name in clips:
        if not _is_clip_name(name):
            raise ValueError(f"clips has {name!r}, which is not the name of a clip's folder")
    return list(clips)


def _read_split(path: Path) -> dict[str, list[str]]:
    if not path.exists():
        train = sorted(set(SINTEL_FRAMES) - set(TEST_CLIPS))
        return {"train": train, "test": list(TEST_CLIPS)}
    try:
        split = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    is_split = isinstance(split, dict) and all(
        isinstance(names, list) and all(map(_is_clip_name, names)) for names in split.values()
    )
    if not is_split:
        raise ValueError(f'{path} must be {{"train": [names], "test": [names]}} of clips\' folders')
    return split


def _is_clip_name(name: object) -> bool:
    """Whether this is the name of a folder inside another, and no path that leads elsewhere."""
    return isinstance(name, str) and name not in ("", ".", "..") and not re.search(r"[/\\\0]", name)


def truncated(root: str | Path, render: str, clip: str) -> str | None:
    """A message if one of Sintel's clips lacks frames at its end, which leave no gap; or None."""
    folder = Path(root) / "training" / render / clip
    expected = None if (Path(root) / "split.json").exists() else SINTEL_FRAMES.get(clip)
    found = len(frame_numbers(folder))
    if expected is None or found == expected:
        return None
    return f"{folder}: {found} frames where Sintel has {expected}"


def prepared_name(render: str, scale: int) -> str:
    """The folder beside ``clean`` and ``final`` that holds prepared low-resolution frames."""
    return f"{render}_bicubic_x{scale}"


def prepare_low_resolution(
    root: str | Path, *, render: str = "clean", scale: int = 4, clips: Sequence[str]
) -> Iterator[tuple[Path, bool]]:
    """Write the low-resolution frames of some clips beside the originals.

    Existing frames that are readable and of the right size are kept, so that a run that was stopped
    can be resumed.

    Args:
        root: The folder above ``training``.
        render: ``'clean'`` or ``'final'``.
        scale: Factor to shrink by.
        clips: Names of clips.

    Yields:
        The path of each low-resolution frame and whether it was written now.
    """
    training = Path(root) / "training"
    for clip in clips:
        for number in frame_numbers(training / render / clip):
            name = f"frame_{number:04d}.png"
            target = training / prepared_name(render, scale) / clip / name
            frame = read_picture(training / render / clip / name)
            expected = tuple(-(-side // scale) for side in frame.shape[:2])
            if _has_size(target, expected):
                yield target, False
                continue
            write_png(target, bicubic_downsample(frame, scale))
            yield target, True


def _has_size(path: Path, size: tuple[int, int]) -> bool:
    """Whether a whole picture of this height and width is there."""
    try:
        return checked_size(path) == size
    except (FileNotFoundError, ValueError):
        return False

"""Makes films and folders of images that are damaged, and outputs that are odd, by a seed."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2

from tests.videos import Clip, moving_picture, write_clip

FORMS = {
    "mp4": {"audio_seconds": 0.25},
    "mov": {},
    "mkv": {"audio_seconds": 0.25},
    "webm": {"codec": "libvpx-vp9"},
    "avi": {"codec": "mpeg4"},
    "ts": {"audio_seconds": 0.25},
    "nut": {"codec": "ffv1"},
    "y4m": {"codec": "rawvideo", "options": {}},
}
"""Containers, and what is in them."""

NAMES = (
    "out.mp4", "ö ü.mp4", "a:b.mkv", "%d.mp4", "[x]*.mp4", "-x.mp4", "x.MP4", "'; $HOME.mov",
    "new\nline.mkv", "tab\t.webm", ".mp4", "..mp4", "no.suffix.", "x.avi", "x.jpg", "frames",
    "fr ames/", ".hidden", "x" * 240 + ".mp4", "x" * 255, "\udcff.mp4", "sub/out.mp4", ".", "..",
    "in.mp4", "./in.mp4", "taken.mp4", "taken", "filled", "filled/", "-", "", " ", "out.mp4/",
)  # fmt: skip
"""Names of an output, good and bad."""

OPTIONS = (
    [], ["-y"], ["--resume"], ["-y", "--resume"], ["--crf", "99"], ["--crf", "-1"],
    ["--codec", "nonsense"], ["--codec", "libx265"], ["--pix-fmt", "gray"], ["--preset", "x"],
    ["--tile", "8"], ["--tile", "0x9"], ["--tile", "-4"], ["--chunk", "0"], ["--chunk", "1"],
    ["--warm-up", "-1"], ["--warm-up", "100"], ["--overlap", "1000"], ["--fps", "0"],
    ["--fps", "30"], ["--scale", "2"], ["--scale", "nan"], ["--scale", "1e9"], ["--height", "33"],
    ["--height", "-2"], ["--lossless"], ["--no-audio"], ["--no-subtitles"], ["--compare"],
    ["--dry-run"], ["--device", "nonsense"], ["--precision", "bf16"], ["--self-ensemble"],
    ["--on-error", "fail"], ["--no-scene-detection"], ["--pipe-format", "nut"],
)  # fmt: skip
"""Options, good and bad."""


@dataclass
class Case:
    """One run of the command.

    Attributes:
        what: What is wrong with it, for a message.
        arguments: Of the command line, beside the ones that every run has.
        output: The output's path, which may be a folder or nothing.
    """

    what: str
    arguments: list[str]
    output: Path | None = None
    seconds: int = field(default=60)


def damaged_films(folder: Path, *, seed: int, count: int) -> Iterator[Case]:
    """Films and images whose bytes were changed."""
    rng = random.Random(seed)
    whole = {
        form: write_clip(
            folder / f"whole.{form}", Clip([moving_picture(i) for i in range(6)], **options)
        ).read_bytes()
        for form, options in FORMS.items()
    }
    picture = cv2.imencode(".png", moving_picture(0))[1].tobytes()
    for number in range(count):
        place = folder / str(number)
        place.mkdir()
        how = rng.choice(list(DAMAGES))
        if rng.random() < 0.15:
            source = place / "images"
            source.mkdir()
            bad = rng.randrange(4)
            for i in range(4):
                data = DAMAGES[how](rng, picture) if i == bad else picture
                (source / f"{i}.png").write_bytes(data)
        else:
            form = rng.choice(list(whole))
            source = place / f"in.{form}"
            source.write_bytes(DAMAGES[how](rng, whole[form]))
        output = place / rng.choice(("out.mp4", "out.mkv", "out"))
        extra = rng.choice(([], [], ["--on-error", "fail"]))
        yield Case(f"{number}: {source.name} {how}", [str(source), str(output), *extra], output)


def odd_outputs(folder: Path, *, seed: int, count: int) -> Iterator[Case]:
    """A good film with outputs and options that may be bad."""
    rng = random.Random(seed)
    film = write_clip(
        folder / "film.mp4", Clip([moving_picture(i) for i in range(6)], audio_seconds=0.25)
    )
    for number in range(count):
        place = folder / str(number)
        (place / "sub").mkdir(parents=True)
        (place / "filled").mkdir()
        for name in ("taken", "taken.mp4", "filled/1.png", "filled/thesis.txt"):
            (place / name).write_bytes(b"mine")
        shutil.copy(film, place / "in.mp4")
        name = rng.choice(NAMES)
        options = rng.choice(OPTIONS) + rng.choice(OPTIONS)
        output = Path(f"{place}{os.sep}{name}") if name not in ("-", "") else None
        shown = str(output) + ("/" if name.endswith("/") else "") if output else name
        arguments = [str(place / "in.mp4"), f"--output={shown}", *options]
        yield Case(f"{number}: -o {name!r} {' '.join(options)}", arguments, output)


def _flipped(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 4, 64))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _header(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 4, 16))):
        changed[rng.randrange(min(256, len(changed)))] = rng.choice((0, 1, 127, 128, 255))
    return bytes(changed)


def _without(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.choice((1, 100, 1000)) :]


def _inserted(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + rng.randbytes(rng.choice((1, 100))) + data[start:]


DAMAGES = {
    "flipped": _flipped,
    "header": _header,
    "cut": lambda rng, data: data[: rng.randrange(len(data))],
    "without": _without,
    "inserted": _inserted,
    "zeroed": lambda rng, data: data[: (at := rng.randrange(len(data)))] + bytes(len(data) - at),
    "noise": lambda rng, data: rng.randbytes(len(data)),
    "empty": lambda rng, data: b"",
    "twice": lambda rng, data: data + data,
}

"""Makes flow files and copies of Sintel that are wrong in ways that a seed decides."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from iart_plugin.data import write_flow
from iart_plugin.pictures import write_png

EXTREMES = (0, 1, 7, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 20000, 65537)
Damage = Callable[[random.Random, bytes], bytes]


def _flipped(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 8))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def _longer(rng: random.Random, data: bytes) -> bytes:
    return data + rng.randbytes(rng.choice((1, 8, 500)))


def _inserted(rng: random.Random, data: bytes) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + rng.randbytes(rng.choice((1, 4, 64))) + data[place:]


def _header_number(rng: random.Random, data: bytes) -> bytes:
    """Another number where headers of both formats have sizes."""
    place, order = rng.choice(((4, "<"), (8, "<"), (16, ">"), (20, ">"), (8, ">")))
    number = struct.pack(f"{order}I", rng.choice(EXTREMES))
    return data[:place] + number + data[place + 4 :]


def _values(rng: random.Random, data: bytes) -> bytes:
    """Numbers that are no displacement, where a .flo file has its vectors."""
    changed = bytearray(data)
    for _ in range(5):
        place = 12 + 4 * rng.randrange(max((len(data) - 16) // 4, 1))
        value = rng.choice((1e9, 1e10, -3e38, float("nan"), float("inf"), 1e-45, 5e8))
        changed[place : place + 4] = struct.pack("<f", value)
    return bytes(changed)


def _zeros(rng: random.Random, data: bytes) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + bytes(len(data) - place)


def _noise(rng: random.Random, data: bytes) -> bytes:
    return rng.randbytes(rng.choice((0, 3, 12, len(data))))


def _text(rng: random.Random, _: bytes) -> bytes:
    return rng.choice((b"<html>not found</html>", b"version https://git-lfs.github.com/spec/v1\n"))


DAMAGES: tuple[Damage, ...] = (
    *(_flipped, _cut, _longer, _inserted, _header_number, _values, _zeros, _noise, _text),
)


def damaged_flow_files(folder: Path, *, seed: int, count: int) -> Iterator[tuple[str, Path]]:
    """Write flow files, one after the other under the same two names, and damage them.

    Args:
        folder: Where they are written.
        seed: Decides the flows and the damage.
        count: How many to make.

    Yields:
        What was done to a file, and its path. About one in ten files is sound.
    """
    rng = random.Random(seed)
    for index in range(count):
        path = folder / rng.choice(("case.flo", "case.png"))
        height, width = rng.randint(1, 9), rng.randint(1, 9)
        write_flow(path, np.random.default_rng(index).normal(0, 20, (height, width, 2)))
        damage = rng.choice((*DAMAGES, None))
        if damage is not None:
            path.write_bytes(damage(rng, path.read_bytes()))
        yield f"{seed}/{index}: {damage.__name__ if damage else 'sound'}", path


def write_sintel(root: Path, *, clips: int = 2, frames: int = 3, seed: int = 0) -> None:
    """Write a small copy of Sintel with all kinds of files, 16x24 pixels."""
    values = np.random.default_rng(seed)
    training = root / "training"
    for clip in (f"clip_{index}" for index in range(clips)):
        for number in range(1, frames + 1):
            name = f"frame_{number:04d}"
            picture = values.integers(0, 256, (16, 24, 3), np.uint8)
            write_png(training / "clean" / clip / f"{name}.png", picture)
            if number == frames:
                continue
            (training / "flow" / clip).mkdir(parents=True, exist_ok=True)
            write_flow(training / "flow" / clip / f"{name}.flo", values.normal(0, 3, (16, 24, 2)))
            for mask in ("occlusions", "invalid"):
                pixels = (values.random((16, 24)) < 0.2).astype(np.uint8) * 255
                write_png(training / mask / clip / f"{name}.png", pixels)
    names = [f"clip_{index}" for index in range(clips)]
    (root / "split.json").write_text(str({"train": names, "test": names[:1]}).replace("'", '"'))


def _damaged(rng: random.Random, path: Path) -> None:
    path.write_bytes(rng.choice(DAMAGES)(rng, path.read_bytes()))


def _removed(_: random.Random, path: Path) -> None:
    path.unlink()


def _folder(_: random.Random, path: Path) -> None:
    path.unlink()
    path.mkdir()


def _dangling(_: random.Random, path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nowhere"))


def _other_picture(rng: random.Random, path: Path) -> None:
    """A sound picture of another size, depth or format under this name."""
    shape = rng.choice(((16, 24), (16, 24, 4), (12, 24, 3), (1, 1, 3), (16, 28), (40, 60, 3)))
    kind = rng.choice((".png", ".jpg", ".tiff", ".webp", ".bmp"))
    depth = np.uint16 if kind in (".png", ".tiff") and rng.random() < 0.5 else np.uint8
    picture = np.full(shape, rng.randrange(256), depth)
    _, data = cv2.imencode(kind, picture if kind in (".png", ".tiff") else picture[..., :3])
    path.write_bytes(data.tobytes())


def _renamed(rng: random.Random, path: Path) -> None:
    name = rng.choice(("frame_0000", "frame_0009", "frame_9999999999", "frame_2", "Frame_0001"))
    path.rename(path.with_name(name + path.suffix))


def _extra(rng: random.Random, path: Path) -> None:
    name = rng.choice(("._frame_0001", ".DS_Store", "frame_0001 (1)", "Thumbs", "frame_000x"))
    path.with_name(name + path.suffix).write_bytes(rng.randbytes(9))


def _split(rng: random.Random, path: Path) -> None:
    """Another split.json."""
    root = path.parents[3]
    texts = ("", "[]", "{}", '{"train": []}', '{"train": {}}', '{"train": ["nobody"]}', "\xff\xfe")
    (root / "split.json").write_bytes(rng.choice(texts).encode("latin-1"))


CHANGES = (
    *(_damaged, _damaged, _damaged, _removed, _folder, _dangling, _other_picture, _other_picture),
    *(_renamed, _extra, _split),
)


def damaged_sintel(folder: Path, *, seed: int, count: int) -> Iterator[tuple[str, Path]]:
    """Write small copies of Sintel, each with one to three files changed.

    Args:
        folder: Where the copies are written.
        seed: Decides their content and the changes.
        count: How many to make.

    Yields:
        What was changed in a copy, and its root.
    """
    rng = random.Random(seed)
    for index in range(count):
        root = folder / f"{index:04d}"
        write_sintel(root, seed=index)
        done = []
        for _ in range(rng.choice((1, 1, 3))):
            files = sorted(p for p in root.glob("training/*/*/*") if p.is_file())
            path, change = rng.choice(files), rng.choice(CHANGES)
            change(rng, path)
            done.append(f"{change.__name__} {path.relative_to(root)}")
        yield f"{seed}/{index}: {', '.join(done)}", root

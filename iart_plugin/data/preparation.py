"""Prepares downloaded data sets for training: makes low-resolution frames, links and lmdb.

Everything can be interrupted and started again. Existing files are kept, because a file gets its
name only when it is complete.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from iart_plugin.files import AtomicFile, write_atomically
from iart_plugin.pictures import encode_png, picture_size, read_picture, write_png

from .degradation import bicubic_downsample, gaussian_downsample

DEGRADATIONS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "BI": bicubic_downsample,
    "BD": partial(gaussian_downsample, version="released"),
    "BD-13tap": partial(gaussian_downsample, version="13-tap"),
}
"""The degradations by name: MATLAB's bicubic one, and the two Gaussian ones in use."""

REDS4 = ("000", "011", "015", "020")
"""The clips of REDS' training part that are kept for testing."""

REDS_CLIP_LENGTH = 100
"""BasicSR's REDS data sets draw frame numbers from 0..99, whatever the meta file says."""

SPACE_MARGIN = 1.05
ESTIMATED_FRAMES = 8
LMDB_COMMIT = 500  # frames in a transaction; an interruption loses at most one transaction


class FolderJob(NamedTuple):
    """The frames of one folder that are still to be made."""

    source: Path
    target: Path
    names: tuple[str, ...]


def plan_frames(source: Path, target: Path, folders: Iterable[str]) -> list[FolderJob]:
    """List the frames of a tree that still have to be made.

    Args:
        source: Holds ``<folder>/*.png``.
        target: Will hold the same names.
        folders: Paths below ``source``, such as ``000`` or ``00001/0001``.

    Raises:
        FileNotFoundError: if a folder is missing or has no frames.
    """
    jobs = []
    for folder in folders:
        names = sorted(p.name for p in (source / folder).glob("*.png"))
        if not names:
            raise FileNotFoundError(f"{source / folder} has no PNG frames")
        present = {p.name for p in (target / folder).glob("*.png")}
        left = tuple(name for name in names if name not in present)
        if left:
            jobs.append(FolderJob(source / folder, target / folder, left))
    return jobs


def complete_tree(
    source: Path,
    target: Path,
    folders: Iterable[str],
    degradation: str,
    *,
    scale: int = 4,
    workers: int | None = None,
) -> None:
    """Make the low-resolution frames that ``target`` lacks, with a progress bar.

    Raises:
        FileNotFoundError: if a folder of ``source`` is missing or has no frames.
        OSError: if the disk is too small for what is to be made.
        ValueError: if a frame cannot be read, or its size is no multiple of ``scale``.
    """
    jobs = plan_frames(source, target, folders)
    check_space(target, estimate_size(jobs, degradation, scale), "The low-resolution frames")
    total = sum(len(job.names) for job in jobs)
    with tqdm(total=total, unit="frame", desc=f"{degradation} x{scale}", disable=not total) as bar:
        for count in make_low_resolution(jobs, degradation, scale=scale, workers=workers):
            bar.update(count)


def check_space(target: Path, needed: int, what: str) -> None:
    """Raise an error if the disk has too little space for what is about to be written.

    Args:
        target: The folder to write to; it need not exist yet.
        needed: The number of bytes that will be written.
        what: What will be written, as the beginning of the message.

    Raises:
        OSError: if fewer bytes are free.
    """
    existing = next(p for p in (target, *target.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if needed * SPACE_MARGIN > free:
        raise OSError(
            f"{what} need about {needed / 1e9:.2f} GB under {target}, {free / 1e9:.2f} GB are free"
        )


def estimate_size(jobs: Sequence[FolderJob], degradation: str, scale: int = 4) -> int:
    """Estimate from a sample how many bytes the frames of ``jobs`` will take."""
    frames = [job.source / name for job in jobs for name in job.names]
    if not frames:
        return 0
    sample = frames[:: -(-len(frames) // ESTIMATED_FRAMES)]
    sizes = [len(encode_png(_reduced(path, degradation, scale))) for path in sample]
    return int(sum(sizes) / len(sizes) + 4096) * len(frames)  # a file's last block is not full


def make_low_resolution(
    jobs: Sequence[FolderJob], degradation: str, *, scale: int = 4, workers: int | None = None
) -> Iterator[int]:
    """Make the frames of ``jobs`` in parallel.

    Args:
        jobs: From :func:`plan_frames`.
        degradation: A name in :data:`DEGRADATIONS`.
        scale: Factor between the sizes.
        workers: Processes; the machine's processors if None.

    Yields:
        The number of frames in each folder, as soon as they are written.

    Raises:
        ValueError: if a frame cannot be read, or its size is no multiple of ``scale``.
        OSError: if a frame cannot be written.
    """
    work = partial(_make_folder, degradation=degradation, scale=scale)
    if workers == 1:
        yield from map(work, jobs)
        return
    with ProcessPoolExecutor(workers) as pool:
        futures = [pool.submit(work, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            for future in futures:
                future.cancel()


def _make_folder(job: FolderJob, *, degradation: str, scale: int) -> int:
    cv2.setNumThreads(1)  # every core already has a process
    for name in job.names:
        write_png(job.target / name, _reduced(job.source / name, degradation, scale))
    return len(job.names)


def _reduced(path: Path, degradation: str, scale: int) -> np.ndarray:
    """Make a low-resolution frame, RGB."""
    image = read_picture(path)
    height, width = image.shape[:2]
    if height % scale or width % scale:
        raise ValueError(f"{path} is {width}x{height}, not a multiple of {scale}")
    return DEGRADATIONS[degradation](image, scale)


def read_frames(video: Path, count: int) -> Iterator[np.ndarray]:
    """The first ``count`` frames of a video, played back and forth if it is shorter.

    Args:
        video: Anything that OpenCV decodes.
        count: How many frames to yield.

    Yields:
        Frames (h, w, 3), uint8, BGR.

    Raises:
        ValueError: if no frame can be read.
    """
    frames = list(decode(video, count))
    for index in range(count):
        yield frames[back_and_forth(index, len(frames))]


def back_and_forth(index: int, length: int) -> int:
    """The number of the frame at ``index`` if ``length`` frames are played back and forth."""
    period = max(2 * length - 2, 1)
    return min(index % period, -index % period)


def decode(video: Path, count: int) -> Iterator[np.ndarray]:
    """Up to ``count`` frames from the start of a video, read one by one as they are asked for.

    Yields:
        Frames (h, w, 3), uint8, BGR.

    Raises:
        ValueError: if no frame can be read.
    """
    capture = cv2.VideoCapture(str(video))
    try:
        for index in range(count):
            ok, frame = capture.read()
            if ok:
                yield frame
            elif index:
                return
            else:
                raise ValueError(f"no frame can be read from {video}")
    finally:
        capture.release()


def write_pair(root: Path, clip: str, index: int, gt: np.ndarray, scale: int = 4) -> None:
    """Write a ground-truth frame and its bicubic reduction: ``root/{GT,BIx4}/<clip>/<index>.png``.

    Args:
        root: A folder, made if absent.
        clip: The clip's folder.
        index: The frame's number.
        gt: (h, w, 3) uint8 BGR, sizes multiples of ``scale``.
        scale: Factor between the sizes.

    Raises:
        OSError: if the disk cannot be written to.
    """
    for name, image in (("GT", gt), (f"BIx{scale}", bicubic_downsample(gt, scale))):
        path = root / name / clip / f"{index:08d}.png"
        write_png(path, image[..., ::-1])


def link_folder(source: Path, link: Path) -> None:
    """Make ``link`` a relative link to ``source``, so that the tree can be moved as a whole.

    If the file system has no symbolic links, the files are hard-linked or copied instead, and
    ``link`` appears only when all of them are complete.

    Raises:
        FileExistsError: if ``link`` is already a link to another folder.
    """
    if link.is_symlink() or link.exists():
        if link.resolve() == source.resolve() or not link.is_symlink():
            return
        raise FileExistsError(f"{link} shows {link.resolve()}, not {source}; remove it first")
    link.parent.mkdir(parents=True, exist_ok=True)
    try:
        # `..` in a path is resolved from the folder that a link points to, not from its text.
        shown = source.parent.resolve() / source.name
        link.symlink_to(os.path.relpath(shown, link.parent.resolve()), target_is_directory=True)
    except OSError:
        with AtomicFile(link) as unfinished:
            shutil.copytree(source, unfinished, copy_function=_hard_link)


def _hard_link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def write_meta(path: Path, folders: Sequence[str], root: Path) -> None:
    """Write a meta file for BasicSR, with a line ``<folder> <frames> (<h>,<w>,3)`` per folder.

    Sizes are read from each folder's first frame.

    Raises:
        FileNotFoundError: if a folder has no frames.
        ValueError: if a first frame cannot be read.
    """
    lines = []
    for folder in folders:
        frames = sorted((root / folder).glob("*.png"))
        if not frames:
            raise FileNotFoundError(f"{root / folder} has no PNG frames")
        height, width = picture_size(frames[0])
        lines.append(f"{folder} {len(frames)} ({height},{width},3)\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "".join(lines))


def make_lmdb(root: Path, output: Path, folders: Sequence[str]) -> None:
    """Put a tree of PNG frames into an lmdb database that BasicSR can read.

    Keys are paths without suffix. ``meta_info.txt`` is written last. A database without it is
    unfinished, and the next call completes it.

    Args:
        root: Holds ``<folder>/*.png``.
        output: A folder named ``*.lmdb``.
        folders: Paths below ``root``.

    A progress bar is shown.

    Raises:
        ValueError: if ``output`` is named otherwise, or a frame is no picture.
        OSError: if the disk is too small.
    """
    import lmdb

    if output.suffix != ".lmdb":
        raise ValueError(f"BasicSR wants the name of a database to end in .lmdb, got {output}")
    frames = [path for folder in folders for path in sorted((root / folder).glob("*.png"))]
    size = sum(path.stat().st_size + 4096 for path in frames)
    written = (output / "data.mdb").stat().st_size if (output / "data.mdb").exists() else 0
    check_space(output, max(size - written, 0), "The database's frames")
    output.mkdir(parents=True, exist_ok=True)
    bar = tqdm(total=len(frames), unit="frame", desc=output.name)
    with bar, lmdb.open(str(output), map_size=2 * size + 2**24) as environment:
        for start in range(0, len(frames), LMDB_COMMIT):
            with environment.begin(write=True) as transaction:
                for path in frames[start : start + LMDB_COMMIT]:
                    key = path.relative_to(root).with_suffix("").as_posix().encode()
                    if transaction.get(key) is None:
                        transaction.put(key, path.read_bytes())
                    bar.update(1)
    lines = []
    for path in frames:
        height, width = picture_size(path)
        lines.append(f"{path.relative_to(root).as_posix()} ({height},{width},3) 1\n")
    write_atomically(output / "meta_info.txt", "".join(lines))

"""Picture files: reading them and their sizes, their natural order, and writing PNG files."""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from natsort import natsorted, ns
from PIL import Image

from iart_plugin.files import write_atomically

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
"""The file name suffixes of pictures, in lower case."""

DEFAULT_PIXEL_LIMIT = 2**28
PIXEL_LIMIT_VARIABLE = "IART_PLUGIN_MAX_PIXELS"
"""The environment variable that raises (or lowers) the number of pixels a picture may have."""

_EXIF_ORIENTATION = 0x0112
_TRANSPOSED = (5, 6, 7, 8)  # the EXIF orientations that swap width and height
_ANIMATED_FORMATS = frozenset({"PNG", "WEBP", "TIFF", "GIF"})
_NEW_SUBFILE_TYPE, _REDUCED = 0xFE, 1  # the TIFF tag and its bit that mark a thumbnail


class PictureTooLargeError(ValueError):
    """A picture has more pixels than :func:`pixel_limit`."""


def natural_order(paths: Iterable[Path]) -> list[Path]:
    """Sort paths in the order in which people count: ``frame_9`` comes before ``frame_10``."""
    return natsorted(paths, key=str, alg=ns.IGNORECASE)


def pixel_limit() -> int:
    """The largest number of pixels that a picture may have.

    Raises:
        ValueError: if the environment variable is not a number.
    """
    text = os.environ.get(PIXEL_LIMIT_VARIABLE, str(DEFAULT_PIXEL_LIMIT))
    if not text.isdecimal():
        raise ValueError(f"{PIXEL_LIMIT_VARIABLE}={text}: give a whole number of pixels")
    return int(text)


def picture_size(path: Path) -> tuple[int, int]:
    """The height and width of the picture that :func:`read_picture` returns, read from the header.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a picture, or has more pixels than :func:`pixel_limit`.
    """
    return picture_sizes(path)[0]


def picture_sizes(path: Path) -> list[tuple[int, int]]:
    """The size of every picture in a file, such as an animation's frames or a TIFF's pages.

    The previews that some cameras and programs add after a picture do not count.

    Returns:
        (height, width) of each picture once it is turned upright, read from the headers.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a picture, or has more pixels than :func:`pixel_limit`.
    """
    with open(path, "rb") as file, _header(file, path) as image:
        if image is not None and image.format == "TIFF":
            return [_upright_size(page) for page in _pages(image)]
        if image is not None:
            count = image.n_frames if image.format in _ANIMATED_FORMATS else 1
            return [_upright_size(image)] * count
    return [read_picture(path).shape[:2]]  # a format that only OpenCV can read


def read_picture(path: Path, *, deep: bool = False, grey: bool = False) -> np.ndarray:
    """Read a picture without its transparency, turned upright by its EXIF orientation.

    Args:
        path: The file.
        deep: Keep 16 bits per channel if the file has them; otherwise the result has 8 bits.
        grey: Return only the brightness.

    Returns:
        RGB (h, w, 3), or (h, w) for ``grey``: uint8, or uint16.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be decoded, or has more pixels than :func:`pixel_limit`.
    """
    data = np.fromfile(path, np.uint8)  # on Windows, OpenCV's own reader cannot open some names
    with _header(io.BytesIO(data.tobytes()), path) as header:
        orientation = _orientation(header)
        if header is not None and header.format == "TIFF":
            if orientation in _TRANSPOSED:  # OpenCV cannot decode these; Pillow turns them upright
                return np.asarray(header.convert("L" if grey else "RGB"))
            orientation = 1  # OpenCV turns the others upright itself
    mode = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR
    mode |= cv2.IMREAD_IGNORE_ORIENTATION | (cv2.IMREAD_ANYDEPTH if deep else 0)
    image = cv2.imdecode(data, mode) if data.size else None
    if image is None or image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"{path} is not a readable image: it is damaged, or of another format")
    image = image if grey else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return _turned(image, orientation)


def read_pictures(path: Path) -> Iterator[tuple[np.ndarray, float | None]]:
    """Read every picture of an animation, or every page of a TIFF.

    Yields:
        RGB (h, w, 3), uint8 (uint16 for a TIFF with 16 bits per channel), and how many seconds it
        is shown, or None if the file does not say.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a picture cannot be decoded.
    """
    with open(path, "rb") as file, _header(file, path) as image:
        try:
            for page in _pages(image):
                pixels = _tiff_page(path, page) if page.format == "TIFF" else None
                if pixels is None:
                    pixels = np.asarray(page.convert("RGB"))
                milliseconds = page.info.get("duration")  # for WebP, known only after decoding
                yield pixels, milliseconds / 1000 if milliseconds else None
        except (OSError, SyntaxError, EOFError) as error:
            raise ValueError(f"{path}: one of its pictures cannot be read ({error})") from error


def _tiff_page(path: Path, page: Image.Image) -> np.ndarray | None:
    """Read a page of a TIFF with all its bits, which Pillow loses; None if OpenCV cannot."""
    mode = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    data, number = np.fromfile(path, np.uint8), page.tell()
    done, pages = cv2.imdecodemulti(data, mode, range=(number, number + 1))
    if not done or pages[0].dtype not in (np.uint8, np.uint16):
        return None
    return cv2.cvtColor(pages[0], cv2.COLOR_BGR2RGB)


def _pages(image: Image.Image) -> Iterator[Image.Image]:
    for index in range(image.n_frames):
        image.seek(index)
        if not (image.format == "TIFF" and image.tag_v2.get(_NEW_SUBFILE_TYPE, 0) & _REDUCED):
            yield image


def checked_size(path: Path) -> tuple[int, int]:
    """Check that a picture is complete, and return its height and width.

    The structure and checksums of a PNG show whether it is truncated or damaged without decoding
    it. Any other picture is decoded.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or not a picture.
    """
    data = path.read_bytes()
    if not data.startswith(b"\x89PNG"):
        return read_picture(path).shape[:2]
    verify_png(data, path)
    return picture_size(path)


def verify_png(data: bytes, path: Path) -> None:
    """Check the structure and the checksums of a PNG file without decoding it.

    Raises:
        ValueError: if it is cut short or damaged.
    """
    try:
        with _header(io.BytesIO(data), path) as image:
            if image is None or image.format != "PNG":
                raise ValueError(f"{path} is not a readable image: its first bytes are damaged")
            image.verify()
    except OSError as error:
        raise ValueError(f"{path} is not a readable image: it is cut short ({error})") from error
    except SyntaxError as error:
        raise ValueError(f"{path} is not a readable image: it is damaged ({error})") from error
    except IndexError as error:
        raise ValueError(f"{path} is not a readable image: it cannot be decoded") from error


@contextlib.contextmanager
def _header(file: io.IOBase, path: Path) -> Iterator[Image.Image | None]:
    """Open a picture with Pillow without decoding it; gives None if Pillow cannot open it."""
    # Pillow's own size check is off: its error does not name the file, and its limit is global.
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        image = Image.open(file)
    except (OSError, SyntaxError, ValueError):
        image = None
    finally:
        Image.MAX_IMAGE_PIXELS = before
    if image is not None and image.width * image.height > (limit := pixel_limit()):
        raise PictureTooLargeError(
            f"{path} is {image.width}x{image.height}, more than {limit} pixels: set "
            f"{PIXEL_LIMIT_VARIABLE} to allow it"
        )
    yield image


def _orientation(image: Image.Image | None) -> int:
    """The EXIF orientation; 1 for a picture that is stored upright."""
    # Asking a PNG for EXIF would make Pillow decode it all, to look for EXIF after the pixels.
    if image is None or (image.format == "PNG" and "exif" not in image.info):
        return 1
    return image.getexif().get(_EXIF_ORIENTATION, 1)


def _upright_size(image: Image.Image) -> tuple[int, int]:
    # For a TIFF, Pillow already gives the size that it has when it is turned upright.
    turned = image.format != "TIFF" and _orientation(image) in _TRANSPOSED
    return image.size if turned else image.size[::-1]


def _turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turn a stored picture upright, given its EXIF orientation (1 to 8)."""
    if orientation in _TRANSPOSED:
        image = image.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def encode_png(image: np.ndarray, options: Sequence[int] = ()) -> bytes:
    """Encode a picture as the bytes of a PNG file.

    Args:
        image: uint8 or uint16, RGB (h, w, 3) or grey (h, w).
        options: OpenCV's options, pairs of a name and a value.

    Raises:
        OSError: if OpenCV cannot encode it.
    """
    done, data = cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image, options)
    if not done:
        raise OSError(errno.EIO, "a picture cannot be encoded as PNG")
    return data.tobytes()


def write_png(path: Path, image: np.ndarray, options: Sequence[int] = ()) -> None:
    """Write a PNG file, which gets its name only when it is complete; makes missing folders.

    Args:
        path: The file.
        image: uint8 or uint16, RGB (h, w, 3) or grey (h, w).
        options: OpenCV's options, pairs of a name and a value.

    Raises:
        OSError: if it cannot be encoded, the disk is full, or the folder cannot be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, encode_png(image, options))

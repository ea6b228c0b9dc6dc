"""PNG files, written whole or not at all."""

import errno
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from iart_plugin.files import write_atomically


def encode_png(image: np.ndarray, options: Sequence[int] = ()) -> bytes:
    """A PNG file's bytes.

    Args:
        image: uint8 or uint16, RGB (h, w, 3) or grey (h, w).
        options: OpenCV's, pairs of a name and a value.

    Raises:
        OSError: if OpenCV cannot encode it.
    """
    done, data = cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image, options)
    if not done:
        raise OSError(errno.EIO, "an image cannot be encoded as PNG")
    return data.tobytes()


def write_png(path: Path, image: np.ndarray, options: Sequence[int] = ()) -> None:
    """Writes an image as :func:`encode_png` does, under its name only when it is complete.

    Folders that are not there are made.

    Raises:
        OSError: if it cannot be encoded, the disk is full, or the folder cannot be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, encode_png(image, options))

"""Making low-resolution frames the way the benchmarks were made.

Video super-resolution uses two degradations, and a network that was trained on one loses several
dB on the other:

* BI, :func:`bicubic_downsample`: MATLAB's ``imresize(image, 1 / scale, 'bicubic')``, that is a
  cubic kernel (a = -1/2) stretched by ``scale`` against aliasing, with mirrored borders.
* BD, :func:`gaussian_downsample`: a Gaussian blur followed by taking every ``scale``-th pixel.
  Two versions of it are in use. Their sampling positions differ by more than a pixel, as that
  function explains.

All computations are NumPy's in float64. Frames are ``(h, w)`` or ``(h, w, c)``; ``uint8`` frames
give ``uint8`` frames, floating ones keep their dtype and are neither rounded nor clipped.
"""

from functools import lru_cache
from math import ceil, floor

import numpy as np

CUBIC_SUPPORT = 4.0
GAUSSIAN_SIGMA = 1.6
# name: (taps, NumPy's name of the border, first row and column taken, counted from 0)
GAUSSIAN_VERSIONS = {"released": (12, "edge", 1), "13-tap": (13, "reflect", 0)}


def bicubic_downsample(image: np.ndarray, scale: int = 4) -> np.ndarray:
    """Shrink a frame like MATLAB's ``imresize`` (the benchmarks' "BI" degradation).

    Args:
        image: ``(h, w)`` or ``(h, w, c)``, ``uint8`` in 0..255 or floating of any range.
        scale: Integer factor, at least 1. Sizes that it does not divide are rounded up.

    Returns:
        ``(ceil(h / scale), ceil(w / scale)[, c])`` in the input's dtype.

    Raises:
        ValueError: If the shape or the scale is not as described above.
        TypeError: If the dtype is neither ``uint8`` nor floating.
    """
    _check_scale(scale)
    return imresize(image, 1.0 / scale)


def imresize(image: np.ndarray, factor: float) -> np.ndarray:
    """Resize a frame by ``factor`` with MATLAB's antialiased bicubic kernel.

    Args:
        image: ``(h, w)`` or ``(h, w, c)``, ``uint8`` or floating.
        factor: Below 1 to shrink, above to enlarge. Sizes are rounded up.

    Returns:
        The resized frame, in the input's dtype.

    Raises:
        ValueError: If ``factor`` is not positive or ``image`` is no frame.
        TypeError: If the dtype is neither ``uint8`` nor floating.
    """
    _check_frame(image)
    if not factor > 0:
        raise ValueError(f"factor must be positive, got {factor}")
    rows = _bicubic_matrix(image.shape[0], factor)
    columns = _bicubic_matrix(image.shape[1], factor)
    return _like(_apply(rows, columns, image), image)


def gaussian_downsample(
    image: np.ndarray,
    scale: int = 4,
    *,
    version: str = "released",
    sigma: float = GAUSSIAN_SIGMA,
    offset: int | None = None,
) -> np.ndarray:
    """Blur a frame with a Gaussian and take every ``scale``-th pixel (the "BD" degradation).

    There are two versions in use:

    * ``'released'`` made the released Vimeo-90K and Vid4 test sets. It applies MATLAB's
      ``fspecial('gaussian', 12, 1.6)`` by ``imfilter`` with replicated borders, which takes element
      6 of 12 as the centre, and then takes rows and columns 2, 6, 10, ... counted from 1. The even
      kernel's true centre lies half a pixel further on, so a sample lies in the middle of its 4 x 4
      block, as with bicubic downsampling.
    * ``'13-tap'`` is described in the papers and used by BasicSR's ``duf_downsample``. It applies
      an odd kernel centred on its pixel with reflected borders, and then takes rows and columns
      1, 5, 9, ... counted from 1.

    The two sampling grids are 1.5 high-resolution pixels apart. A network trained for one loses
    more than 10 dB on the other. Check which one a data set has before training on it.

    ``uint8`` frames are rounded after the blur, as ``imfilter`` does.

    Args:
        image: ``(h, w)`` or ``(h, w, c)``, ``uint8`` or floating.
        scale: Integer factor, at least 1.
        version: ``'released'`` or ``'13-tap'``.
        sigma: The Gaussian's standard deviation in high-resolution pixels.
        offset: The first row and column taken, counted from 0; None for the version's own.

    Returns:
        The frame on the low-resolution grid, in the input's dtype.

    Raises:
        ValueError: If an argument is out of range.
        TypeError: If the dtype is neither ``uint8`` nor floating.
    """
    _check_frame(image)
    _check_scale(scale)
    if version not in GAUSSIAN_VERSIONS:
        raise ValueError(f"version must be one of {sorted(GAUSSIAN_VERSIONS)}, got {version!r}")
    if not sigma > 0:
        raise ValueError(f"sigma must be positive, got {sigma}")
    taps, border, first = GAUSSIAN_VERSIONS[version]
    first = first if offset is None else offset
    height, width = image.shape[:2]
    if not 0 <= first < min(height, width):
        raise ValueError(f"offset {first} lies outside a frame of {height}x{width}")
    rows = _gaussian_matrix(height, scale, taps, border, first, sigma)
    columns = _gaussian_matrix(width, scale, taps, border, first, sigma)
    return _like(_apply(rows, columns, image), image)


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic kernel with a = -1/2."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


@lru_cache(maxsize=32)
def _bicubic_matrix(length: int, factor: float) -> np.ndarray:
    """The resampling of one axis as a matrix ``(ceil(length * factor), length)``."""
    # A product such as 49 * (1 / 49) may slightly exceed a whole number; it must not add a row.
    size = ceil(length * factor - 1e-9)
    stretch = min(factor, 1.0)
    reach = CUBIC_SUPPORT / stretch / 2
    # Pixel centres at k + 1/2 on both grids.
    centre = (np.arange(size) + 0.5) / factor - 0.5
    first = np.floor(centre - reach).astype(int)
    source = first[:, None] + np.arange(floor(2 * reach) + 3)[None, :]
    weight = _cubic((centre[:, None] - source) * stretch)
    weight /= weight.sum(axis=1, keepdims=True)
    # The frame is mirrored, repeating the border pixel; the modulo makes this periodic.
    source = np.mod(source, 2 * length)
    source = np.minimum(source, 2 * length - 1 - source)
    return _scatter(source, weight, length)


@lru_cache(maxsize=32)
def _gaussian_matrix(
    length: int, scale: int, taps: int, border: str, first: int, sigma: float
) -> np.ndarray:
    """Blur and decimation of one axis as a matrix ``(samples, length)``."""
    weight = np.exp(-((np.arange(taps) - (taps - 1) / 2) ** 2) / (2 * sigma**2))
    weight /= weight.sum()
    centre = (taps - 1) // 2  # element 6 of 12 counted from 1, 7 of 13
    padded = np.pad(np.arange(length), taps, mode=border)
    position = np.arange(first, length, scale)
    source = padded[position[:, None] + np.arange(taps)[None, :] - centre + taps]
    return _scatter(source, np.broadcast_to(weight, source.shape), length)


def _scatter(source: np.ndarray, weight: np.ndarray, length: int) -> np.ndarray:
    """Add ``weight`` at the columns ``source`` of a zero matrix with ``length`` columns."""
    matrix = np.zeros((len(source), length))
    np.add.at(matrix, (np.arange(len(source))[:, None], source), weight)
    matrix.setflags(write=False)  # shared by the cache
    return matrix


def _apply(rows: np.ndarray, columns: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Apply one matrix along the height and one along the width of a frame, in float64."""
    image = image.astype(np.float64)
    if image.ndim == 2:
        return rows @ image @ columns.T
    planes = rows @ np.moveaxis(image, -1, 0) @ columns.T
    return np.ascontiguousarray(np.moveaxis(planes, 0, -1))


def _like(result: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Bring a float64 result back to the dtype of the frame it was made from."""
    if image.dtype == np.uint8:
        return np.rint(result.clip(0, 255)).astype(np.uint8)
    return result.astype(image.dtype)


def _check_frame(image: np.ndarray) -> None:
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise ValueError(f"a frame is (h, w) or (h, w, c) and not empty, got shape {image.shape}")
    if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
        raise TypeError(f"a frame is uint8 or floating, got {image.dtype}")


def _check_scale(scale: int) -> None:
    if int(scale) != scale or scale < 1:
        raise ValueError(f"scale must be a whole number of at least 1, got {scale}")

"""Reading and writing optical flow: Middlebury ``.flo`` and KITTI ``.png``.

Both readers check the whole file before they use any of it. Their errors name the file and the
defect. Otherwise a file that was cut short by a full disk or a download could be used unnoticed.
"""

import struct
from pathlib import Path

import cv2
import numpy as np

from iart_plugin.files import write_atomically
from iart_plugin.pictures import PIXEL_LIMIT_VARIABLE, pixel_limit, verify_png

FLO_TAG = b"PIEH"  # 202021.25 as a little-endian float32
FLO_HEADER_BYTES = 12
FLO_UNKNOWN_FROM = 1e9  # Middlebury's reader treats vectors with such a component as unknown
FLO_UNKNOWN = 1e10  # Middlebury's writer stores unknown vectors with these components
LARGEST_SIDE = 65536
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
KITTI_STEPS_PER_PIXEL = 64.0
KITTI_ZERO = 32768


def read_flow(path: str | Path) -> np.ndarray:
    """Read an optical flow field.

    Args:
        path: A ``.flo`` or a KITTI ``.png`` file.

    Returns:
        ``(h, w, 2)`` float32, x then y, in pixels. A vector that the file marks as unknown is
        NaN: in a KITTI file by its third channel, in a .flo file by a component of 1e9 or more.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the suffix is neither of these, the file's header or length is wrong, or it
            has more pixels than :func:`iart_plugin.pictures.pixel_limit`.
    """
    path = Path(path)
    read = _codec(path)[0]
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a file")
    return read(path)


def write_flow(path: str | Path, flow: np.ndarray) -> None:
    """Write an optical flow field, replacing the file in one step.

    Args:
        path: Ends with ``.flo`` (exact in float32) or ``.png`` (KITTI: steps of 1/64 pixel from
            -512 to just below 512).
        flow: ``(h, w, 2)``, x then y, in pixels. A vector that is not finite is written as
            unknown.

    Raises:
        ValueError: If the suffix is neither of these, the shape is wrong, or the format cannot hold
            the vectors.
    """
    path = Path(path)
    encode = _codec(path)[1]
    flow = np.asarray(flow)
    if flow.ndim != 3 or flow.shape[2] != 2 or 0 in flow.shape:
        raise ValueError(f"{path}: a flow is (h, w, 2), got shape {flow.shape}")
    if max(flow.shape) > LARGEST_SIDE:
        raise ValueError(f"{path}: no side may exceed {LARGEST_SIDE}, got shape {flow.shape}")
    write_atomically(path, encode(flow, path))


def _codec(path: Path):
    try:
        return _CODECS[path.suffix.lower()]
    except KeyError:
        raise ValueError(f"{path}: a flow file ends with .flo or .png") from None


def _read_flo(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        width, height = _flo_size(file.read(FLO_HEADER_BYTES), path)
        expected, found = FLO_HEADER_BYTES + 8 * width * height, path.stat().st_size
        if found != expected:
            fault = "cut short" if found < expected else "too long"
            raise ValueError(
                f"{path}: {fault}, {found} bytes where {width}x{height} needs {expected}"
            )
        flow = np.fromfile(file, "<f4").astype(np.float32).reshape(height, width, 2)
    known = np.abs(flow) < FLO_UNKNOWN_FROM  # False for NaN too
    flow[~known.all(axis=2)] = np.nan
    return flow


def _flo_size(header: bytes, path: Path) -> tuple[int, int]:
    """Check a .flo header, and return its width and height."""
    if len(header) < FLO_HEADER_BYTES:
        raise ValueError(f"{path}: {len(header)} bytes, shorter than a .flo header of 12")
    if header[:4] != FLO_TAG:
        hint = " (big-endian: convert it)" if header[:4] == FLO_TAG[::-1] else ""
        raise ValueError(f"{path}: starts with {header[:4]!r} instead of {FLO_TAG!r}{hint}")
    width, height = struct.unpack("<ii", header[4:])
    _check_sides(width, height, path, "the .flo header")
    return width, height


def _check_sides(width: int, height: int, path: Path, where: str) -> None:
    if not (0 < width <= LARGEST_SIDE and 0 < height <= LARGEST_SIDE):
        raise ValueError(f"{path}: impossible size {width}x{height} in {where}")
    if width * height > (limit := pixel_limit()):
        raise ValueError(
            f"{path}: {width}x{height} is more than {limit} pixels: set {PIXEL_LIMIT_VARIABLE} "
            "to allow it"
        )


def _encode_flo(flow: np.ndarray, path: Path) -> bytes:
    known = np.isfinite(flow).all(axis=2)
    if known.any() and np.abs(flow[known]).max() >= FLO_UNKNOWN_FROM:
        raise ValueError(
            f"{path}: a .flo file holds vectors below {FLO_UNKNOWN_FROM:.0e} pixels; larger ones "
            "mean that the vector is unknown, so give NaN for these"
        )
    flow = np.where(known[..., None], flow, FLO_UNKNOWN)
    header = FLO_TAG + struct.pack("<ii", flow.shape[1], flow.shape[0])
    return header + np.ascontiguousarray(flow, "<f4").tobytes()


def _read_kitti(path: Path) -> np.ndarray:
    data = path.read_bytes()
    _check_kitti_png(data, path)
    # OpenCV reverses the channels: valid, y, x.
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        raise ValueError(f"{path}: its pixels cannot be decoded")
    flow = (pixels[..., 2:0:-1].astype(np.float32) - KITTI_ZERO) / KITTI_STEPS_PER_PIXEL
    flow[pixels[..., 0] == 0] = np.nan
    return flow


def _check_kitti_png(data: bytes, path: Path) -> None:
    """Check what OpenCV does not check: it decodes truncated and 8-bit files without an error."""
    if data[:8] != PNG_SIGNATURE:
        raise ValueError(f"{path}: not a PNG file, starts with {data[:8]!r}")
    if len(data) < 33:
        raise ValueError(f"{path}: PNG cut short after {len(data)} bytes")
    if data[12:16] != b"IHDR":
        raise ValueError(f"{path}: PNG begins with chunk {data[12:16]!r} instead of IHDR")
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    _check_sides(width, height, path, "the PNG header")
    if (depth, colour) != (16, 2):
        raise ValueError(
            f"{path}: a KITTI flow is 16-bit RGB, this PNG has {depth} bits a sample and "
            f"colour type {colour}"
        )
    verify_png(data, path)


def _encode_kitti(flow: np.ndarray, path: Path) -> bytes:
    valid = np.isfinite(flow).all(axis=2)
    steps = np.rint(np.where(valid[..., None], flow, 0.0) * KITTI_STEPS_PER_PIXEL) + KITTI_ZERO
    if steps.min() < 0 or steps.max() > 65535:
        raise ValueError(
            f"{path}: a KITTI file holds vectors from -512 to 511.98 pixels, these reach "
            f"{np.abs(flow[valid]).max():.1f}; write a .flo file"
        )
    pixels = np.dstack([valid, steps[..., 1], steps[..., 0]]).astype(np.uint16)
    done, data = cv2.imencode(".png", pixels)
    if not done:
        raise OSError(f"{path}: OpenCV cannot encode it")
    return data.tobytes()


_CODECS = {".flo": (_read_flo, _encode_flo), ".png": (_read_kitti, _encode_kitti)}

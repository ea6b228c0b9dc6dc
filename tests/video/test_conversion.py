"""Colours are exact to rounding, for every combination of matrix, range and depth."""

from __future__ import annotations

import av
import numpy as np
import pytest

from iart_plugin.video.colour import Colour
from iart_plugin.video.conversion import FromRGB, ToRGB, planar_format

WEIGHTS = {1: (0.2126, 0.0722), 4: (0.3, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114),
           7: (0.212, 0.087), 9: (0.2627, 0.0593)}  # fmt: skip
LIMITED, FULL = 1, 2
SUBSAMPLING = {"420": (2, 2), "422": (1, 2), "411": (1, 4), "440": (2, 1), "410": (4, 4),
               "444": (1, 1)}  # fmt: skip


def format_name(sampling: str, depth: int) -> str:
    return f"yuv{sampling}p" + ("" if depth == 8 else f"{depth}le")


def to_codes(rgb: np.ndarray, matrix: int, range_: int, depth: int) -> np.ndarray:
    """H.273's equations 38 to 40 and 20 to 28 (in float64, without rounding): (n, 3) to (n, 3)."""
    red, blue = WEIGHTS[matrix]
    luma = rgb @ [red, 1 - red - blue, blue]
    cb = (rgb[:, 2] - luma) / (2 * (1 - blue))
    cr = (rgb[:, 0] - luma) / (2 * (1 - red))
    unit = 2 ** (depth - 8)
    if range_ == FULL:
        highest = 2**depth - 1
        codes = [highest * luma, highest * cb + 128 * unit, highest * cr + 128 * unit]
    else:
        codes = [unit * (219 * luma + 16), unit * (224 * cb + 128), unit * (224 * cr + 128)]
    return np.stack(codes, 1)


def flat_frame(name: str, codes: np.ndarray, size: int = 16) -> av.VideoFrame:
    frame = av.VideoFrame(size, size, name)
    for plane, code in zip(frame.planes, codes, strict=True):
        np.frombuffer(plane, np.uint8 if "le" not in name else "<u2")[:] = code
    return frame


def samples_of(frame: av.VideoFrame) -> list[np.ndarray]:
    dtype = np.dtype("<u2" if "le" in frame.format.name else np.uint8)
    views = []
    for plane in frame.planes:
        rows = np.frombuffer(plane, dtype)
        rows = rows[: plane.height * (plane.line_size // dtype.itemsize)]
        views.append(rows.reshape(plane.height, -1)[:, : plane.width])
    return views


@pytest.mark.parametrize("depth", [8, 10, 12, 16])
@pytest.mark.parametrize("range_", [LIMITED, FULL])
@pytest.mark.parametrize("matrix", sorted(WEIGHTS))
@pytest.mark.parametrize("sampling", ["420", "422", "444"])
def test_exact_to_rounding_both_ways(sampling, matrix, range_, depth):
    colour, name = Colour(matrix, range_), format_name(sampling, depth)
    white = 255 if depth == 8 else 65535
    chosen = np.random.RandomState(depth).randint(0, white + 1, (12, 3))
    chosen[:3] = [[0, 0, 0], [white] * 3, [white // 2] * 3]
    to_rgb, from_rgb = ToRGB(colour), FromRGB(name, colour)
    for rgb in chosen:
        wanted = to_codes(rgb[None] / white, matrix, range_, depth)[0]
        wanted = wanted.clip(0, 2**depth - 1)
        dtype = np.uint8 if depth == 8 else np.uint16
        made = samples_of(from_rgb(np.full((16, 16, 3), rgb, dtype)))
        for plane, code in zip(made, wanted, strict=True):
            assert plane.min() == plane.max()
            assert abs(float(plane[0, 0]) - code) <= 0.5 + 2e-7 * 2**depth
        # Back: the very colour that these codes stand for, rounded once.
        codes = np.array([int(plane[0, 0]) for plane in made])
        shown = to_rgb(flat_frame(name, codes))
        assert shown.dtype == dtype
        exact = decoded(codes, matrix, range_, depth) * white
        assert np.abs(shown - exact.clip(0, white)).max() <= 0.5 + 2e-7 * white
        assert np.ptp(shown, (0, 1)).max() <= (0 if depth == 8 else 1)  # where it is a tie


def decoded(codes: np.ndarray, matrix: int, range_: int, depth: int) -> np.ndarray:
    """The inverse of :func:`to_codes`, by solving its equations."""
    zero = to_codes(np.zeros((1, 3)), matrix, range_, depth)[0]
    columns = to_codes(np.eye(3), matrix, range_, depth) - zero
    return np.linalg.solve(columns.T, (codes.T - zero).T)


@pytest.mark.parametrize("range_", [LIMITED, FULL])
def test_chroma_has_no_bias(range_):
    """Every neutral-ish colour of 8 bits, there and back: errors cancel out."""
    colour, errors = Colour(1, range_), []
    to_rgb, from_rgb = ToRGB(colour), FromRGB("yuv420p", colour)
    for y in range(60, 200, 20):
        for u in range(114, 143, 4):
            for v in range(114, 143, 4):
                codes = np.array([y, u, v])
                back = samples_of(from_rgb(to_rgb(flat_frame("yuv420p", codes))))
                errors.append(
                    [float(plane[0, 0]) - code for plane, code in zip(back, codes, strict=True)]
                )
    assert np.abs(np.mean(errors, 0)).max() < 0.06
    assert np.abs(errors).max() <= 1


@pytest.mark.parametrize(
    "name",
    ["nv12", "nv21", "p010le", "yuyv422", "uyvy422", "yuvj420p", "yuva420p", "yuv420p10be",
     "yuv411p", "yuv410p", "yuv440p", "gray", "gray10le", "ya8"],
)  # fmt: skip
@pytest.mark.parametrize("matrix", [1, 9])
def test_formats_are_repacked_without_change(name, matrix):
    """However samples are stored, and whatever the tags of the frame are."""
    range_ = FULL if name == "yuvj420p" else LIMITED
    colour = Colour(matrix, range_)
    grey = len(av.VideoFormat(name, 16, 16).components) < 3
    rgb = np.full((16, 16, 3), (90, 90, 90) if grey else (200, 60, 30), np.uint8)
    deep = "10le" in name or "10be" in name
    if deep:
        rgb = rgb.astype(np.uint16) * 257
    frame = FromRGB(name, colour)(rgb)
    assert frame.format.name == name
    shown = ToRGB(colour)(frame).astype(int)
    assert np.abs(shown - rgb.astype(int)).max() <= (2 if not deep else 2 * 65535 / 1023)


@pytest.mark.parametrize(
    "name", ["rgb24", "bgr0", "gbrp", "rgba", "gbrp10le", "gbrp16le", "rgb48le"]
)
def test_rgb_is_left_alone(name):
    dtype = np.uint16 if name in ("gbrp16le", "rgb48le") else np.uint8
    picture = np.random.RandomState(0).randint(0, np.iinfo(dtype).max + 1, (9, 7, 3)).astype(dtype)
    frame = FromRGB(name, Colour(0, FULL))(picture)
    back = ToRGB(Colour(0, FULL))(frame)
    if name == "gbrp10le":
        back = np.round(back / 257).astype(np.uint8)
    assert (back == picture).all()


@pytest.mark.parametrize("sampling", ["420", "422", "411"])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (65, 131), (130, 96)])
def test_every_size(sampling, size):
    """A ramp of colour comes back where it was, with no seam between strips."""
    name = f"yuv{sampling}p"
    y, x = np.mgrid[: size[0], : size[1]] / 160
    picture = np.dstack([0.3 + 0.4 * x, 0.5 + 0.2 * (y - x), 0.7 - 0.4 * y])
    picture = np.round(255 * picture).astype(np.uint8)
    colour = Colour(1, LIMITED)
    back = ToRGB(colour)(FromRGB(name, colour)(picture))
    assert back.shape == picture.shape
    assert np.abs(back.astype(int) - picture).max() <= 4


def keys_cubic(x: np.ndarray, a: float) -> np.ndarray:
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    return np.where(x < 1, near, np.where(x < 2, a * (x**3 - 5 * x**2 + 8 * x - 4), 0))


def resampling(wanted: int, given: int, step: float, first: float, a: float) -> np.ndarray:
    """The matrix (wanted, given) that samples a line at ``first + step * i``; edges go on."""
    width = max(step, 1)
    matrix = np.zeros((wanted, given))
    for i in range(wanted):
        place = first + step * i
        near = np.arange(int(place - 2 * width) - 1, int(place + 2 * width) + 2)
        taps = keys_cubic((near - place) / width, a)
        np.add.at(matrix[i], near.clip(0, given - 1), taps / taps.sum())
    return matrix


@pytest.mark.parametrize("name", ["yuv420p", "yuv420p10le", "yuv422p12le", "yuv411p", "yuv440p",
                                  "yuv410p", "yuv444p", "yuv444p16le"])  # fmt: skip
@pytest.mark.parametrize("size", [(131, 37), (64, 18), (70, 5)])
def test_noise_is_exact_to_rounding_both_ways(name, size):
    """Against the same filters in float64 and without strips, at every sample."""
    deep, depth = "le" in name, int(name[7:-2]) if "le" in name else 8
    white, top, random = (65535 if deep else 255), 2**depth - 1, np.random.RandomState(1)
    rgb = random.randint(0, white + 1, (*size, 3)).astype(np.uint16 if deep else np.uint8)
    frame = FromRGB(name, Colour(1, LIMITED))(rgb)
    made = samples_of(frame)
    codes = to_codes(rgb.reshape(-1, 3) / white, 1, LIMITED, depth).reshape(*size, 3)
    down, across = SUBSAMPLING[name[3:6]]
    for plane, wanted in zip(made, np.moveaxis(codes, 2, 0), strict=True):
        if plane is not made[0]:
            rows, columns = plane.shape
            middle = (down - 1) / 2
            wanted = resampling(rows, size[0], down, middle, -0.5) @ wanted
            wanted = wanted @ resampling(columns, size[1], across, 0, -0.5).T
        assert np.abs(plane - wanted.clip(0, top)).max() <= 0.5 + 5e-7 * 2**depth

    middle = (1 / down - 1) / 2
    vertical = resampling(size[0], made[1].shape[0], 1 / down, middle, -0.75)
    horizontal = resampling(size[1], made[1].shape[1], 1 / across, 0, -0.75)
    full = [made[0], *(vertical @ plane @ horizontal.T for plane in made[1:])]
    wanted = decoded(np.stack(full, -1).reshape(-1, 3).T, 1, LIMITED, depth) * white
    shown = ToRGB(Colour(1, LIMITED))(frame).reshape(-1, 3).T
    assert np.abs(shown - wanted.clip(0, white)).max() <= 0.5 + 1e-6 * white


def test_planar_names():
    assert planar_format("p010le") == "yuv420p10le"
    assert planar_format("yuv422p") == "yuv422p"
    assert planar_format("rgba") == planar_format("pal8") == "gbrp"

"""Picture files: what is read, what is refused, and what is written."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from iart_plugin.pictures import (
    PIXEL_LIMIT_VARIABLE,
    checked_size,
    encode_png,
    natural_order,
    picture_size,
    picture_sizes,
    read_picture,
    read_pictures,
    write_png,
)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (1, 1, 3)])
def test_written_and_read(tmp_path, dtype, shape):
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype)
    path = tmp_path / "new" / "a.png"
    write_png(path, image)
    read = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert read.dtype == dtype
    assert np.array_equal(read[..., ::-1] if read.ndim == 3 else read, image)
    assert path.read_bytes() == encode_png(image)
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]
    colour = image if image.ndim == 3 else np.repeat(image[..., None], 3, 2)
    assert np.array_equal(read_picture(path, deep=True), colour)
    assert read_picture(path).dtype == np.uint8
    assert picture_size(path) == checked_size(path) == shape[:2]


def test_failure_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    write_png(path, np.zeros((4, 4), np.uint8))
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        write_png(path, np.ones((4, 4), np.uint8))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_pictures_are_upright(tmp_path, suffix, orientation):
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.full((16, 24, 3), 40, np.uint8)
    stored[:8, :8] = 220
    Image.fromarray(stored).save(path, exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB")).astype(int)
    read = read_picture(path)
    assert picture_size(path) == read.shape[:2] == expected.shape[:2]
    assert picture_size(path) == ((24, 16) if orientation > 4 else (16, 24))
    assert np.abs(read - expected).max() < 40


def test_natural_order(tmp_path):
    names = ["f10", "F9", "f1", "frame²", "f٣", "f2 (2)", "f2 (10)"]
    ordered = [p.name for p in natural_order(tmp_path / name for name in names)]
    assert ordered == ["f1", "f2 (2)", "f2 (10)", "f٣", "F9", "f10", "frame²"]


def claimed_png(width, height):
    """A PNG of a few bytes whose header claims any size."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(100))
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def test_large_pictures_are_refused_by_their_header(tmp_path, monkeypatch):
    path = tmp_path / "bomb.png"
    path.write_bytes(claimed_png(20000, 20000))
    for read in (picture_size, read_picture, checked_size):
        with pytest.raises(ValueError, match=rf"bomb\.png is 20000x20000.*{PIXEL_LIMIT_VARIABLE}"):
            read(path)
    monkeypatch.setenv(PIXEL_LIMIT_VARIABLE, str(20000**2))
    assert picture_size(path) == (20000, 20000)
    monkeypatch.setenv(PIXEL_LIMIT_VARIABLE, "many")
    with pytest.raises(ValueError, match="many"):
        picture_size(path)


def test_what_is_no_picture_is_named(tmp_path):
    path = tmp_path / "a.png"
    for content in (b"", b"not a picture", encode_png(np.zeros((9, 9, 3), np.uint8))[:40]):
        path.write_bytes(content)
        for read in (picture_size, read_picture, checked_size):
            if read is picture_size and len(content) == 40:
                continue  # its header is whole
            with pytest.raises(ValueError, match=r"a\.png"):
                read(path)
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        read_picture(tmp_path / "none.png")


def test_checked_size_finds_damage(tmp_path):
    path = tmp_path / "a.png"
    whole = encode_png(np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8))
    path.write_bytes(whole[:60] + bytes([whole[60] ^ 1]) + whole[61:])
    with pytest.raises(ValueError, match=r"a\.png .* damaged"):
        checked_size(path)
    path.write_bytes(whole[:-20])
    with pytest.raises(ValueError, match=r"a\.png .* cut short"):
        checked_size(path)


@pytest.mark.parametrize("suffix", ["png", "webp", "gif", "tif"])
def test_animations(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    pages = [Image.fromarray(np.full((6, 8, 3), 60 * i, np.uint8)) for i in range(3)]
    options = {} if suffix == "tif" else {"duration": [100, 200, 300]}
    options |= {"lossless": True} if suffix == "webp" else {}
    pages[0].save(path, save_all=True, append_images=pages[1:], **options)
    assert picture_sizes(path) == [(6, 8)] * 3
    pictures, seconds = zip(*read_pictures(path), strict=True)
    assert [int(p[0, 0, 0]) for p in pictures] == [0, 60, 120]
    assert seconds == ((None,) * 3 if suffix == "tif" else (0.1, 0.2, 0.3))


def test_pages_of_a_tiff(tmp_path):
    """All 16 bits are kept; a page that is marked as reduced does not count."""
    path = tmp_path / "a.tif"
    pages = [np.full((8, 8, 3), 1000 * i, np.uint16) for i in (1, 2)]
    assert cv2.imwritemulti(str(path), pages)
    assert [int(p[0, 0, 0]) for p, _ in read_pictures(path)] == [1000, 2000]
    large, small = (Image.fromarray(np.zeros((*s, 3), np.uint8)) for s in ((8, 8), (4, 4)))
    large.save(path, save_all=True, append_images=[small])
    assert picture_sizes(path) == [(8, 8), (4, 4)]
    small.encoderinfo = {"tiffinfo": {0xFE: 1}}
    large.save(path, save_all=True, append_images=[small])
    assert picture_sizes(path) == [(8, 8)]

"""Flow files: round trips, the formats' published bytes, and every malformed header by name."""

import os
import struct

import cv2
import numpy as np
import pytest

from iart_plugin.data.flow_io import read_flow, write_flow


@pytest.fixture
def flow():
    return np.random.default_rng(0).normal(0, 20, (7, 5, 2)).astype(np.float32)


def test_flo_round_trip_is_exact(tmp_path, flow):
    write_flow(tmp_path / "a.flo", flow)
    back = read_flow(tmp_path / "a.flo")
    assert back.dtype == np.float32 and back.flags.writeable
    np.testing.assert_array_equal(back, flow)
    assert [p.name for p in tmp_path.iterdir()] == ["a.flo"]


def test_flo_bytes_are_middleburys(tmp_path):
    write_flow(tmp_path / "a.flo", np.array([[[1.5, -2.0], [0.0, 3.0]]]))
    expected = struct.pack("<fii4f", 202021.25, 2, 1, 1.5, -2.0, 0.0, 3.0)
    assert (tmp_path / "a.flo").read_bytes() == expected


@pytest.mark.parametrize("unknown", [1e9, 1e10, -1e9, 1.666666752e9, np.inf, np.nan])
@pytest.mark.parametrize("component", [0, 1])
def test_unknown_vectors_of_a_flo_file_are_no_flow(tmp_path, flow, unknown, component):
    raw = flow.copy()
    raw[2, 3, component] = unknown
    raw[4, 1] = 9.9e8  # large, but a vector
    header = struct.pack("<fii", 202021.25, raw.shape[1], raw.shape[0])
    (tmp_path / "a.flo").write_bytes(header + raw.tobytes())
    back = read_flow(tmp_path / "a.flo")
    assert np.isnan(back[2, 3]).all() and np.isnan(back).sum() == 2
    known = np.isfinite(back)
    np.testing.assert_array_equal(back[known], raw[known])
    write_flow(tmp_path / "b.flo", back)
    np.testing.assert_array_equal(read_flow(tmp_path / "b.flo"), back)
    assert np.frombuffer((tmp_path / "b.flo").read_bytes(), "<f4")[3:].max() == np.float32(1e10)


def test_a_vector_that_would_be_read_as_unknown_is_not_written(tmp_path, flow):
    flow[0, 0, 1] = -1e9
    with pytest.raises(ValueError, match=r"a\.flo.*unknown.*NaN"):
        write_flow(tmp_path / "a.flo", flow)
    assert not list(tmp_path.iterdir())


def test_size_in_the_header_is_limited_before_anything_is_read(tmp_path, monkeypatch):
    path = tmp_path / "a.flo"
    with path.open("wb") as file:
        file.write(b"PIEH" + struct.pack("<ii", 20000, 20000))
        file.truncate(12 + 8 * 20000 * 20000)  # a file with a hole: it takes no space
    with pytest.raises(ValueError, match=r"a\.flo: 20000x20000 is more than .* pixels"):
        read_flow(path)
    png = tmp_path / "a.png"
    png.write_bytes(_png(16, 2, width=20000, height=20000))
    with pytest.raises(ValueError, match=r"a\.png: 20000x20000 is more than .* pixels"):
        read_flow(png)
    write_flow(tmp_path / "b.flo", np.zeros((3, 4, 2)))
    monkeypatch.setenv("IART_PLUGIN_MAX_PIXELS", "11")
    with pytest.raises(ValueError, match=r"4x3 is more than 11 pixels: set IART_PLUGIN_MAX_PIX"):
        read_flow(tmp_path / "b.flo")


def test_what_is_no_file_is_refused(tmp_path):
    (tmp_path / "folder.flo").mkdir()
    os.mkfifo(tmp_path / "pipe.flo")
    for name in ("folder.flo", "pipe.flo"):
        with pytest.raises(ValueError, match=f"{name} is not a file"):
            read_flow(tmp_path / name)


def test_kitti_round_trip(tmp_path, flow):
    flow[2, 3] = np.nan
    write_flow(tmp_path / "a.png", flow)
    back = read_flow(tmp_path / "a.png")
    assert np.isnan(back[2, 3]).all() and np.isnan(back).sum() == 2
    np.testing.assert_allclose(back, flow, atol=1 / 128)


def test_kitti_pixels_are_as_published(tmp_path):
    write_flow(tmp_path / "a.png", np.array([[[1.0, -2.0], [np.nan, 0.0]]]))
    pixels = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)[..., ::-1]  # to RGB
    assert pixels.dtype == np.uint16
    assert pixels[0, 0].tolist() == [32768 + 64, 32768 - 128, 1]
    assert pixels[0, 1, 2] == 0


def _png(depth, colour, width=2, height=1):
    import zlib

    def chunk(name, body):
        body = name + body
        return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "shorter than"),
        (b"PIEH\1\0\0\0", "shorter than"),
        (b"HEIP" + struct.pack(">ii2f", 1, 1, 0, 0), "big-endian"),
        (struct.pack("<fii2f", 202021.0, 1, 1, 0, 0), "instead of"),
        (b"PIEH" + struct.pack("<ii", 0, 4), "impossible size 0x4"),
        (b"PIEH" + struct.pack("<ii", 4, -3), "impossible size 4x-3"),
        (b"PIEH" + struct.pack("<ii", 1 << 30, 1 << 30), "impossible size"),
        (b"PIEH" + struct.pack("<ii3f", 2, 1, 0, 0, 0), "cut short"),
        (b"PIEH" + struct.pack("<ii3f", 1, 1, 0, 0, 0), "too long"),
    ],
)
def test_malformed_flo_is_refused_by_name(tmp_path, content, fault):
    path = tmp_path / "bad.flo"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"bad\.flo.*{fault}"):
        read_flow(path)


def _valid_png(tmp_path):
    write_flow(tmp_path / "good.png", np.zeros((9, 9, 2)))
    return (tmp_path / "good.png").read_bytes()


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda _: b"PIEH" + bytes(20), "not a PNG"),
        (lambda _: _png(8, 2), "8 bits a sample"),
        (lambda _: _png(16, 0), "colour type 0"),
        (lambda _: _png(16, 2, width=0), "impossible size 0x1"),
        (lambda _: _png(16, 2), "cannot be decoded"),
        (lambda good: good[:-20], "cut short"),
        (lambda good: good[:30], "cut short"),
        (lambda good: good[:50] + bytes([good[50] ^ 255]) + good[51:], "damaged"),
        (lambda good: good[:8] + good[33:], "instead of IHDR"),
    ],
)
def test_malformed_kitti_is_refused_by_name(tmp_path, make, fault):
    path = tmp_path / "bad.png"
    path.write_bytes(make(_valid_png(tmp_path)))
    with pytest.raises(ValueError, match=rf"bad\.png.*{fault}"):
        read_flow(path)


def test_what_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a\.flo.*\(h, w, 2\)"):
        write_flow(tmp_path / "a.flo", np.zeros((2, 4, 4)))
    with pytest.raises(ValueError, match=r"a\.png.*600"):
        write_flow(tmp_path / "a.png", np.full((4, 4, 2), 600.0))
    with pytest.raises(ValueError, match=r"a\.npy"):
        write_flow(tmp_path / "a.npy", np.zeros((4, 4, 2)))
    with pytest.raises(FileNotFoundError):
        read_flow(tmp_path / "none.flo")
    assert not list(tmp_path.iterdir())

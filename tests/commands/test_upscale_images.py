"""Folders of images, single images and animations."""

from __future__ import annotations

import struct
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from PIL import Image, features

from iart_plugin.pictures import PIXEL_LIMIT_VARIABLE
from iart_plugin.video.reader import find_images, open_source
from tests.videos import (
    Clip,
    pictures,
    read_back,
    upscale,
    write_clip,
)


def test_folder_to_folder_keeps_names_and_natural_order(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for i in (1, 2, 9, 10, 11):
        cv2.imwrite(str(folder / f"f{i}.png"), np.full((8, 10, 3), 10 * i, np.uint8))
    result = upscale(folder, tmp_path / "out")
    assert result.frames == 5
    names = sorted(p.name for p in (tmp_path / "out").glob("*.png"))
    assert names == sorted(f"f{i}.png" for i in (1, 2, 9, 10, 11))
    for i in (1, 2, 9, 10, 11):
        assert cv2.imread(str(tmp_path / "out" / f"f{i}.png"))[0, 0, 0] == 10 * i
    upscale(str(folder / "*.png"), tmp_path / "out.mkv", lossless=True, fps=Fraction(30000, 1001))
    video = read_back(tmp_path / "out.mkv")
    assert [int(f[0, 0, 0]) for f in video.frames] == [10, 20, 90, 100, 110]
    assert video.video["rate"] == Fraction(30000, 1001)


def test_sixteen_bit_images(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), np.full((4, 4, 3), 12345, np.uint16))
    upscale(folder, tmp_path / "out")
    image = cv2.imread(str(tmp_path / "out" / "a.png"), cv2.IMREAD_UNCHANGED)
    assert image.dtype == np.uint16
    assert (image == 12345).all()


def test_photographs_are_upright(tmp_path):
    """EXIF's orientation 6: the first row of what is stored is the picture's right side."""
    (tmp_path / "in").mkdir()
    stored = np.full((8, 16, 3), 40, np.uint8)
    stored[:2] = 220
    jpeg = cv2.imencode(".jpg", stored)[1].tobytes()
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    (tmp_path / "in" / "a.jpg").write_bytes(jpeg[:2] + segment + jpeg[2:])
    upscale(tmp_path / "in", tmp_path / "out")
    image = cv2.imread(str(tmp_path / "out" / "a.png"))
    assert image.shape == (64, 32, 3)
    assert image[:, -4:].mean() > 150 > image[:, :-16].mean()


@pytest.mark.parametrize("first", [np.uint8, np.uint16])
def test_images_of_two_depths(tmp_path, first):
    (tmp_path / "in").mkdir()
    grey = {np.uint8: 200, np.uint16: 200 * 257}
    for name, dtype in (("a", first), ("b", np.uint8), ("c", np.uint16)):
        picture = np.full((8, 8, 3), grey[dtype], dtype)
        cv2.imwrite(str(tmp_path / "in" / f"{name}.png"), picture)
    upscale(tmp_path / "in", tmp_path / "out")
    for name in "abc":
        image = cv2.imread(str(tmp_path / "out" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        assert image.dtype == first
        assert (image == grey[first]).all()


def test_images_that_would_overwrite_each_other(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "in" / folder / "1.png"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"two.1\.png and .*one.1\.png would both become 1\.png"):
        upscale(tmp_path / "in" / "**" / "*.png", tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]
    assert upscale(tmp_path / "in" / "**" / "*.png", tmp_path / "out.mp4").frames == 2


def test_video_to_images_writes_times(tmp_path):
    clip = Clip(pictures(3), times=[0, 1, 5], rate=Fraction(10))
    upscale(write_clip(tmp_path / "in.mp4", clip), tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.png"))) == 3
    lines = (tmp_path / "out" / "timestamps.txt").read_text().split("\n")
    assert [float(line) for line in lines[1:4]] == [0, 100, 500]


def test_broken_image(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(3):
        cv2.imwrite(str(folder / f"{i}.png"), np.full((4, 4, 3), 50 * i, np.uint8))
    (folder / "1.png").write_bytes(b"not an image")
    assert "frame 1 (1.png)" in upscale(folder, tmp_path / "out").problems[0]
    assert cv2.imread(str(tmp_path / "out" / "1.png")).max() == 0  # frame 0 again


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "webm"])
def test_lossless_is_lossless(tmp_path, suffix):
    folder = tmp_path / "in"
    folder.mkdir()
    noise = np.random.RandomState(0).randint(0, 256, (12, 16, 3), np.uint8)
    cv2.imwrite(str(folder / "a.png"), noise)
    upscale(folder, tmp_path / "png")
    upscale(folder, tmp_path / f"out.{suffix}", lossless=True)
    expected = cv2.imread(str(tmp_path / "png" / "a.png"))[..., ::-1]
    assert (read_back(tmp_path / f"out.{suffix}").frames[0] == expected).all()


def test_lossless_keeps_sixteen_bits(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    noise = np.random.RandomState(0).randint(0, 2**16, (6, 8, 3)).astype(np.uint16)
    cv2.imwrite(str(folder / "a.png"), noise)
    upscale(folder, tmp_path / "png")
    upscale(folder, tmp_path / "out.mkv", lossless=True)
    expected = cv2.imread(str(tmp_path / "png" / "a.png"), cv2.IMREAD_UNCHANGED)[..., ::-1]
    with av.open(str(tmp_path / "out.mkv")) as file:
        frame = next(file.decode(video=0))
        assert frame.format.name == "gbrp16le"
        assert (frame.to_ndarray(format="rgb48le") == expected).all()


@pytest.mark.parametrize("suffix", ["mp4", "webm"])
def test_lossless_that_would_not_be(tmp_path, suffix):
    folder = tmp_path / "in"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), np.zeros((4, 4, 3), np.uint16))
    with pytest.raises(ValueError, match="RGB of 16 bits: write to .mkv"):
        upscale(folder, tmp_path / f"out.{suffix}", lossless=True)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_hidden_files_are_no_frames(tmp_path):
    """A Mac leaves a "._NAME.png" beside every file that it writes to a foreign disk."""
    (tmp_path / "in").mkdir()
    for i in range(3):
        cv2.imwrite(str(tmp_path / "in" / f"f{i}.png"), np.full((8, 8, 3), 50 * i, np.uint8))
        (tmp_path / "in" / f"._f{i}.png").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    for spec in (tmp_path / "in", tmp_path / "in" / "*.png"):
        result = upscale(spec, tmp_path / "out", overwrite=True)
        assert (result.frames, result.problems) == (3, [])


def test_pictures_that_are_left_out_are_named(tmp_path, caplog):
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((8, 8, 3), np.uint8))
    for name in ("3.heic", "2.GIF", "._2.gif", "notes.txt"):
        (tmp_path / name).touch()
    open_source(tmp_path)
    (record,) = caplog.records
    assert "2 of its pictures are left out, such as 2.GIF" in record.getMessage()


@pytest.mark.parametrize(
    ("suffix", "timed"), [("webp", True), ("avif", True), ("png", True), ("tif", False)]
)
def test_animations_are_whole(tmp_path, suffix, timed):
    if suffix == "avif" and not features.check("avif"):
        pytest.skip("this Pillow writes no AVIF")
    source = tmp_path / f"in.{suffix}"
    pages = [Image.fromarray(np.full((24, 32, 3), 50 * i, np.uint8)) for i in range(4)]
    options = {"duration": [100, 200, 100, 300]} if timed else {}
    options |= {"lossless": True} if suffix == "webp" else {}
    pages[0].save(source, save_all=True, append_images=pages[1:], **options)
    assert upscale(source, tmp_path / "out.mkv", lossless=True).frames == 4
    after = read_back(tmp_path / "out.mkv")
    close = 3 if suffix == "avif" else 0
    assert np.abs([f[0, 0, 0] - 50.0 * i for i, f in enumerate(after.frames)]).max() <= close
    times = [0, 100, 300, 400] if timed else [0, 42, 83, 125]
    assert [round(1000 * t) for t in after.times] == times
    upscale(source, tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.png"))) == 4


def test_animation_among_images_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "a.png"), np.zeros((8, 8, 3), np.uint8))
    page = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    page.save(tmp_path / "in" / "b.tif", save_all=True, append_images=[page])
    with pytest.raises(ValueError, match=r"b\.tif holds 2 pictures"):
        upscale(tmp_path / "in", tmp_path / "out.mp4")


def test_sizes_are_compared_before_any_work(tmp_path):
    (tmp_path / "in").mkdir()
    for i, width in enumerate((8, 8, 12)):
        cv2.imwrite(str(tmp_path / "in" / f"{i}.png"), np.zeros((8, width, 3), np.uint8))
    with pytest.raises(ValueError, match=r"2\.png is 12x8, and .*0\.png is 8x8"):
        upscale(tmp_path / "in", tmp_path / "out.mp4")
    page = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page.resize((4, 4))])
    with pytest.raises(ValueError, match=r"page 1 of .*a\.tif is 4x4"):
        upscale(tmp_path / "a.tif", tmp_path / "out.mp4")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif", "in"]


def test_too_large_an_image_is_no_broken_one(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "a.png"), np.zeros((8, 8, 3), np.uint8))
    monkeypatch.setenv(PIXEL_LIMIT_VARIABLE, "63")
    with pytest.raises(ValueError, match=r"a\.png is 8x8, more than 63 pixels"):
        upscale(tmp_path / "in", tmp_path / "out.mp4")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("suffix", "form"), [("mp4", "yuv420p"), ("mov", "yuv420p"), ("webm", "yuv420p"), ("mkv", None)]
)
def test_players_can_show_what_images_become(tmp_path, suffix, form, dtype):
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "a.png"), np.zeros((8, 8, 3), dtype))
    upscale(tmp_path / "in", tmp_path / f"out.{suffix}")
    deep = "yuv444p12le" if dtype == np.uint16 else "yuv444p"
    assert read_back(tmp_path / f"out.{suffix}").video["pix_fmt"] == (form or deep)
    if suffix == "mp4":
        upscale(tmp_path / "in", tmp_path / "asked.mp4", pix_fmt="yuv444p")
        assert read_back(tmp_path / "asked.mp4").video["pix_fmt"] == "yuv444p"


def test_gif_can_be_shown_too(tmp_path):
    pages = [Image.fromarray(np.full((24, 32, 3), 50 * i, np.uint8)) for i in range(3)]
    pages[0].save(tmp_path / "in.gif", save_all=True, append_images=pages[1:], duration=100)
    upscale(tmp_path / "in.gif", tmp_path / "out.mp4")
    after = read_back(tmp_path / "out.mp4")
    assert after.video["pix_fmt"] == "yuv420p"
    assert after.times == [0, Fraction(1, 10), Fraction(2, 10)]


def test_folders_with_brackets_mean_themselves(tmp_path):
    for folder in ("a[1]", "a1"):
        (tmp_path / folder).mkdir()
    cv2.imwrite(str(tmp_path / "a[1]" / "f².png"), np.zeros((8, 8, 3), np.uint8))
    for i in range(2):
        cv2.imwrite(str(tmp_path / "a1" / f"{i}.png"), np.zeros((8, 8, 3), np.uint8))
    assert len(find_images(tmp_path / "a[1]" / "*.png")) == 1
    assert len(find_images(tmp_path / "a[1-9]" / "*.png")) == 2
    assert len(find_images(tmp_path / "a*" / "*.png")) == 3
    assert len(find_images(tmp_path / "a[1]")) == 1

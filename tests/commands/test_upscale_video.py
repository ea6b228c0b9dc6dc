"""The whole way, from a real encoded file to another."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import struct
from fractions import Fraction
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest

from iart_plugin.commands.upscale import UpscaleOptions, upscale_video
from iart_plugin.video.encoding import choose_encoding
from iart_plugin.video.reader import BrokenFrameError, open_source
from tests.videos import Clip, feeding, moving_picture, read_back, write_clip


def run(source, output, **options):
    """Bicubic: the network is not what these tests are about."""
    given = {"model": "bicubic", "device": "cpu", "quiet": True, "chunk": 4, "warm_up": 1}
    return upscale_video(UpscaleOptions(str(source), str(output), **{**given, **options}))


def pictures(count, **options):
    return [moving_picture(i, **options) for i in range(count)]


def psnr(a, b):
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return 10 * np.log10(255**2 / max(error, 1e-12))


def bicubic(frame):
    return cv2.resize(frame, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm", "mov"])
def test_every_container_keeps_frames_and_times(tmp_path, suffix):
    source = write_clip(tmp_path / "in.mp4", Clip(pictures(7)))
    output = tmp_path / f"out.{suffix}"
    result = run(source, output)
    before, after = read_back(source), read_back(output)
    assert result.frames == len(after.frames) == 7
    assert after.video["size"] == (128, 96)
    assert after.video["rate"] == 24
    # Matroska and WebM count in milliseconds.
    slack = 0 if suffix in ("mp4", "mov") else Fraction(1, 1000)
    assert all(abs(a - b) <= slack for a, b in zip(before.times, after.times, strict=True))
    assert psnr(after.frames[3], bicubic(before.frames[3])) > 32
    assert not list(tmp_path.glob("*.unfinished"))


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (23, 31), (24, 33)])
def test_odd_sizes(tmp_path, size):
    frames = pictures(2, height=size[0], width=size[1])
    clip = Clip(frames, pix_fmt="yuv444p", codec="ffv1", options={})
    run(write_clip(tmp_path / "in.mkv", clip), tmp_path / "out.mp4")
    assert read_back(tmp_path / "out.mp4").video["size"] == (4 * size[1], 4 * size[0])


def test_one_frame(tmp_path):
    source = write_clip(tmp_path / "in.mp4", Clip(pictures(1), rate=Fraction(10)))
    assert run(source, tmp_path / "out.mp4").frames == 1
    after = read_back(tmp_path / "out.mp4")
    assert len(after.frames) == 1
    assert after.video["duration"] == Fraction(1, 10)


def test_variable_frame_rate_is_kept(tmp_path):
    times = [0, 40, 45, 200, 201, 207, 500, 530, 533, 1000, 1003]
    clip = Clip(pictures(11), times=times, time_base=Fraction(1, 600), rate=Fraction(10))
    source = write_clip(tmp_path / "in.mp4", clip)
    run(source, tmp_path / "out.mp4", chunk=3)
    before, after = read_back(source), read_back(tmp_path / "out.mp4")
    assert after.times == before.times == [Fraction(t, 600) for t in times]


def test_variable_frame_rate_over_segments(tmp_path, monkeypatch):
    """B frames on both sides of a segment's border, with steps that differ by a factor of 50."""
    monkeypatch.setattr("iart_plugin.commands.upscale.job.SHORTEST_SEGMENT", 4)
    steps = [1, 1, 1, 50, 1, 50, 50, 1, 1, 1, 50, 1, 1, 50, 1, 1, 2, 3, 50]
    times = list(np.cumsum([0, *steps]).tolist())
    clip = Clip(pictures(20), times=times, time_base=Fraction(1, 600), rate=Fraction(24))
    source = write_clip(tmp_path / "in.mp4", clip)
    run(source, tmp_path / "out.mp4")
    assert read_back(tmp_path / "out.mp4").times == read_back(source).times


def test_rational_rate_and_late_start(tmp_path):
    rate = Fraction(24000, 1001)
    clip = Clip(pictures(6), rate=rate, times=list(range(12, 18)))
    source = write_clip(tmp_path / "in.mp4", clip)
    run(source, tmp_path / "out.mp4")
    before, after = read_back(source), read_back(tmp_path / "out.mp4")
    assert after.video["rate"] == rate
    assert after.times == before.times
    assert after.times[1] - after.times[0] == 1 / rate


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_running_clock_of_a_transport_stream(tmp_path, suffix):
    """It stands at ten hours here; sound and picture stay together."""
    hours = {"output_ts_offset": "36000"}
    clip = Clip(pictures(6), audio_seconds=0.25, container_options=hours)
    source = write_clip(tmp_path / "in.ts", clip)
    run(source, tmp_path / f"out.{suffix}")
    before, after = read_back(source), read_back(tmp_path / f"out.{suffix}")
    assert min(before.times) >= 36000
    shift = before.times[0] - after.times[0]
    start = min(before.times[0], before.packet_times["audio"][0])
    assert abs(start - shift) < Fraction(1, 1000)
    for ours, theirs in (
        (after.times, before.times),
        (after.packet_times["audio"], before.packet_times["audio"]),
    ):
        assert len(ours) == len(theirs)
        apart = (abs(a + shift - b) for a, b in zip(ours, theirs, strict=True))
        assert max(apart) <= Fraction(1, 1000)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_joined_recordings(tmp_path, suffix):
    """The clock begins anew in the middle; picture and sound go on."""
    parts = [
        write_clip(tmp_path / f"{i}.ts", Clip(pictures(48, scene=i), audio_seconds=2.0))
        for i in range(2)
    ]
    source = tmp_path / "in.ts"
    source.write_bytes(b"".join(p.read_bytes() for p in parts))
    result = run(source, tmp_path / f"out.{suffix}")
    assert result.problems == ["its clock steps back at frame 48: joined there"]
    after = read_back(tmp_path / f"out.{suffix}")
    assert len(after.times) == 96
    expected = [Fraction(i, 24) for i in range(96)]
    shown = [t - after.times[0] for t in after.times]
    assert max(abs(a - b) for a, b in zip(shown, expected, strict=True)) <= Fraction(1, 900)
    sound = after.packet_times["audio"]
    assert len(sound) == 2 * len(read_back(parts[0]).packet_times["audio"])
    assert all(0 < b - a < Fraction(1, 24) for a, b in itertools.pairwise(sound))


def test_colour_tags_are_carried_over(tmp_path):
    tags = {"color_range": 2, "colorspace": 9, "color_primaries": 9, "color_trc": 16}
    source = write_clip(tmp_path / "in.mp4", Clip(pictures(3), tags=tags))
    for suffix in ("mp4", "mkv"):
        run(source, tmp_path / f"out.{suffix}")
        video = read_back(tmp_path / f"out.{suffix}").video
        assert {k: video[k] for k in tags} == tags


@pytest.mark.parametrize(("size", "matrix"), [((24, 32), 6), ((720, 16), 1)])
def test_untagged_matrix_is_written_down(tmp_path, size, matrix):
    """Or a player would take SD for BT.601 and the result, now HD, for BT.709."""
    frames = [np.full((*size, 3), (200, 60, 30), np.uint8)] * 2
    tags = {"colorspace": 2}
    source = write_clip(tmp_path / "in.mp4", Clip(frames, tags=tags))
    run(source, tmp_path / "out.mp4", chunk=1)
    assert read_back(tmp_path / "out.mp4").video["colorspace"] == matrix


@pytest.mark.parametrize("color_range", [1, 2])
@pytest.mark.parametrize("colorspace", [1, 6, 9])
def test_colours_survive(tmp_path, colorspace, color_range):
    frames = [np.full((24, 32, 3), (210, 60, 25), np.uint8)] * 2
    tags = {"colorspace": colorspace, "color_range": color_range}
    clip = Clip(frames, tags=tags, options={"crf": "0"})
    source = write_clip(tmp_path / "in.mp4", clip)
    run(source, tmp_path / "out.mkv", lossless=True)
    with av.open(str(tmp_path / "out.mkv")) as file:
        picture = next(file.decode(video=0)).to_ndarray(format="rgb24")
    assert np.abs(picture[40, 40].astype(int) - (210, 60, 25)).max() <= 3


def test_ten_bits_stay_ten_bits(tmp_path):
    """A ramp of 10-bit steps is no staircase of 8-bit ones afterwards."""
    ramp = np.linspace(20000, 24000, 64)[None, :, None].repeat(24, 0).repeat(3, 2)
    frames = [ramp.astype(np.uint16)] * 2
    clip = Clip(frames, pix_fmt="yuv420p10le", options={"crf": "0"})
    source = write_clip(tmp_path / "in.mp4", clip)
    run(source, tmp_path / "out.mp4", crf=1, preset="ultrafast")
    with av.open(str(tmp_path / "out.mp4")) as file:
        frame = next(file.decode(video=0))
        assert frame.format.name == "yuv420p10le"
        luma = frame.to_ndarray()[: 24 * 4]
    assert len(np.unique(luma[48])) > 40  # 8 bits have 17 levels here
    assert abs(int(luma[48, 0]) - 331) < 8  # 20000 / 65535 in limited range, 64 + 876 x


@pytest.mark.parametrize("pix_fmt", ["yuv422p", "yuv444p"])
def test_chroma_subsampling_stays(tmp_path, pix_fmt):
    source = write_clip(tmp_path / "in.mp4", Clip(pictures(2), pix_fmt=pix_fmt))
    run(source, tmp_path / "out.mp4")
    assert read_back(tmp_path / "out.mp4").video["pix_fmt"] == pix_fmt


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotation_is_applied(tmp_path, rotation):
    frames = pictures(2)
    clip = Clip(frames, rotation=rotation, sample_aspect_ratio=Fraction(4, 3))
    source = write_clip(tmp_path / "in.mp4", clip)
    run(source, tmp_path / "out.mp4")
    after = read_back(tmp_path / "out.mp4")
    upright = np.rot90(frames[0], rotation // 90)
    assert psnr(after.frames[0], bicubic(upright)) > 30
    assert after.video["aspect"] == (Fraction(4, 3) if rotation == 180 else Fraction(3, 4))
    with av.open(str(tmp_path / "out.mp4")) as file:
        assert next(file.decode(video=0)).rotation == 0


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_audio_is_copied(tmp_path, suffix):
    clip = Clip(pictures(24), audio_seconds=1.0, metadata={"title": "A clip"})
    source = write_clip(tmp_path / "in.mp4", clip)
    run(source, tmp_path / f"out.{suffix}")
    before, after = read_back(source), read_back(tmp_path / f"out.{suffix}")
    assert after.packets["audio"] == before.packets["audio"]
    assert all(abs(a - b) < 0.001 for a, b in zip(before.times, after.times, strict=True))
    slack = 0 if suffix == "mp4" else Fraction(1, 1000)
    for a, b in zip(before.packet_times["audio"], after.packet_times["audio"], strict=True):
        assert abs(a - b) <= slack
    assert {k.lower(): v for k, v in after.metadata.items()}["title"] == "A clip"
    with av.open(str(tmp_path / f"out.{suffix}")) as file:
        assert file.streams.audio[0].language == "eng"


def test_names_with_colons(tmp_path, monkeypatch):
    """Which FFmpeg would take for protocols."""
    monkeypatch.chdir(tmp_path)
    written = write_clip(tmp_path / "in.mp4", Clip(pictures(3), audio_seconds=0.1))
    written.rename("S01E01: Pilot.mp4")
    run("S01E01: Pilot.mp4", "12:30.mkv")
    assert len(read_back(tmp_path / "12:30.mkv").frames) == 3


def test_title_in_another_encoding(tmp_path):
    """AVI's titles come in whatever the writing machine used."""
    clip = Clip(pictures(3), codec="mpeg4", options={}, metadata={"title": "cafeteria"})
    source = write_clip(tmp_path / "in.avi", clip)
    content = source.read_bytes()
    assert b"cafeteria" in content
    source.write_bytes(content.replace(b"cafeteria", "caf\xe9 noir".encode("latin-1")))
    run(source, tmp_path / "out.mkv")
    after = read_back(tmp_path / "out.mkv")
    assert len(after.frames) == 3
    assert after.metadata["title"] == "caf\ufffd noir"


def test_no_audio(tmp_path):
    source = write_clip(tmp_path / "in.mp4", Clip(pictures(3), audio_seconds=0.2))
    run(source, tmp_path / "out.mp4", audio=False)
    assert "audio" not in read_back(tmp_path / "out.mp4").packets


def test_stream_that_the_container_cannot_hold(tmp_path):
    source = write_clip(tmp_path / "in.mp4", Clip(pictures(3), audio_seconds=0.2))
    with pytest.raises(ValueError, match=r"stream 1 .*aac.* webm.*--no-audio"):
        run(source, tmp_path / "out.webm")
    assert not (tmp_path / "out.webm.unfinished").exists()


def test_stream_that_only_the_header_refuses(tmp_path):
    clip = Clip(pictures(3), audio_seconds=0.2, audio_codec="libopus")
    source = write_clip(tmp_path / "in.mkv", clip)
    with pytest.raises(ValueError, match=r"stream 1 .*opus.* mov.*--no-audio"):
        run(source, tmp_path / "out.mov")
    assert [p.name for p in tmp_path.iterdir()] == ["in.mkv"]


@pytest.mark.parametrize(
    ("suffix", "options", "message"),
    [
        ("mp4", {"preset": "fsat"}, "libx264 cannot encode 128x96 .*preset=fsat.*--preset"),
        ("webm", {"codec": "libx264"}, "webm cannot hold what libx264 writes"),
    ],
)
def test_encoder_is_tried_before_any_work(tmp_path, suffix, options, message):
    source = write_clip(tmp_path / "in.mp4", Clip(pictures(3)))
    with pytest.raises(ValueError, match=message):
        run(source, tmp_path / f"out.{suffix}", **options)
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


def test_comparison_is_tried_before_any_work(tmp_path):
    """Beside each other, two of the pictures are wider than x264's 16384 pixels."""
    source = write_clip(tmp_path / "in.mkv", Clip(pictures(1, width=2056), codec="ffv1"))
    with pytest.raises(ValueError, match="--compare side: libx264 cannot encode 16448x96"):
        run(source, tmp_path / "out.mp4", compare="side")
    assert [p.name for p in tmp_path.iterdir()] == ["in.mkv"]


@pytest.mark.parametrize("name", ["out.compare.mp4", "out.compare.png"])
def test_comparison_does_not_overwrite(tmp_path, name):
    source = write_clip(tmp_path / "in.mp4", Clip(pictures(3)))
    (tmp_path / name).touch()
    with pytest.raises(FileExistsError, match=f"{name} exists: pass -y"):
        run(source, tmp_path / "out.mp4", compare="side")
    run(source, tmp_path / "out.mp4", compare="side", overwrite=True)
    assert (tmp_path / name).stat().st_size


SUBTITLES = """1
00:00:00,200 --> 00:00:00,900
Hello

2
00:00:01,000 --> 00:00:01,800
There

"""


def with_subtitles(tmp_path):
    """A Matroska file of a video, French subtitles and a chapter."""
    plain = write_clip(tmp_path / "plain.mp4", Clip(pictures(48)))
    text = tmp_path / "text.srt"
    text.write_text(SUBTITLES)
    source = tmp_path / "in.mkv"
    chapter = {"id": 1, "start": 0, "end": 1000, "time_base": Fraction(1, 1000)}
    with contextlib.ExitStack() as stack:
        video, words = (stack.enter_context(av.open(str(p))) for p in (plain, text))
        file = stack.enter_context(av.open(str(source), "w"))
        v = file.add_stream_from_template(video.streams.video[0])
        s = file.add_stream_from_template(words.streams[0], opaque=True)
        s.metadata["language"] = "fre"
        file.set_chapters([{**chapter, "metadata": {"title": "One"}}])
        for container, target in ((video, v), (words, s)):
            for packet in container.demux():
                if packet.size:
                    packet.stream = target
                    file.mux(packet)
    return source


def test_subtitles_and_chapters_are_copied(tmp_path):
    source = with_subtitles(tmp_path)
    run(source, tmp_path / "out.mkv", chunk=24)
    before, after = read_back(source), read_back(tmp_path / "out.mkv")
    assert len(before.packets["subtitle"]) == 2
    assert after.packets["subtitle"] == before.packets["subtitle"]
    assert after.packet_times["subtitle"] == before.packet_times["subtitle"]
    with av.open(str(tmp_path / "out.mkv")) as file:
        assert file.chapters()[0]["metadata"]["title"] == "One"
        assert file.streams.subtitles[0].language == "fre"
    with pytest.raises(ValueError, match=r"subtitle, .*--no-subtitles"):
        run(source, tmp_path / "out.mp4")
    run(source, tmp_path / "out.mp4", subtitles=False, chunk=24)


def damaged(path, tmp_path, *, keep=None, corrupt=()):
    """A copy cut off after a share of its bytes, or with video packets overwritten."""
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as file:
        positions = [(p.pos, p.size) for p in file.demux(video=0) if p.size]
    for i in corrupt:
        pos, size = positions[i]
        data[pos + 4 : pos + size] = bytes(size - 4)  # its length field stays
    copy = tmp_path / f"damaged_{path.name}"
    copy.write_bytes(data[: int(len(data) * keep)] if keep else data)
    return copy


def intra_clip(count):
    """Every frame a key frame in display order: damage to one is damage to that one."""
    return Clip(pictures(count), options={"crf": "4", "g": "1", "bf": "0"},
                container_options={"movflags": "faststart"})  # fmt: skip


def test_broken_frame_is_concealed_and_named(tmp_path, caplog):
    source = damaged(write_clip(tmp_path / "in.mp4", intra_clip(8)), tmp_path, corrupt=[3])
    result = run(source, tmp_path / "out.mp4")
    assert result.frames == 8
    assert len(result.problems) == 1
    assert "frame 3" in result.problems[0]
    after = read_back(tmp_path / "out.mp4")
    assert after.times == [Fraction(i, 24) for i in range(8)]
    assert psnr(after.frames[3], after.frames[2]) > 38
    assert psnr(after.frames[3], after.frames[4]) < 30


def test_broken_frame_can_be_fatal(tmp_path):
    source = damaged(write_clip(tmp_path / "in.mp4", intra_clip(8)), tmp_path, corrupt=[3])
    with pytest.raises(BrokenFrameError, match="frame 3"):
        run(source, tmp_path / "out.mp4", on_error="fail")
    assert not (tmp_path / "out.mp4").exists()


def test_truncated_file(tmp_path):
    whole = write_clip(tmp_path / "in.mp4", intra_clip(20))
    source = damaged(whole, tmp_path, keep=0.6)
    result = run(source, tmp_path / "out.mp4")
    assert 5 < result.frames < 20
    assert any("20 frames" in p for p in result.problems)
    assert len(read_back(tmp_path / "out.mp4").frames) == result.frames
    with pytest.raises(BrokenFrameError):
        run(source, tmp_path / "fatal.mp4", on_error="fail")


def test_file_without_its_index(tmp_path):
    clip = dataclasses.replace(intra_clip(8), container_options={})  # the index is at the end
    source = damaged(write_clip(tmp_path / "in.mp4", clip), tmp_path, keep=0.6)
    with pytest.raises(ValueError, match="not a video that can be opened"):
        run(source, tmp_path / "out.mp4")


def test_folder_to_folder_keeps_names_and_natural_order(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for i in (1, 2, 9, 10, 11):
        cv2.imwrite(str(folder / f"f{i}.png"), np.full((8, 10, 3), 10 * i, np.uint8))
    result = run(folder, tmp_path / "out")
    assert result.frames == 5
    names = sorted(p.name for p in (tmp_path / "out").glob("*.png"))
    assert names == sorted(f"f{i}.png" for i in (1, 2, 9, 10, 11))
    for i in (1, 2, 9, 10, 11):
        assert cv2.imread(str(tmp_path / "out" / f"f{i}.png"))[0, 0, 0] == 10 * i
    run(str(folder / "*.png"), tmp_path / "out.mkv", lossless=True, fps=Fraction(30000, 1001))
    video = read_back(tmp_path / "out.mkv")
    assert [int(f[0, 0, 0]) for f in video.frames] == [10, 20, 90, 100, 110]
    assert video.video["rate"] == Fraction(30000, 1001)


def test_sixteen_bit_images(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), np.full((4, 4, 3), 12345, np.uint16))
    run(folder, tmp_path / "out")
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
    run(tmp_path / "in", tmp_path / "out")
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
    run(tmp_path / "in", tmp_path / "out")
    for name in "abc":
        image = cv2.imread(str(tmp_path / "out" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        assert image.dtype == first
        assert (image == grey[first]).all()


def test_images_that_would_overwrite_each_other(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "in" / folder / "1.png"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"two.1\.png and .*one.1\.png would both become 1\.png"):
        run(tmp_path / "in" / "**" / "*.png", tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]
    assert run(tmp_path / "in" / "**" / "*.png", tmp_path / "out.mp4").frames == 2


def test_video_to_images_writes_times(tmp_path):
    clip = Clip(pictures(3), times=[0, 1, 5], rate=Fraction(10))
    run(write_clip(tmp_path / "in.mp4", clip), tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.png"))) == 3
    lines = (tmp_path / "out" / "timestamps.txt").read_text().split("\n")
    assert [float(line) for line in lines[1:4]] == [0, 100, 500]


def test_broken_image(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(3):
        cv2.imwrite(str(folder / f"{i}.png"), np.full((4, 4, 3), 50 * i, np.uint8))
    (folder / "1.png").write_bytes(b"not an image")
    assert "frame 1 (1.png)" in run(folder, tmp_path / "out").problems[0]
    assert cv2.imread(str(tmp_path / "out" / "1.png")).max() == 0  # frame 0 again


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "webm"])
def test_lossless_is_lossless(tmp_path, suffix):
    folder = tmp_path / "in"
    folder.mkdir()
    noise = np.random.RandomState(0).randint(0, 256, (12, 16, 3), np.uint8)
    cv2.imwrite(str(folder / "a.png"), noise)
    run(folder, tmp_path / "png")
    run(folder, tmp_path / f"out.{suffix}", lossless=True)
    expected = cv2.imread(str(tmp_path / "png" / "a.png"))[..., ::-1]
    assert (read_back(tmp_path / f"out.{suffix}").frames[0] == expected).all()


def test_lossless_keeps_sixteen_bits(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    noise = np.random.RandomState(0).randint(0, 2**16, (6, 8, 3)).astype(np.uint16)
    cv2.imwrite(str(folder / "a.png"), noise)
    run(folder, tmp_path / "png")
    run(folder, tmp_path / "out.mkv", lossless=True)
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
        run(folder, tmp_path / f"out.{suffix}", lossless=True)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_codec_by_its_own_name(tmp_path):
    """The name "hevc" has libx265's defaults."""
    info = open_source(write_clip(tmp_path / "in.mp4", Clip(pictures(1)))).info
    by_name, encoder = (
        choose_encoding(info, "mp4", info.colour, codec=name) for name in ("hevc", "libx265")
    )
    assert by_name == encoder


@pytest.mark.parametrize(
    ("output", "options"),
    [("out", {"codec": "libx264"}), ("out", {"crf": 1.0}), ("-", {"lossless": True})],
)
def test_options_without_an_encoder(tmp_path, output, options):
    source = write_clip(tmp_path / "in.mp4", Clip(pictures(1)))
    output = output if output == "-" else tmp_path / output
    with pytest.raises(ValueError, match=f"have no encoder: leave out --{next(iter(options))}"):
        run(source, output, **options)


def test_comparison(tmp_path):
    source = write_clip(tmp_path / "in.mp4", Clip(pictures(5)))
    run(source, tmp_path / "side.mp4", compare="side")
    run(source, tmp_path / "slide.mp4", compare="slide")
    assert read_back(tmp_path / "side.compare.mp4").video["size"] == (256, 96)
    assert len(read_back(tmp_path / "slide.compare.mp4").frames) == 5
    assert cv2.imread(str(tmp_path / "side.compare.png")).shape == (96, 256, 3)
    still = cv2.imread(str(tmp_path / "slide.compare.png"))
    assert (still[:, 63:65] == 255).all()  # the dividing line


def test_comparison_has_an_encoder_of_its_own(tmp_path):
    """Another encoder's quality and speed would mean nothing to it."""
    source = write_clip(tmp_path / "in.mp4", Clip(pictures(3)))
    run(source, tmp_path / "out.mp4", codec="libsvtav1", preset="12", crf=60, compare="side")
    assert len(read_back(tmp_path / "out.compare.mp4").frames) == 3


def test_comparison_that_fails_leaves_nothing(tmp_path, monkeypatch):
    source = write_clip(tmp_path / "in.mp4", Clip(pictures(3)))

    def fail(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("iart_plugin.video.compare.combine", fail)
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out.mp4", compare="side")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


@pytest.mark.parametrize(("codec", "deep"), [("hevc_nvenc", "p010le"), ("h264_nvenc", "yuv420p")])
def test_encoders_of_nvidia_gpus(tmp_path, codec, deep):
    """What they are told; only an NVIDIA GPU can open them."""
    if codec not in av.codecs_available:
        pytest.skip("this PyAV was built without it")
    source = write_clip(tmp_path / "in.mkv", Clip(pictures(1), pix_fmt="yuv420p10le", codec="ffv1"))
    info = open_source(source).info
    encoding = choose_encoding(info, "mp4", info.colour, codec=codec, crf=20, preset="p5")
    assert encoding.options == {"rc": "vbr", "b": "0", "cq": "20", "preset": "p5"}
    assert encoding.pix_fmt == deep
    assert choose_encoding(info, "mp4", info.colour, codec=codec).options["cq"] == "19"


def test_dry_run_writes_nothing(tmp_path, capsys):
    source = write_clip(tmp_path / "in.mp4", Clip(pictures(5)))
    run(source, tmp_path / "out.mp4", dry_run=True)
    text = capsys.readouterr().out
    assert "32x24, 5 frames, 24 fps" in text
    assert "128x96" in text
    assert "memory" in text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4"]


def test_pipe_in(tmp_path, monkeypatch):
    """From a pipe that cannot be rewound, with the sound that can only be read once."""
    clip = Clip(pictures(24), audio_seconds=1.0)
    source = write_clip(tmp_path / "in.mkv", clip)
    with feeding(source.read_bytes()) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        result = run("-", tmp_path / "out.mkv")
    assert result.frames == 24
    before, after = read_back(source), read_back(tmp_path / "out.mkv")
    assert after.packets["audio"] == before.packets["audio"]
    assert after.packet_times["audio"] == before.packet_times["audio"]
    assert after.times == before.times


def test_pipe_with_a_stream_that_cannot_be_stored(tmp_path, monkeypatch):
    source = write_clip(tmp_path / "in.mkv", Clip(pictures(24), audio_seconds=1.0))
    with feeding(source.read_bytes()) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        with pytest.raises(ValueError, match=r"stream 1 .*aac.* webm.*--no-audio"):
            run("-", tmp_path / "out.webm")
    assert [p.name for p in tmp_path.iterdir()] == ["in.mkv"]


class PipeEnd:
    """Can be written to and nothing else."""

    def __init__(self, file):
        self.write, self.flush = file.write, file.flush


@pytest.mark.parametrize("form", ["y4m", "nut"])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
def test_pipe_out(tmp_path, form, pix_fmt, monkeypatch):
    times = [0, 1, 2, 5, 6, 7] if form == "nut" else None
    clip = Clip(pictures(6), rate=Fraction(25), pix_fmt=pix_fmt, times=times)
    source = write_clip(tmp_path / "in.mp4", clip)
    piped = tmp_path / f"out.{form}"
    with piped.open("wb") as file:
        monkeypatch.setattr("sys.stdout", SimpleNamespace(buffer=PipeEnd(file)))
        run(source, "-", pipe_format=form)
    after = read_back(piped)
    assert after.video["size"] == (128, 96)
    assert after.video["pix_fmt"] == pix_fmt
    assert times or after.video["rate"] == 25
    assert after.times == [Fraction(t, 25) for t in times or range(6)]

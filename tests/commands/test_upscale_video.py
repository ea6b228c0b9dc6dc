"""The whole way, from a real encoded file to another."""

from __future__ import annotations

import itertools
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from iart_plugin.video.encoding import choose_encoding
from iart_plugin.video.reader import open_source
from tests.videos import (
    Clip,
    bicubic,
    pictures,
    psnr,
    read_back,
    upscale,
    write_clip,
)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm", "mov"])
def test_every_container_keeps_frames_and_times(tmp_path, suffix):
    source = write_clip(tmp_path / "in.mp4", Clip(pictures(7)))
    output = tmp_path / f"out.{suffix}"
    result = upscale(source, output)
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
    upscale(write_clip(tmp_path / "in.mkv", clip), tmp_path / "out.mp4")
    assert read_back(tmp_path / "out.mp4").video["size"] == (4 * size[1], 4 * size[0])


def test_one_frame(tmp_path):
    source = write_clip(tmp_path / "in.mp4", Clip(pictures(1), rate=Fraction(10)))
    assert upscale(source, tmp_path / "out.mp4").frames == 1
    after = read_back(tmp_path / "out.mp4")
    assert len(after.frames) == 1
    assert after.video["duration"] == Fraction(1, 10)


def test_variable_frame_rate_is_kept(tmp_path):
    times = [0, 40, 45, 200, 201, 207, 500, 530, 533, 1000, 1003]
    clip = Clip(pictures(11), times=times, time_base=Fraction(1, 600), rate=Fraction(10))
    source = write_clip(tmp_path / "in.mp4", clip)
    upscale(source, tmp_path / "out.mp4", chunk=3)
    before, after = read_back(source), read_back(tmp_path / "out.mp4")
    assert after.times == before.times == [Fraction(t, 600) for t in times]


def test_variable_frame_rate_over_segments(tmp_path, monkeypatch):
    """B frames on both sides of a segment's border, with steps that differ by a factor of 50."""
    monkeypatch.setattr("iart_plugin.commands.upscale.job.SHORTEST_SEGMENT", 4)
    steps = [1, 1, 1, 50, 1, 50, 50, 1, 1, 1, 50, 1, 1, 50, 1, 1, 2, 3, 50]
    times = list(np.cumsum([0, *steps]).tolist())
    clip = Clip(pictures(20), times=times, time_base=Fraction(1, 600), rate=Fraction(24))
    source = write_clip(tmp_path / "in.mp4", clip)
    upscale(source, tmp_path / "out.mp4")
    assert read_back(tmp_path / "out.mp4").times == read_back(source).times


def test_rational_rate_and_late_start(tmp_path):
    rate = Fraction(24000, 1001)
    clip = Clip(pictures(6), rate=rate, times=list(range(12, 18)))
    source = write_clip(tmp_path / "in.mp4", clip)
    upscale(source, tmp_path / "out.mp4")
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
    upscale(source, tmp_path / f"out.{suffix}")
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
    result = upscale(source, tmp_path / f"out.{suffix}")
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
        upscale(source, tmp_path / f"out.{suffix}")
        video = read_back(tmp_path / f"out.{suffix}").video
        assert {k: video[k] for k in tags} == tags


@pytest.mark.parametrize(("size", "matrix"), [((24, 32), 6), ((720, 16), 1)])
def test_untagged_matrix_is_written_down(tmp_path, size, matrix):
    """Or a player would take SD for BT.601 and the result, now HD, for BT.709."""
    frames = [np.full((*size, 3), (200, 60, 30), np.uint8)] * 2
    tags = {"colorspace": 2}
    source = write_clip(tmp_path / "in.mp4", Clip(frames, tags=tags))
    upscale(source, tmp_path / "out.mp4", chunk=1)
    assert read_back(tmp_path / "out.mp4").video["colorspace"] == matrix


@pytest.mark.parametrize("color_range", [1, 2])
@pytest.mark.parametrize("colorspace", [1, 6, 9])
def test_colours_survive(tmp_path, colorspace, color_range):
    frames = [np.full((24, 32, 3), (210, 60, 25), np.uint8)] * 2
    tags = {"colorspace": colorspace, "color_range": color_range}
    clip = Clip(frames, tags=tags, options={"crf": "0"})
    source = write_clip(tmp_path / "in.mp4", clip)
    upscale(source, tmp_path / "out.mkv", lossless=True)
    with av.open(str(tmp_path / "out.mkv")) as file:
        picture = next(file.decode(video=0)).to_ndarray(format="rgb24")
    assert np.abs(picture[40, 40].astype(int) - (210, 60, 25)).max() <= 3


def test_ten_bits_stay_ten_bits(tmp_path):
    """A ramp of 10-bit steps is no staircase of 8-bit ones afterwards."""
    ramp = np.linspace(20000, 24000, 64)[None, :, None].repeat(24, 0).repeat(3, 2)
    frames = [ramp.astype(np.uint16)] * 2
    clip = Clip(frames, pix_fmt="yuv420p10le", options={"crf": "0"})
    source = write_clip(tmp_path / "in.mp4", clip)
    upscale(source, tmp_path / "out.mp4", crf=1, preset="ultrafast")
    with av.open(str(tmp_path / "out.mp4")) as file:
        frame = next(file.decode(video=0))
        assert frame.format.name == "yuv420p10le"
        luma = frame.to_ndarray()[: 24 * 4]
    assert len(np.unique(luma[48])) > 40  # 8 bits have 17 levels here
    assert abs(int(luma[48, 0]) - 331) < 8  # 20000 / 65535 in limited range, 64 + 876 x


@pytest.mark.parametrize("pix_fmt", ["yuv422p", "yuv444p"])
def test_chroma_subsampling_stays(tmp_path, pix_fmt):
    source = write_clip(tmp_path / "in.mp4", Clip(pictures(2), pix_fmt=pix_fmt))
    upscale(source, tmp_path / "out.mp4")
    assert read_back(tmp_path / "out.mp4").video["pix_fmt"] == pix_fmt


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotation_is_applied(tmp_path, rotation):
    frames = pictures(2)
    clip = Clip(frames, rotation=rotation, sample_aspect_ratio=Fraction(4, 3))
    source = write_clip(tmp_path / "in.mp4", clip)
    upscale(source, tmp_path / "out.mp4")
    after = read_back(tmp_path / "out.mp4")
    upright = np.rot90(frames[0], rotation // 90)
    assert psnr(after.frames[0], bicubic(upright)) > 30
    assert after.video["aspect"] == (Fraction(4, 3) if rotation == 180 else Fraction(3, 4))
    with av.open(str(tmp_path / "out.mp4")) as file:
        assert next(file.decode(video=0)).rotation == 0


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
        upscale(source, tmp_path / f"out.{suffix}", **options)
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


def test_comparison_is_tried_before_any_work(tmp_path):
    """Beside each other, two of the pictures are wider than x264's 16384 pixels."""
    source = write_clip(tmp_path / "in.mkv", Clip(pictures(1, width=2056), codec="ffv1"))
    with pytest.raises(ValueError, match="--compare side: libx264 cannot encode 16448x96"):
        upscale(source, tmp_path / "out.mp4", compare="side")
    assert [p.name for p in tmp_path.iterdir()] == ["in.mkv"]


@pytest.mark.parametrize("name", ["out.compare.mp4", "out.compare.png"])
def test_comparison_does_not_overwrite(tmp_path, name):
    source = write_clip(tmp_path / "in.mp4", Clip(pictures(3)))
    (tmp_path / name).touch()
    with pytest.raises(FileExistsError, match=f"{name} exists: pass -y"):
        upscale(source, tmp_path / "out.mp4", compare="side")
    upscale(source, tmp_path / "out.mp4", compare="side", overwrite=True)
    assert (tmp_path / name).stat().st_size


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
        upscale(source, output, **options)


def test_comparison(tmp_path):
    source = write_clip(tmp_path / "in.mp4", Clip(pictures(5)))
    upscale(source, tmp_path / "side.mp4", compare="side")
    upscale(source, tmp_path / "slide.mp4", compare="slide")
    assert read_back(tmp_path / "side.compare.mp4").video["size"] == (256, 96)
    assert len(read_back(tmp_path / "slide.compare.mp4").frames) == 5
    assert cv2.imread(str(tmp_path / "side.compare.png")).shape == (96, 256, 3)
    still = cv2.imread(str(tmp_path / "slide.compare.png"))
    assert (still[:, 63:65] == 255).all()  # the dividing line


def test_comparison_has_an_encoder_of_its_own(tmp_path):
    """Another encoder's quality and speed would mean nothing to it."""
    source = write_clip(tmp_path / "in.mp4", Clip(pictures(3)))
    upscale(source, tmp_path / "out.mp4", codec="libsvtav1", preset="12", crf=60, compare="side")
    assert len(read_back(tmp_path / "out.compare.mp4").frames) == 3


def test_comparison_leaves_other_files_alone(tmp_path):
    source = write_clip(tmp_path / "in.mp4", Clip(pictures(2)))
    others = [tmp_path / f"out.compare.mp4{end}" for end in (".packets", ".part", ".tmp")]
    for other in others:
        other.write_text("somebody's")
    upscale(source, tmp_path / "out.mp4", compare="side")
    assert all(other.read_text() == "somebody's" for other in others)
    made = {"in.mp4", "out.mp4", "out.compare.mp4", "out.compare.png"}
    assert {p.name for p in tmp_path.iterdir()} == made | {other.name for other in others}


def test_comparison_that_fails_leaves_nothing(tmp_path, monkeypatch):
    source = write_clip(tmp_path / "in.mp4", Clip(pictures(3)))

    def fail(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("iart_plugin.video.compare.combine", fail)
    with pytest.raises(KeyboardInterrupt):
        upscale(source, tmp_path / "out.mp4", compare="side")
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
    upscale(source, tmp_path / "out.mp4", dry_run=True)
    text = capsys.readouterr().out
    assert "32x24, 5 frames, 24 fps" in text
    assert "128x96" in text
    assert "memory" in text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4"]

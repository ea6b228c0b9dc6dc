"""Films that are damaged, or end before their end."""

from __future__ import annotations

import contextlib
import dataclasses
from fractions import Fraction

import av
import numpy as np
import pytest

from iart_plugin.video.reader import BrokenFrameError, open_source
from tests.videos import (
    Clip,
    damaged,
    intra_clip,
    moving_picture,
    pictures,
    probed_times,
    psnr,
    read_back,
    upscale,
    write_clip,
)


def test_broken_frame_is_concealed_and_named(tmp_path, caplog):
    source = damaged(write_clip(tmp_path / "in.mp4", intra_clip(8)), tmp_path, corrupt=[3])
    result = upscale(source, tmp_path / "out.mp4")
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
        upscale(source, tmp_path / "out.mp4", on_error="fail")
    assert not (tmp_path / "out.mp4").exists()


def test_truncated_file(tmp_path):
    whole = write_clip(tmp_path / "in.mp4", intra_clip(20))
    source = damaged(whole, tmp_path, keep=0.6)
    result = upscale(source, tmp_path / "out.mp4")
    assert 5 < result.frames < 20
    assert any("20 frames" in p for p in result.problems)
    assert len(read_back(tmp_path / "out.mp4").frames) == result.frames
    with pytest.raises(BrokenFrameError):
        upscale(source, tmp_path / "fatal.mp4", on_error="fail")


def test_file_without_its_index(tmp_path):
    clip = dataclasses.replace(intra_clip(8), container_options={})  # the index is at the end
    source = damaged(write_clip(tmp_path / "in.mp4", clip), tmp_path, keep=0.6)
    with pytest.raises(ValueError, match="not a video that can be opened"):
        upscale(source, tmp_path / "out.mp4")


@pytest.mark.parametrize("suffix", ["mkv", "webm", "mp4", "mov", "avi"])
@pytest.mark.parametrize("keep", [0.6, 0.97])
def test_files_that_were_cut_short(tmp_path, suffix, keep):
    """By what the container says of its size or its index, and before any work."""
    codec = {"webm": "libvpx-vp9", "avi": "mpeg4"}.get(suffix, "libx264")
    options = {"movflags": "faststart"} if suffix in ("mp4", "mov") else {}
    frames = pictures(30, height=96, width=128)
    clip = Clip(frames, codec=codec, options={"g": "5"}, container_options=options)
    whole = write_clip(tmp_path / f"in.{suffix}", clip)
    assert upscale(whole, tmp_path / "whole.mkv").problems == []
    source = damaged(whole, tmp_path, keep=keep)
    result = upscale(source, tmp_path / "out.mkv")
    assert any("cut short" in problem for problem in result.problems)
    assert len(read_back(tmp_path / "out.mkv").frames) == result.frames > 0
    with pytest.raises(BrokenFrameError, match="cut short"):
        upscale(source, tmp_path / "fatal.mkv", on_error="fail")


def test_recording_of_unknown_size_that_was_cut_short(tmp_path):
    """Its duration is all that says so."""
    whole = write_clip(tmp_path / "in.mkv", Clip(pictures(72), options={"g": "5"}))
    data = bytearray(whole.read_bytes())
    segment = data.index(b"\x18\x53\x80\x67")
    data[segment + 4 : segment + 12] = b"\x01" + b"\xff" * 7
    for share, problems in ((1.0, 0), (0.4, 1)):
        source = tmp_path / f"{share}.mkv"
        source.write_bytes(data[: int(share * len(data))])
        found = upscale(source, tmp_path / f"{share}.out.mkv").problems
        assert sum("cut short" in p for p in found) == problems


def test_sound_that_goes_on_is_no_missing_film(tmp_path):
    clip = Clip(pictures(12), audio_seconds=3.0)
    for suffix in ("mkv", "mp4", "mov", "ts"):
        source = write_clip(tmp_path / f"in.{suffix}", clip)
        assert upscale(source, tmp_path / f"{suffix}.mkv", on_error="fail").problems == []


def capture_avi(path, dropped):
    """A capture card's AVI: its header counts the frames that it dropped, too."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuvj420p"
        for index, picture in enumerate(pictures(30)):
            if index not in dropped:
                frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuvj420p")
                frame.pts, frame.time_base = index, Fraction(1, 25)
                file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("dropped", [(8, 9, 10, 20), (28, 29)])
def test_counts_in_headers_are_hints(tmp_path, dropped):
    source = capture_avi(tmp_path / "in.avi", dropped)
    result = upscale(source, tmp_path / "out.mkv", on_error="fail")
    assert (result.frames, result.problems) == (30 - len(dropped), [])
    after = read_back(tmp_path / "out.mkv")
    first = next(i for i in range(30) if i not in dropped)
    expected = [Fraction(i - first, 25) for i in range(30) if i not in dropped]
    assert all(
        abs(a - after.times[0] - b) <= Fraction(1, 900)
        for a, b in zip(after.times, expected, strict=True)
    )


def packed_avi(path, count=24):
    """MPEG-4 as DivX 5 stored it: a P and a B picture in one packet, then a packet of neither."""
    encoder = av.CodecContext.create("mpeg4", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 64, 48, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
    encoder.max_b_frames, encoder.options = 1, {"b_strategy": "0", "g": "12"}
    coded = []
    for index in range(count):
        frame = av.VideoFrame.from_ndarray(moving_picture(index, 48, 64), "rgb24")
        frame = frame.reformat(format="yuv420p")
        frame.pts, frame.time_base = index, encoder.time_base
        coded += [bytes(p) for p in encoder.encode(frame)]
    coded += [bytes(p) for p in encoder.encode(None)]

    def kind(data):
        return data[data.find(b"\0\0\1\xb6") + 4] >> 6

    packets, index = [], 0
    while index < len(coded):
        data = coded[index]
        if kind(data) == 0:
            place = data.find(b"\0\0\1\xb6")
            data = data[:place] + b"\0\0\1\xb2DivX503b1393p" + data[place:]
        if index + 1 < len(coded) and kind(coded[index + 1]) == 2:
            packets += [data + coded[index + 1], b"\0\0\1\xb6\x50\0\x7f"]
            index += 2
        else:
            packets.append(data)
            index += 1
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.codec_tag = "DX50"
        for number, data in enumerate(packets):
            packet = av.Packet(data)
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = number
            packet.is_keyframe = kind(data) == 0
            file.mux(packet)
    return path


@pytest.mark.parametrize("kind", ["packed", "h264", "mpeg4"])
def test_display_times_of_old_avi_files(tmp_path, kind):
    """They are one frame apart, as ffprobe shows them, where the decoder's go back and forth."""
    source = tmp_path / "in.avi"
    if kind == "packed":
        packed_avi(source)
    else:
        codec, options = {
            "h264": ("libx264", {"bf": "3", "b_strategy": "0"}), "mpeg4": ("mpeg4", {"bf": "2"}),
        }[kind]  # fmt: skip
        write_clip(source, Clip(pictures(24), rate=Fraction(25), codec=codec, options=options))
    upscale(source, tmp_path / "out.mkv")
    times = [float(t) for t in read_back(tmp_path / "out.mkv").times]
    steps = np.diff(times)
    assert np.abs(steps - 0.04).max() < 0.002
    probed = probed_times(source)
    if probed is not None:
        assert np.abs(np.array(times[: len(probed)]) - probed).max() < 0.002


def interlaced(tmp_path):
    """A pan whose two fields of a frame are half a frame apart in time."""
    frames = []
    for index in range(8):
        top, bottom = (moving_picture(6 * index + 3 * field, 48, 64) for field in (0, 1))
        frame = top.copy()
        frame[1::2] = bottom[1::2]
        frames.append(frame)
    options = {"flags": "+ilme+ildct", "top": "1", "b": "4000000"}
    source = tmp_path / "in.mpg"
    with av.open(str(source), "w") as file:
        stream = file.add_stream("mpeg2video", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.bit_rate = 4_000_000
        for index, picture in enumerate(frames):
            shown = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(
                format="yuv420p", interpolation="POINT"
            )
            shown.pts, shown.time_base = index, Fraction(1, 25)
            file.mux(stream.encode(shown))
        file.mux(stream.encode(None))
    return source


def combing(frames):
    """How far rows are from the mean of their neighbours, by the picture's own contrast."""
    y = np.stack(frames).astype(np.float64).mean(-1)
    return (
        np.abs(y[:, 1:-1] - (y[:, :-2] + y[:, 2:]) / 2).mean() / np.abs(np.diff(y, axis=2)).mean()
    )


def test_interlaced_frames_are_made_whole(tmp_path):
    source = interlaced(tmp_path)
    shown = {}
    for choice in ("auto", "off"):
        with contextlib.closing(open_source(source, deinterlace=choice)) as film:
            frames = list(film)
        assert len(frames) == 8
        assert [f.index for f in frames] == list(range(8))
        steps = np.diff([f.pts for f in frames])
        assert (steps == steps[0]).all()
        shown[choice] = [f.rgb for f in frames]
    assert combing(shown["auto"][1:-1]) < combing(shown["off"][1:-1]) / 2
    upscale(source, tmp_path / "out.mp4", deinterlace="auto")
    assert len(read_back(tmp_path / "out.mp4").frames) == 8

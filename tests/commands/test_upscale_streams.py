"""Sound, subtitles, covers, tags and all else that a film has beside its pictures."""

from __future__ import annotations

import contextlib
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from iart_plugin.video import muxing
from iart_plugin.video.containers import open_container
from tests.videos import Clip, pictures, read_back, remux, upscale, write_clip


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_audio_is_copied(tmp_path, suffix):
    clip = Clip(pictures(24), audio_seconds=1.0, metadata={"title": "A clip"})
    source = write_clip(tmp_path / "in.mp4", clip)
    upscale(source, tmp_path / f"out.{suffix}")
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
    upscale("S01E01: Pilot.mp4", "12:30.mkv")
    assert len(read_back(tmp_path / "12:30.mkv").frames) == 3


def test_title_in_another_encoding(tmp_path):
    """AVI's titles come in whatever the writing machine used."""
    clip = Clip(pictures(3), codec="mpeg4", options={}, metadata={"title": "cafeteria"})
    source = write_clip(tmp_path / "in.avi", clip)
    content = source.read_bytes()
    assert b"cafeteria" in content
    source.write_bytes(content.replace(b"cafeteria", "caf\xe9 noir".encode("latin-1")))
    upscale(source, tmp_path / "out.mkv")
    after = read_back(tmp_path / "out.mkv")
    assert len(after.frames) == 3
    assert after.metadata["title"] == "caf\ufffd noir"


def test_no_audio(tmp_path):
    source = write_clip(tmp_path / "in.mp4", Clip(pictures(3), audio_seconds=0.2))
    upscale(source, tmp_path / "out.mp4", audio=False)
    assert "audio" not in read_back(tmp_path / "out.mp4").packets


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
    upscale(source, tmp_path / "out.mkv", chunk=24)
    before, after = read_back(source), read_back(tmp_path / "out.mkv")
    assert len(before.packets["subtitle"]) == 2
    assert after.packets["subtitle"] == before.packets["subtitle"]
    assert after.packet_times["subtitle"] == before.packet_times["subtitle"]
    with av.open(str(tmp_path / "out.mkv")) as file:
        assert file.chapters()[0]["metadata"]["title"] == "One"
        assert file.streams.subtitles[0].language == "fre"
    upscale(source, tmp_path / "out.mp4", chunk=24)
    assert "subtitle" in read_back(tmp_path / "out.mp4").packets
    upscale(source, tmp_path / "none.mp4", subtitles=False, chunk=24)
    assert "subtitle" not in read_back(tmp_path / "none.mp4").packets


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_chapters_of_mp4_are_kept_without_a_warning(tmp_path, caplog, suffix):
    """FFmpeg shows the track that they are stored in as a stream of data, too."""
    source = write_clip(tmp_path / "in.mp4", Clip(pictures(30)))

    def add_chapters(file, streams):
        file.set_chapters([
            {"id": i, "start": i * 500, "end": i * 500 + 500, "time_base": Fraction(1, 1000),
             "metadata": {"title": f"Part {i}"}}
            for i in range(2)
        ])  # fmt: skip

    source = remux([source], tmp_path / "chapters.mp4", edit=add_chapters)
    with av.open(str(source)) as file:
        assert len(file.streams) == 2
    upscale(source, tmp_path / f"out.{suffix}")
    assert not caplog.records
    with av.open(str(tmp_path / f"out.{suffix}")) as file:
        assert [one["metadata"]["title"] for one in file.chapters()] == ["Part 0", "Part 1"]


def film_with(path, codec, rate=44100):
    """Half a second of pictures with a tone in any codec."""
    video = {".avi": "mpeg4", ".vob": "mpeg2video"}.get(path.suffix, "libx264")
    with av.open(str(path), "w") as file:
        film, sound = file.add_stream(video, rate=25), file.add_stream(codec, rate=rate)
        film.width, film.height, film.pix_fmt = 32, 24, "yuv420p"
        sound.codec_context.layout, sound.codec_context.bit_rate = "stereo", 128_000
        tone = 0.3 * np.sin(np.arange(rate // 2) * 2 * np.pi * 440 / rate)
        both = np.tile(tone.astype(np.float32), (2, 1))
        frame = av.AudioFrame.from_ndarray(both, "fltp", "stereo")
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        for index, picture in enumerate(pictures(12)):
            shown = av.VideoFrame.from_ndarray(picture, "rgb24")
            shown.pts, shown.time_base = index, Fraction(1, 25)
            file.mux(film.encode(shown))
        file.mux([*film.encode(None), *sound.encode(frame), *sound.encode(None)])
    return path


def sound_of(path):
    """Codec, layout and seconds of a file's sound, which is decoded to its end."""
    with av.open(str(path)) as file:
        context = file.streams.audio[0].codec_context
        frames = list(file.decode(audio=0))
        samples = sum(f.samples for f in frames)
        loud = np.abs(frames[len(frames) // 2].to_ndarray()).max() > 0
        return context.name, context.layout.nb_channels, samples / context.sample_rate, loud


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm"])
@pytest.mark.parametrize(
    ("codec", "holder", "kept"),
    [
        ("pcm_s16le", "avi", {"mp4", "mov", "mkv"}),  # AVI does not name the channels
        ("wmav2", "avi", {"mkv"}),
        ("adpcm_ms", "avi", {"mkv"}),
        ("pcm_mulaw", "avi", {"mkv", "mov"}),
        ("pcm_dvd", "vob", set()),
        ("ac3", "mkv", {"mp4", "mov", "mkv"}),
        ("libopus", "mkv", {"mp4", "mkv", "webm"}),
    ],
)
def test_sound_reaches_every_container(tmp_path, caplog, codec, holder, kept, suffix):
    """It is copied where FFmpeg's muxer can, and otherwise encoded anew with a line saying so."""
    rate = 48000 if codec in ("pcm_dvd", "libopus") else 44100
    source = film_with(tmp_path / f"in.{holder}", codec, rate)
    with caplog.at_level("INFO", logger="iart_plugin"):
        upscale(source, tmp_path / f"out.{suffix}")
    name, channels, seconds, loud = sound_of(tmp_path / f"out.{suffix}")
    assert (channels, loud) == (2, True)
    assert abs(seconds - 0.5) < 0.1
    said = [r.message for r in caplog.records if "is encoded as" in r.message]
    before = sound_of(source)[0]
    assert (name == before) == (not said)
    if suffix in kept:
        assert name == before
    assert not [r for r in caplog.records if "cannot keep" in r.message]


def test_sound_is_encoded_on_demand(tmp_path):
    """Of lossless sound, Matroska gets a lossless form."""
    source = film_with(tmp_path / "in.mkv", "pcm_s16le")
    upscale(source, tmp_path / "out.mkv", audio="encode")
    upscale(source, tmp_path / "out.mp4", audio="encode")
    assert sound_of(tmp_path / "out.mkv")[0] == "flac"
    assert sound_of(tmp_path / "out.mp4")[0] == "aac"
    with av.open(str(source)) as before, av.open(str(tmp_path / "out.mkv")) as after:
        a, b = (
            np.concatenate([f.to_ndarray().reshape(-1) for f in file.decode(audio=0)])
            for file in (before, after)
        )
    assert np.array_equal(a, b)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_encoded_sound_keeps_its_time(tmp_path, suffix):
    """Also a hole in it, which becomes silence."""
    film = write_clip(tmp_path / "film.mp4", Clip(pictures(24), audio_seconds=2.0))
    source = tmp_path / "in.mkv"
    with av.open(str(film)) as container, av.open(str(source), "w") as file:
        targets = [file.add_stream_from_template(s, opaque=True) for s in container.streams]
        for packet in container.demux():
            in_hole = packet.stream.type == "audio" and 0.5 < (packet.pts or 0) / 48000 < 1
            if packet.size and not in_hole:
                packet.stream = targets[packet.stream.index]
                file.mux(packet)
    upscale(source, tmp_path / f"out.{suffix}", audio="encode")
    with av.open(str(tmp_path / f"out.{suffix}")) as file:
        rate = file.streams.audio[0].codec_context.sample_rate
        level = np.zeros(3 * rate)
        for frame in file.decode(audio=0):
            start = round(frame.pts * frame.time_base * rate)
            samples = np.abs(frame.to_ndarray()).max(0)
            level[max(start, 0) : start + len(samples)] = samples[max(-start, 0) :]
    heard = [level[round(t * rate) :][: rate // 10].max() > 0.05 for t in (0.3, 0.7, 1.3, 1.8)]
    assert heard == [True, False, True, True]


def damaged_ts(tmp_path, number=5):
    """A transport stream, one of whose AAC packets has lost its sync word."""
    source = write_clip(tmp_path / "whole.ts", Clip(pictures(48), audio_seconds=2.0))
    data, seen = bytearray(source.read_bytes()), 0
    for start in range(0, len(data), 188):
        packet = (data[start + 1] & 31) << 8 | data[start + 2]
        if packet == 0x101 and data[start + 1] & 0x40:
            seen += 1
            if seen == number:
                place = data.find(b"\xff\xf1", start, start + 188)
                data[place : place + 2] = bytes(2)
    assert seen > number
    path = tmp_path / "in.ts"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("audio", ["copy", "encode"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
def test_damaged_sound_is_dropped(tmp_path, caplog, suffix, audio):
    source = damaged_ts(tmp_path)
    upscale(source, tmp_path / f"out.{suffix}", audio=audio, chunk=24)
    after = read_back(tmp_path / f"out.{suffix}")
    assert len(after.frames) == 48
    assert len(after.packets["audio"]) > 60
    said = [r.message for r in caplog.records if "damaged packet" in r.message]
    assert len(said) == 1
    assert "audio" in said[0]


@pytest.mark.parametrize("part", ["stream", "tags"])
def test_last_step_never_costs_the_film(tmp_path, monkeypatch, caplog, part):
    """What is refused when all is upscaled is left out, and the film is there."""
    source = write_clip(
        tmp_path / "in.mp4", Clip(pictures(6), audio_seconds=0.3, metadata={"title": "A"})
    )
    whole = muxing._Muxer.write
    bad = {"stream": lambda extras: 1 in extras._ways, "tags": lambda extras: extras.keep_tags}

    def write(self, extras):
        whole(self, extras)
        if "assembled" in self._output.name and extras and bad[part](extras):
            raise av.ArgumentError(22, "Invalid argument")

    monkeypatch.setattr(muxing._Muxer, "write", write)
    upscale(source, tmp_path / "out.mp4")
    after = read_back(tmp_path / "out.mp4")
    assert len(after.frames) == 6
    assert ("audio" in after.packets) == (part == "tags")
    assert sum("is left out" in r.message or "are left" in r.message for r in caplog.records) == 1


@pytest.mark.parametrize(("before", "after"), [("mp4", "mkv"), ("mkv", "mp4"), ("mkv", "webm")])
def test_text_subtitles_are_converted(tmp_path, before, after):
    first = with_subtitles(tmp_path)
    source = tmp_path / f"source.{before}"
    upscale(first, source, chunk=24)
    output = tmp_path / f"out.{after}"
    upscale(source, output, chunk=24)
    with av.open(str(output)) as file:
        stream = file.streams.subtitles[0]
        assert stream.codec_context.name in ("subrip", "srt", "mov_text", "webvtt")
        assert stream.language == "fre"
        shown = []
        for packet in file.demux(stream):
            texts = packet.decode() if packet.size > 2 else []
            shown += [(float(packet.pts * packet.time_base), t.dialogue) for t in texts]
    assert [text for _, text in shown] == [b"Hello", b"There"]
    assert [round(time, 2) for time, _ in shown] == [0.2, 1.0]


def test_everything_else_reaches_the_output(tmp_path, caplog):
    """A second film, a second language, a font, a cover, titles, dispositions and tags."""
    film = write_clip(tmp_path / "film.mp4", Clip(pictures(6), audio_seconds=0.5))
    other = write_clip(tmp_path / "other.mp4", Clip(pictures(6, scene=1), audio_seconds=0.5))
    cover = cv2.imencode(".jpg", np.full((8, 8, 3), 99, np.uint8))[1].tobytes()
    chapter = {"id": 1, "start": 0, "end": 200, "time_base": Fraction(1, 1000)}

    def edit(file, streams):
        streams[0].metadata["title"] = "Film"
        streams[1].metadata.update({"language": "ger", "title": "Ton"})
        streams[3].metadata.update({"language": "jpn", "title": "音"})
        streams[3].disposition = av.stream.Disposition.hearing_impaired
        file.add_attachment("font [1].ttf", "font/ttf", b"a font")
        file.add_attachment("cover.jpg", "image/jpeg", cover)
        file.set_chapters([{**chapter, "metadata": {"title": "Anfang"}}])

    tags = {"title": "Ünïcödé", "ARTIST": "somebody", "MY_OWN": "tag"}
    source = remux([film, other], tmp_path / "in.mkv", tags=tags, edit=edit)
    upscale(source, tmp_path / "out.mkv")
    assert not caplog.records
    with av.open(str(tmp_path / "out.mkv")) as file:
        assert {k: v for k, v in file.metadata.items() if k.lower() != "encoder"} == tags
        assert file.chapters()[0]["metadata"]["title"] == "Anfang"
        films = [s for s in file.streams.video if not s.disposition & COVER]
        assert [(s.codec_context.width, s.codec_context.height) for s in films] == [
            (128, 96), (32, 24),
        ]  # fmt: skip
        assert films[0].metadata["title"] == "Film"
        first, second = file.streams.audio
        assert (first.language, second.language) == ("ger", "jpn")
        assert (first.metadata["title"], second.metadata["title"]) == ("Ton", "音")
        assert second.disposition & av.stream.Disposition.hearing_impaired
        fonts = [s for s in file.streams if s.type == "attachment"]
        assert [(s.name, s.data) for s in fonts] == [("font [1].ttf", b"a font")]
        covers = [s for s in file.streams.video if s.disposition & COVER]
        assert covers[0].metadata["filename"] == "cover.jpg"
    upscale(source, tmp_path / "out.mp4")
    assert len(caplog.records) == 1
    warning = caplog.records[0].message
    assert "mp4 cannot keep" in warning
    assert "attachment" in warning
    with open_container(tmp_path / "out.mp4") as file:
        assert [s.language for s in file.streams.audio] == ["ger", "jpn"]
        assert file.streams.audio[0].metadata["handler_name"] == "Ton"
        assert file.metadata["title"] == "Ünïcödé"
        assert [bool(s.disposition & COVER) for s in file.streams.video].count(True) == 1


COVER = av.stream.Disposition.attached_pic


def test_tags_that_only_quicktime_has(tmp_path):
    keys = {
        "com.apple.quicktime.make": "Apple",
        "com.apple.quicktime.location.ISO6709": "+52.5+013.4/",
        "com.apple.quicktime.creationdate": "2024-01-01T10:00:00+0200",
    }
    options = {"movflags": "use_metadata_tags"}
    clip = Clip(pictures(3), metadata=keys, container_options=options)
    source = write_clip(tmp_path / "in.mov", clip)
    for suffix in ("mov", "mp4", "mkv"):
        upscale(source, tmp_path / f"out.{suffix}")
        with av.open(str(tmp_path / f"out.{suffix}")) as file:
            found = {k.lower(): v for k, v in file.metadata.items()}
        assert {k.lower(): v for k, v in keys.items()}.items() <= found.items()


@pytest.mark.parametrize("suffix", ["mkv", "webm", "mp4"])
def test_the_same_input_gives_the_same_file(tmp_path, suffix):
    source = write_clip(tmp_path / "in.mp4", Clip(pictures(3), audio_seconds=0.2))
    for name in "ab":
        upscale(source, tmp_path / f"{name}.{suffix}")
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_recorded_playlists_count_from_zero(tmp_path):
    late = Clip(pictures(24), audio_seconds=1.0, container_options={"output_ts_offset": "40000"})
    write_clip(tmp_path / "part0.ts", late)
    playlist = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\npart0.ts\n"
    (tmp_path / "in.m3u8").write_text(playlist + "#EXT-X-ENDLIST\n")
    upscale(tmp_path / "in.m3u8", tmp_path / "out.mp4")
    after = read_back(tmp_path / "out.mp4")
    assert len(after.times) == 24
    assert after.times[0] < 1
    assert abs(after.packet_times["audio"][0] - after.times[0]) < Fraction(1, 2)


@pytest.mark.parametrize("name", ["фильм [1] 電影", "a%03d", "#1? & 'x' \"y\"", "²³", "-dash"])
def test_names_of_every_script(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "plain.mp4", Clip(pictures(2))).rename(f"{name}.mp4")
    upscale(f"./{name}.mp4", f"./{name} x4.mkv")
    assert len(read_back(tmp_path / f"{name} x4.mkv").frames) == 2
    upscale(f"./{name}.mp4", f"./{name}")
    assert len(list((tmp_path / name).glob("*.png"))) == 2
    upscale(f"./{name}", f"./{name} again.mp4")
    upscale(f"./{name}/*.png", f"./{name} globbed.mp4")
    assert len(read_back(tmp_path / f"{name} globbed.mp4").frames) == 2

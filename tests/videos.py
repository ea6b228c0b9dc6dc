"""Small real video files, made by PyAV."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import threading
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from iart_plugin.commands.upscale import UpscaleOptions, upscale_video


def moving_picture(
    index: int, height: int = 24, width: int = 32, *, scene: int = 0, depth: int = 8
) -> np.ndarray:
    """A smooth picture that drifts by a pixel a frame: (h, w, 3) uint8, or uint16 for more bits."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    x = x + index
    phases = np.random.RandomState(scene).rand(3, 3) * 6
    channels = [
        0.5
        + 0.2 * np.sin(0.2 * x + a)
        + 0.15 * np.sin(0.25 * y + b)
        + 0.1 * np.cos(0.15 * x - 0.2 * y + c)
        for a, b, c in phases
    ]
    values = np.stack(channels, -1).clip(0, 1)
    if depth > 8:
        return np.round(values * 65535).astype(np.uint16)
    return np.round(values * 255).astype(np.uint8)


@dataclass
class Clip:
    """A video to be made.

    Attributes:
        frames: Pictures.
        rate: Average frames a second.
        time_base: Of ``times``.
        times: Presentation times; at the rate where None.
        codec: Encoder of the video.
        pix_fmt: Its pixel format.
        options: Its options.
        sample_aspect_ratio: Of the pixels.
        rotation: Degrees counter-clockwise that a player turns the picture by.
        tags: Codec context attributes: colour and the like.
        audio_seconds: Length of a sine tone in AAC; none if 0.
        subtitles: Texts, one a second, as mov_text; none if empty.
        metadata: Of the container.
    """

    frames: list[np.ndarray]
    rate: Fraction = Fraction(24)
    time_base: Fraction | None = None
    times: list[int] | None = None
    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    options: dict[str, str] = field(default_factory=lambda: {"crf": "4"})
    sample_aspect_ratio: Fraction | None = None
    rotation: int = 0
    tags: dict[str, int] = field(default_factory=dict)
    audio_seconds: float = 0.0
    audio_codec: str = "aac"
    metadata: dict[str, str] = field(default_factory=dict)
    container_options: dict[str, str] = field(default_factory=dict)


def write_clip(path: Path, clip: Clip) -> Path:
    """Encode a clip."""
    time_base = clip.time_base or 1 / clip.rate
    times = clip.times or list(range(len(clip.frames)))
    with av.open(str(path), "w", options=clip.container_options) as file:
        file.metadata.update(clip.metadata)
        stream = file.add_stream(clip.codec, rate=clip.rate, options=dict(clip.options))
        context = stream.codec_context
        context.height, context.width = clip.frames[0].shape[:2]
        context.pix_fmt, context.time_base = clip.pix_fmt, time_base
        stream.time_base = time_base
        if clip.sample_aspect_ratio:
            context.sample_aspect_ratio = clip.sample_aspect_ratio
        for name, value in clip.tags.items():
            setattr(context, name, value)
        if clip.rotation:
            stream.set_display_rotation(clip.rotation)
        sound = _add_tone(file, clip) if clip.audio_seconds else None
        for frame, pts in zip(clip.frames, times, strict=True):
            kind = "rgb24" if frame.dtype == np.uint8 else "rgb48le"
            picture = av.VideoFrame.from_ndarray(frame, kind)
            picture = picture.reformat(
                format=clip.pix_fmt,
                dst_colorspace=clip.tags.get("colorspace", 5),
                dst_color_range=clip.tags.get("color_range", 1),
            )
            picture.pts, picture.time_base = pts, time_base
            file.mux(stream.encode(picture))
        file.mux(stream.encode(None))
        if sound is not None:
            _encode_tone(file, sound, clip.audio_seconds)
    return path


def _add_tone(file: av.container.OutputContainer, clip: Clip) -> av.AudioStream:
    sound = file.add_stream(clip.audio_codec, rate=48000)
    sound.codec_context.layout = "mono"
    sound.metadata["language"] = "eng"
    return sound


def _encode_tone(file: av.container.OutputContainer, sound: av.AudioStream, seconds: float) -> None:
    samples = 0.3 * np.sin(np.arange(int(seconds * 48000)) * 2 * np.pi * 440 / 48000)
    frame = av.AudioFrame.from_ndarray(samples.astype(np.float32)[None], "fltp", "mono")
    frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
    file.mux(sound.encode(frame))
    file.mux(sound.encode(None))


@dataclass
class Read:
    """What a file holds."""

    frames: list[np.ndarray]
    times: list[Fraction]
    video: dict
    packets: dict[str, list[bytes]]
    packet_times: dict[str, list[Fraction]]
    metadata: dict[str, str]


def read_back(path: Path) -> Read:
    """Everything of a file."""
    packets: dict[str, list[bytes]] = {}
    packet_times: dict[str, list[Fraction]] = {}
    with av.open(str(path)) as file:
        for packet in file.demux():
            if packet.size and packet.pts is not None:
                packets.setdefault(packet.stream.type, []).append(bytes(packet))
                packet_times.setdefault(packet.stream.type, []).append(
                    packet.pts * packet.time_base
                )
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        frames, times = [], []
        for frame in file.decode(video=0):
            times.append(frame.pts * frame.time_base)
            frames.append(frame.to_ndarray(format="rgb24"))
        context = stream.codec_context
        video = {
            "size": (context.width, context.height),
            "rate": stream.average_rate,
            "pix_fmt": context.pix_fmt,
            "codec": context.name,
            "color_range": int(context.color_range),
            "colorspace": int(context.colorspace),
            "color_primaries": int(context.color_primaries),
            "color_trc": int(context.color_trc),
            "aspect": stream.sample_aspect_ratio,
            "duration": stream.duration and stream.duration * stream.time_base,
        }
        return Read(frames, times, video, packets, packet_times, dict(file.metadata))


@contextlib.contextmanager
def feeding(data):
    """A text stream, as sys.stdin is, over a pipe that ``data`` is written to."""
    out, into = os.pipe()

    def feed():
        with os.fdopen(into, "wb") as file:
            file.write(data)

    thread = threading.Thread(target=feed)
    thread.start()
    with os.fdopen(out, "r") as stdin:
        yield stdin
    thread.join()


def upscale(source, output, **options):
    """Upscale by bicubic interpolation: the network is not what these tests are about."""
    given = {"model": "bicubic", "device": "cpu", "quiet": True, "chunk": 4, "warm_up": 1}
    return upscale_video(UpscaleOptions(str(source), str(output), **{**given, **options}))


def pictures(count, **options):
    return [moving_picture(i, **options) for i in range(count)]


def psnr(a, b):
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return 10 * np.log10(255**2 / max(error, 1e-12))


def bicubic(frame):
    return cv2.resize(frame, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)


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


def remux(sources, path, *, streams=None, tags=None, options=None, edit=None):
    """Put the packets of files into one, without decoding.

    Args:
        sources: Files.
        path: The file to write.
        streams: (file, stream) numbers to take; all where None.
        tags: Of the container.
        options: Of the muxer.
        edit: Is called with the output and its streams before its header is written.
    """
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(av.open(str(s))) for s in sources]
        file = stack.enter_context(av.open(str(path), "w", container_options=options or {}))
        file.metadata.update(tags or {})
        targets = {}
        for number, container in enumerate(opened):
            for stream in container.streams:
                if streams is None or (number, stream.index) in streams:
                    target = file.add_stream_from_template(stream, opaque=True)
                    target.metadata.update(stream.metadata)
                    targets[number, stream.index] = target
        if edit:
            edit(file, list(targets.values()))
        for number, container in enumerate(opened):
            for packet in container.demux():
                target = targets.get((number, packet.stream.index))
                if target is not None and packet.size:
                    packet.stream = target
                    file.mux(packet)
    return path


def probed_times(path):
    """Display times that ffprobe shows, in seconds; None where there is no ffprobe."""
    if shutil.which("ffprobe") is None:
        return None
    command = ["ffprobe", "-v", "quiet", "-select_streams", "v:0", "-of", "json", "-show_entries"]
    command += ["frame=best_effort_timestamp_time", str(path)]
    found = subprocess.run(command, capture_output=True, check=True)
    key = "best_effort_timestamp_time"  # the last frames of some files have none
    return [float(f[key]) for f in json.loads(found.stdout)["frames"] if key in f]

"""Chooses the encoder of an output video and its settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path

import av

from .colour import Colour, chroma_subsampling, pixel_components
from .conversion import CHROMA_LOCATION
from .frames import VideoInfo

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm"})
# The number of encoder threads changes what x264 and x265 write. So it must not depend on the
# machine: a job that is resumed on, or shared with, another machine has to give the same file.
_THREADS = 4
_NO_LIMIT = "0"
_NVENC_QUALITY = "19"


@dataclass(frozen=True)
class Encoding:
    """Everything except the frames that decides the bits of an output video.

    Attributes:
        container: "mp4", "mov", "matroska" or "webm".
        codec: PyAV's name of the encoder.
        pix_fmt: The encoder's pixel format.
        options: The encoder's options.
        width: Width in high-resolution pixels.
        height: Height in high-resolution pixels.
        rate: Average number of frames per second.
        time_base: Seconds in one unit of a timestamp.
        sample_aspect_ratio: Width over height of a pixel.
        colour: Colour tags.
    """

    container: str
    codec: str
    pix_fmt: str
    options: dict[str, str]
    width: int
    height: int
    rate: Fraction
    time_base: Fraction
    sample_aspect_ratio: Fraction
    colour: Colour

    def as_dict(self) -> dict:
        """Plain values, for a record of the run."""
        plain = asdict(self)
        return {k: str(v) if isinstance(v, Fraction) else v for k, v in plain.items()}


def container_of(path: str | Path) -> str:
    """The container's name for a file name.

    Raises:
        ValueError: The suffix is not one of :data:`VIDEO_SUFFIXES`.
    """
    suffix = Path(path).suffix.lower()
    names = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
    if suffix not in names:
        raise ValueError(
            f"{path}: cannot tell what to write; end it in {', '.join(sorted(VIDEO_SUFFIXES))}, or "
            "name a folder for PNG images"
        )
    return names[suffix]


def choose_encoding(
    info: VideoInfo,
    container: str,
    colour: Colour,
    *,
    codec: str | None = None,
    crf: float | None = None,
    preset: str | None = None,
    pix_fmt: str | None = None,
    lossless: bool = False,
    scale: int = 4,
) -> Encoding:
    """Choose the encoder and its settings; what the user gives is taken as it is.

    The output keeps the source's bit depth and chroma subsampling if the encoder offers them.
    Images have 4:4:4 and up to 16 bits, which most players refuse. So if the source is images and
    the container is one made for players, the output gets 4:2:0 with 8 bits.

    Args:
        info: The source.
        container: As :func:`container_of` names it.
        colour: The output's resolved tags.
        codec: The name of an encoder, or of a codec, which means the codec's first encoder.
        crf: Quality; a smaller value gives a better picture and a larger file.
        preset: The encoder's speed.
        pix_fmt: A pixel format of the encoder.
        lossless: Keep the network's result exactly, as RGB of the source's depth.
        scale: How many times larger the output is than the source, per axis.

    Raises:
        ValueError: PyAV lacks the encoder, or the encoder lacks the pixel format; with
            ``lossless``, the encoder lacks RGB of the source's depth.
    """
    if not (info.is_video or lossless or container == "matroska"):
        info = replace(info, depth=8, chroma="420")
    depth = next((d for d in (8, 10, 12) if info.depth <= d), 16 if lossless else 12)
    codec = codec or _default_codec(container, depth, lossless)
    try:
        encoder = av.Codec(codec, "w")
    except (av.FFmpegError, ValueError) as error:
        raise ValueError(
            f"--codec {codec}: this PyAV has no such encoder; name one such as libx264, or "
            "leave out --codec"
        ) from error
    if encoder.type != "video":
        raise ValueError(f"--codec {codec}: this is an encoder of {encoder.type}, not of video")
    codec = encoder.name  # "hevc" is accepted for libx265
    formats = [f.name for f in encoder.video_formats or ()]
    if pix_fmt is None and lossless:
        pix_fmt = _lossless_format(formats, depth)
        if pix_fmt is None:
            raise ValueError(
                f"--lossless: {codec} does not take RGB of {depth} bits: write to .mkv without "
                "--codec, or say with --pixel-format what is enough"
            )
    elif pix_fmt is None:
        pix_fmt = _nearest_format(codec, formats, depth, info.chroma)
    elif formats and pix_fmt not in formats:
        raise ValueError(f"--pixel-format {pix_fmt}: {codec} takes {', '.join(formats)}")
    return Encoding(
        container=container,
        codec=codec,
        pix_fmt=pix_fmt,
        options=_options(codec, crf, preset, lossless),
        width=info.width * scale,
        height=info.height * scale,
        rate=info.rate,
        time_base=info.time_base,
        sample_aspect_ratio=info.sample_aspect_ratio,
        colour=colour,
    )


def _default_codec(container: str, depth: int, lossless: bool) -> str:
    if container == "webm":
        return "libvpx-vp9" if depth == 8 or lossless else "libsvtav1"
    if lossless:
        if container == "matroska":
            return "ffv1"
        return "libx264rgb" if depth == 8 else "libx265"
    return "libx264" if depth == 8 else "libx265"


def _lossless_format(formats: list[str], depth: int) -> str | None:
    wanted = ["gbrp", "bgr0", "rgb24"] if depth == 8 else [f"gbrp{depth}le"]
    return next((f for f in wanted if f in formats), None)


def _nearest_format(codec: str, formats: list[str], depth: int, chroma: str) -> str:
    for d in (depth, 10, 8) if depth > 8 else (8,):
        for c in (chroma, "420"):
            name = f"yuv{c}p" + ("" if d == 8 else f"{d}le")
            if not formats or name in formats:
                return name
        # p010le is NVENC's 10-bit format. NVENC lists it for H.264 too, but fails to encode it.
        if d == 10 and "p010le" in formats and not codec.startswith("h264"):
            return "p010le"
    return formats[0]


def _options(codec: str, crf: float | None, preset: str | None, lossless: bool) -> dict[str, str]:
    """Encoder options. An encoder that is not known here gets only the options the user gave."""
    quality = {"libx264": 16, "libx264rgb": 16, "libx265": 18, "libvpx-vp9": 24, "libsvtav1": 24}
    options: dict[str, str] = {}
    if crf is not None or codec in quality:
        options["crf"] = f"{quality[codec] if crf is None else crf:g}"
    if codec in ("libx264", "libx264rgb", "libx265"):
        options["preset"] = preset or "medium"
        options["threads"] = str(_THREADS)
    elif codec == "libvpx-vp9":
        options |= {"b": _NO_LIMIT, "row-mt": "1", "cpu-used": preset or "2"}
        options["threads"] = str(_THREADS)
    elif preset is not None:
        options["preset"] = preset
    if codec.endswith("_nvenc"):
        # NVENC's own default is a bit rate of 2 Mbit/s.
        options = {"rc": "vbr", "b": _NO_LIMIT, "cq": options.pop("crf", _NVENC_QUALITY), **options}
    if codec == "libx265":
        options["x265-params"] = f"log-level=error:frame-threads=2:pools={_THREADS}"
    if codec == "libsvtav1":
        options["svtav1-params"] = "lp=2"
        options.setdefault("preset", "6")
    if lossless:
        options |= _lossless_options(codec, options)
    return options


def _lossless_options(codec: str, options: dict[str, str]) -> dict[str, str]:
    if codec in ("libx264", "libx264rgb"):
        return {"crf": "0"}
    if codec == "libx265":
        return {"x265-params": options["x265-params"] + ":lossless=1"}
    if codec == "libvpx-vp9":
        options.pop("crf")  # the encoder refuses a quality together with "lossless"
        return {"lossless": "1"}
    if codec == "ffv1":
        return {"level": "3", "slices": "16", "slicecrc": "1", "threads": str(_THREADS)}
    raise ValueError(f"--lossless: do not know how to make {codec} lossless; leave out --codec")


def encoder_options(encoding: Encoding) -> dict[str, str]:
    """The options for opening an encoder: those of ``encoding``, and the chroma samples' place."""
    name = encoding.pix_fmt
    is_420 = chroma_subsampling(name) == "420" and pixel_components(name) == 3
    return dict(encoding.options) | ({"chroma_sample_location": CHROMA_LOCATION} if is_420 else {})


def set_up(context: av.VideoCodecContext, encoding: Encoding) -> None:
    """Set an encoder's properties; its options are given when it is made."""
    context.width, context.height = encoding.width, encoding.height
    context.pix_fmt = encoding.pix_fmt
    context.time_base = encoding.time_base
    context.framerate = encoding.rate
    context.sample_aspect_ratio = encoding.sample_aspect_ratio
    is_rgb = av.VideoFormat(encoding.pix_fmt, 1, 1).is_rgb
    context.colorspace = 0 if is_rgb else encoding.colour.matrix
    context.color_range = 2 if is_rgb else encoding.colour.range
    context.color_primaries = encoding.colour.primaries
    context.color_trc = encoding.colour.transfer

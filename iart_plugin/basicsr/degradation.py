"""Degrades clean clips at random as real video is degraded, with BasicSR's functions.

The recipe is RealBasicVSR's (Chan et al., CVPR 2022), which is Real-ESRGAN's second-order
degradation for video: clips are blurred, resized, made noisy, and compressed as JPEG and as video,
twice over. Every strength is drawn once for a clip and changes by a small random step from each
frame to the next. The factors of resizing stay the same for a whole clip.

All functions but :func:`degrade_clip` draw from the global random generators of Python and NumPy,
as BasicSR's functions do, and take lists of frames (h, w, 3): BGR, float32, in [0, 1].
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from fractions import Fraction

import cv2
import numpy as np
from basicsr.data import degradations

from iart_plugin import extras
from iart_plugin.basicsr.degradation_schema import Degradation, FirstDegradation
from iart_plugin.basicsr.random_state import seeded

Frames = list[np.ndarray]

KERNEL_SIZES = range(7, 22, 2)
KERNEL_WEIGHTS = {
    "iso": 0.45,
    "aniso": 0.25,
    "generalized_iso": 0.12,
    "generalized_aniso": 0.03,
    "plateau_iso": 0.12,
    "plateau_aniso": 0.03,
}
FINAL_CUTOFF = (math.pi / 3, math.pi)
INTERPOLATIONS = (cv2.INTER_LINEAR, cv2.INTER_AREA, cv2.INTER_CUBIC)
DECODERS = {"libx264": "h264", "mpeg4": "mpeg4"}
CODEC_WEIGHTS = {"libx264": 2, "mpeg4": 1}
BITRATE_PIXELS = 256 * 256
SMALLEST_VIDEO = 16
"""Smaller frames are padded to this many pixels on each side before an encoder takes them."""


def degrade_clip(
    frames: Sequence[np.ndarray], seed: int, *, recipe: Degradation | None = None, scale: int = 4
) -> Frames:
    """Degrade a clip in a way that depends on the seed alone.

    The random generators' states are restored afterwards. Results are the same for the same
    versions of OpenCV, SciPy and PyAV.

    Args:
        frames: (h, w, 3), RGB, uint8, all of one size.
        seed: at least 0.
        recipe: the ranges of all strengths; None for RealBasicVSR's.
        scale: how many times smaller the result is.

    Returns:
        Frames (h // scale, w // scale, 3), RGB, uint8.
    """
    bgr = [frame[..., ::-1].astype(np.float32) / 255 for frame in frames]
    with seeded(seed):
        degraded = degrade(bgr, recipe or Degradation(), scale=scale)
    return [_to_bytes(frame)[..., ::-1].copy() for frame in degraded]


def degrade(frames: Frames, recipe: Degradation, *, scale: int = 4) -> Frames:
    """Degrade a clip to frames of (h // scale, w // scale, 3), rounded to 8 bits.

    Args:
        frames: all of one size.
        recipe: the ranges of all strengths.
        scale: how many times smaller the result is; a side has at least one pixel.
    """
    height, width = frames[0].shape[:2]
    area = height * width / BITRATE_PIXELS
    frames = _compress(_degrade_once(frames, recipe.first), recipe.first, area)
    frames = _degrade_once(frames, recipe.second)
    size = max(1, width // scale), max(1, height // scale)
    if random.random() < 0.5:
        frames = _compress(_finish(frames, size, recipe), recipe.second, area)
    else:
        frames = _finish(_compress(frames, recipe.second, area), size, recipe)
    return [_to_bytes(frame).astype(np.float32) / 255 for frame in frames]


def _degrade_once(frames: Frames, stage: FirstDegradation) -> Frames:
    if random.random() < stage.blur_prob:
        frames = _filter(frames, _draw_kernels(stage, len(frames)))
    frames = _add_noise(_resize(frames, _draw_size(frames[0], stage)), stage)
    qualities = _drift(stage.jpeg_range, 3, len(frames))
    return [_code_jpeg(*pair) for pair in zip(frames, qualities, strict=True)]


def _code_jpeg(frame: np.ndarray, quality: float) -> np.ndarray:
    # BasicSR's add_jpg_compression gives OpenCV floats, about which OpenCV prints a warning.
    settings = [cv2.IMWRITE_JPEG_QUALITY, round(quality)]
    data = cv2.imencode(".jpg", _to_bytes(frame), settings)[1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR).astype(np.float32) / 255


def _finish(frames: Frames, size: tuple[int, int], recipe: Degradation) -> Frames:
    """Resize to the final size (width, height), and perhaps add ringing."""
    frames = _resize(frames, size)
    if random.random() < recipe.final_sinc_prob:
        frames = _filter(frames, _sinc_kernels(FINAL_CUTOFF, _draw_kernel_size(), len(frames)))
    return frames


def _drift(limits: Sequence[float], step: float, count: int) -> Iterator[float]:
    """Draw a value for each of ``count`` frames, each near the one before it."""
    value = random.uniform(*limits)
    for _ in range(count):
        yield value
        value = min(max(value + random.uniform(-step, step), limits[0]), limits[1])


def _draw_kernel_size() -> int:
    return random.choice(KERNEL_SIZES)


def _draw_kernels(stage: FirstDegradation, count: int) -> Frames:
    size = _draw_kernel_size()
    if random.random() < stage.sinc_prob:
        return _sinc_kernels((math.pi / (3 if size < 13 else 5), math.pi), size, count)
    kind = random.choices(list(KERNEL_WEIGHTS), list(KERNEL_WEIGHTS.values()))[0]
    family, isotropic = kind.partition("_")[0], kind.endswith("iso") and not kind.endswith("aniso")
    shapes = zip(
        _drift(stage.blur_sigma, 0.02, count),
        _drift(stage.blur_sigma, 0.02, count),
        _drift((-math.pi, math.pi), math.pi / 10, count),
        _drift((0.5, 4), 0.05, count),
        _drift((1, 2), 0.1, count),
        strict=True,
    )
    kernels = []
    for sigma_x, sigma_y, angle, beta_gaussian, beta_plateau in shapes:
        shape = (size, sigma_x, sigma_y, angle)
        if family == "generalized":
            kernel = degradations.bivariate_generalized_Gaussian(
                *shape, beta_gaussian, isotropic=isotropic
            )
        elif family == "plateau":
            kernel = degradations.bivariate_plateau(*shape, beta_plateau, isotropic=isotropic)
        else:
            kernel = degradations.bivariate_Gaussian(*shape, isotropic=isotropic)
        kernels.append(kernel)
    return kernels


def _sinc_kernels(cutoff: tuple[float, float], size: int, count: int) -> Frames:
    with np.errstate(invalid="ignore", divide="ignore"):  # BasicSR replaces 0 / 0 in the centre
        return [
            degradations.circular_lowpass_kernel(value, size)
            for value in _drift(cutoff, math.pi / 50, count)
        ]


def _filter(frames: Frames, kernels: Frames) -> Frames:
    return [cv2.filter2D(*pair) for pair in zip(frames, [-1] * len(frames), kernels, strict=True)]


def _draw_size(frame: np.ndarray, stage: FirstDegradation) -> tuple[int, int]:
    """Draw a new width and height."""
    mode = random.choices(("up", "down", "keep"), stage.resize_prob)[0]
    low, high = stage.resize_range
    limits = {"up": (1, high), "down": (low, 1), "keep": (1, 1)}[mode]
    factor = random.uniform(*limits)
    return max(1, round(frame.shape[1] * factor)), max(1, round(frame.shape[0] * factor))


def _resize(frames: Frames, size: tuple[int, int]) -> Frames:
    interpolation = random.choice(INTERPOLATIONS)
    return [cv2.resize(frame, size, interpolation=interpolation) for frame in frames]


def _add_noise(frames: Frames, stage: FirstDegradation) -> Frames:
    if random.random() < stage.gaussian_noise_prob:
        add, limits, step = degradations.add_gaussian_noise, stage.noise_range, 0.1
    else:
        add, limits, step = degradations.add_poisson_noise, stage.poisson_scale_range, 0.005
    gray = random.random() < stage.gray_noise_prob
    strengths = _drift(limits, step, len(frames))
    return [
        add(frame, strength, gray_noise=gray).astype(np.float32)
        for frame, strength in zip(frames, strengths, strict=True)
    ]


def _compress(frames: Frames, stage: FirstDegradation, area: float) -> Frames:
    codec = random.choices(list(CODEC_WEIGHTS), list(CODEC_WEIGHTS.values()))[0]
    bits = random.uniform(*stage.bitrate_range) * area
    coded = compress_video([_to_bytes(frame) for frame in frames], codec, bits)
    return [frame.astype(np.float32) / 255 for frame in coded]


def compress_video(frames: Sequence[np.ndarray], codec: str, bits: float) -> Frames:
    """Encode a clip and decode it again, in memory.

    Args:
        frames: (h, w, 3), BGR, uint8, all of one size.
        codec: the encoder, a key of ``DECODERS``.
        bits: the number of bits for each frame, on average, which the encoder tries to keep.

    Raises:
        ModuleNotFoundError: PyAV is not installed.
    """
    extras.require("av")
    import av

    height, width = frames[0].shape[:2]
    encoder = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height = (max(SMALLEST_VIDEO, n + n % 2) for n in (width, height))
    encoder.pix_fmt = "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1), Fraction(1)
    encoder.bit_rate = encoder.bit_rate_tolerance = max(1000, round(bits))
    encoder.thread_count = 1
    if codec == "libx264":  # with mbtree, the same frames give other packets in each run
        encoder.options = {"mbtree": "0"}
    border = (0, encoder.height - height, 0, encoder.width - width)
    packets = []
    for index, frame in enumerate(frames):
        padded = cv2.copyMakeBorder(frame, *border, cv2.BORDER_REPLICATE)
        picture = av.VideoFrame.from_ndarray(padded, format="bgr24").reformat(format="yuv420p")
        picture.pts = index
        packets += encoder.encode(picture)
    packets += encoder.encode(None)
    decoder = av.CodecContext.create(DECODERS[codec], "r")
    decoder.thread_count = 1
    decoded = [picture for packet in [*packets, None] for picture in decoder.decode(packet)]
    return [picture.to_ndarray(format="bgr24")[:height, :width] for picture in decoded]


def _to_bytes(frame: np.ndarray) -> np.ndarray:
    return (frame * 255).round().clip(0, 255).astype(np.uint8)

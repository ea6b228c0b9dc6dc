"""The options of a run, and the checks for options that contradict each other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

OnError = Literal["conceal", "fail"]


@dataclass(frozen=True)
class UpscaleOptions:
    """Options of :func:`iart_plugin.commands.upscale.upscale_video`; the command line has the same.

    Attributes:
        input: A video file, a folder of images, a glob, or ``-`` for standard input.
        output: A video file, a folder for PNG images, or ``-`` for standard output.
        model: A name in :data:`iart_plugin.inference.MODELS`, or "auto" to recognise the network
            from the weights.
        weights: The checkpoint. If None, the best of the known weights that are found is taken.
        clean_passes: How often a ``real-*`` network cleans a frame at most; None means 3.
        clean_threshold: A frame is cleaned again while its mean change, in [0, 1], is above this;
            None means 5/255.
        device: "auto", "cuda", "cuda:1", "mps" or "cpu".
        precision: "auto", "fp32", "bf16" or "fp16".
        self_ensemble: Average over the eight flips and turns.
        compile: Compile the network's branches; the first frame then takes a minute or more.
        tile: Sides of a tile (height, width), or (0, 0) for whole frames; chosen by free memory if
            None.
        overlap: Low-resolution pixels that neighbouring tiles share.
        chunk: Frames kept of a clip; chosen by free memory if None.
        warm_up: Frames before and after a chunk.
        scene_detection: Reset the recurrence at cuts.
        codec: The encoder's name.
        crf: Quality, on the encoder's scale.
        preset: Speed, by the encoder's names.
        pix_fmt: The encoder's pixel format.
        scale: How many times as large the output is, from 1 to 4; 4 if None.
        height: The output's height in pixels, instead of ``scale``.
        start: Seconds from which on frames are taken; from the beginning if None.
        end: Seconds before which frames are taken; to the end if None.
        frames: Frames that are taken at most; all if None.
        lossless: Keep the network's result exactly.
        fps: Frames a second of images.
        pipe_format: What is written to standard output, "y4m" or "nut".
        audio: "copy" sound where the container can hold it, "encode" it anew, or "none". True and
            False stand for "copy" and "none".
        subtitles: Keep subtitles and their fonts.
        deinterlace: "auto" makes frames that are marked as interlaced whole; "off" leaves them.
        on_error: Whether a broken frame is concealed or ends the run.
        resume: Continue an unfinished run, if there is one.
        overwrite: Replace the output, and drop an unfinished run unless it is resumed.
        check_disk: Refuse to start where the result is not expected to fit.
        compare: Also write a comparison with bicubic, "side" by side or "slide".
        dry_run: Only say what would be done.
        quiet: No progress.
    """

    input: str
    output: str
    model: str = "auto"
    weights: str | None = None
    clean_passes: int | None = None
    clean_threshold: float | None = None
    device: str = "auto"
    precision: str = "auto"
    self_ensemble: bool = False
    compile: bool = False
    tile: tuple[int, int] | None = None
    overlap: int = 24
    chunk: int | None = None
    warm_up: int = 10
    scene_detection: bool = True
    codec: str | None = None
    crf: float | None = None
    preset: str | None = None
    pix_fmt: str | None = None
    scale: float | None = None
    height: int | None = None
    start: Fraction | None = None
    end: Fraction | None = None
    frames: int | None = None
    lossless: bool = False
    fps: Fraction | None = None
    pipe_format: Literal["y4m", "nut"] = "y4m"
    audio: Literal["copy", "encode", "none"] | bool = "copy"
    subtitles: bool = True
    deinterlace: Literal["auto", "off"] = "auto"
    on_error: OnError = "conceal"
    resume: bool = False
    overwrite: bool = False
    check_disk: bool = True
    compare: Literal["side", "slide"] | None = None
    dry_run: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.audio, bool):
            object.__setattr__(self, "audio", "copy" if self.audio else "none")

    @property
    def comparison_quality(self) -> dict[str, Any]:
        """Quality and speed of a comparison, which is written with its container's usual encoder.

        They are left out where another encoder was asked for the output: its numbers mean something
        else.
        """
        return {} if self.codec else {"crf": self.crf, "preset": self.preset}

    def check(self) -> None:
        """Refuse numbers that no source and no encoder could have.

        Raises:
            ValueError: Names the option.
        """
        if self.fps is not None and not Fraction(1, 10_000) <= self.fps <= 10_000:
            raise ValueError(
                f"--fps {str(self.fps)[:20]}: give frames a second, from 1/10000 to 10000"
            )
        if self.scale is not None and not 1 <= self.scale <= 4:
            raise ValueError(f"--scale {self.scale:g}: the network can make 1 to 4 times the size")
        if self.scale is not None and self.height is not None:
            raise ValueError("--scale and --height: give one of them")
        if self.compare and (self.scale or self.height):
            raise ValueError("--compare shows the network's own size: leave out --scale, --height")
        if self.end is not None and (self.start or 0) >= self.end:
            raise ValueError(
                f"--end {float(self.end):g} must be after --start {float(self.start or 0):g}"
            )
        if self.frames is not None and self.frames < 1:
            raise ValueError(f"--frames {self.frames}: take at least 1")
        if self.chunk is not None and self.chunk < 1:
            raise ValueError(f"--chunk {self.chunk}: make at least 1 frame at a time")
        for name in ("warm_up", "overlap"):
            if (number := getattr(self, name)) < 0:
                raise ValueError(f"--{name.replace('_', '-')} {number}: give 0 or more")
        if self.tile not in (None, (0, 0)) and min(self.tile) < 1:
            sides = "x".join(map(str, self.tile))
            raise ValueError(f"--tile {sides}: give sides of at least 1 pixel, or 0 for no tiles")
        if self.compare and (self.start, self.end, self.frames) != (None, None, None):
            raise ValueError("--compare shows whole films: leave out --start, --end and --frames")
        if self.crf is not None and not math.isfinite(self.crf):
            raise ValueError(f"--crf {self.crf}: give a number")

    def refuse_unused(self, kind: Literal["video", "images", "pipe"]) -> None:
        """An option that would change nothing is a mistake: say so.

        Args:
            kind: What is written.

        Raises:
            ValueError: Names the options.
        """
        unused: list[str] = []
        if kind == "pipe":
            unused = ["codec", "crf", "preset", "lossless"]
        elif kind == "images":  # a comparison of images is a video
            unused = ["codec", "pix_fmt"] + ([] if self.compare else ["crf", "preset"])
        given = [name for name in unused if getattr(self, name) not in (None, False)]
        if given:
            names = ", ".join("--" + name.replace("_", "-") for name in given)
            form = "raw frames" if kind == "pipe" else "PNG files"
            raise ValueError(f"-o {self.output}: {form} have no encoder: leave out {names}")

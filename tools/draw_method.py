"""Draws the pictures of docs/method.md from what the package's own operations compute.

    python tools/draw_method.py [--steps 1500]

Needs matplotlib and scikit-image, whose photograph of a cameraman (CC0) is the example. Trains two
small implicit alignments first, which takes two minutes on one core. Writes every picture for light
and for dark pages, and prints the figures that the page quotes.
"""

import argparse
from collections.abc import Callable
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import skimage.data
import torch
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor
from tqdm import tqdm

from iart_plugin.archs.ia_cnn import ALIGNMENT_OPTIONS
from iart_plugin.archs.warm_start import set_bilinear
from iart_plugin.ops import ImplicitAlignment, sinusoidal_encoding
from iart_plugin.ops.alignment_forms import split_position
from iart_plugin.study.attention import attention_weights
from iart_plugin.study.frequency import (
    ImplicitResampler,
    Resampler,
    Response,
    explicit_resamplers,
    measure,
    sinusoids,
    train_implicit,
)

matplotlib.use("Agg")
ROOT = Path(__file__).resolve().parents[1]
THEMES = {
    "": {"text": "#24292f", "page": "white"},
    "-dark": {"text": "#dfe2e7", "page": "none"},
}
"""The suffix of a picture's file name, the colour of its text and of its background."""
ORANGE, BLUE, GREEN, PURPLE = "#e8743b", "#3b8ee8", "#2fa36b", "#a06be0"
FLOW = (1.7, -0.35)
"""The example's flow at its pixel, in pixels, x then y."""
PIXEL = (2, 3)
"""The example's pixel, column then row, in a part of 7 x 7 pixels of the photograph."""
TRIPS = (1, 4, 16)
"""How often the photograph is moved by half a pixel and back."""
PICTURES = ("window", "encoding", "attention", "blur", "trips")

Compared = dict[str, tuple[Resampler, str]]
"""Resampling methods by name, each with the colour of its lines."""


def main() -> None:
    """Draws the chosen pictures in every theme and writes them as SVG files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "method")
    parser.add_argument("--steps", type=int, default=1500, help="training steps (default 1500)")
    parser.add_argument("--frequencies", type=int, default=25, help="measured frequencies")
    parser.add_argument("--only", nargs="+", choices=PICTURES, help="these pictures alone")
    args = parser.parse_args()
    pictures: dict[str, Callable[[], Figure]] = {
        "window": draw_window,
        "encoding": draw_encoding,
        "attention": lambda: draw_attention(train(1, args.steps)),
        "blur": lambda: draw_blur(*measured(args.steps, args.frequencies)),
        "trips": draw_trips,
    }
    chosen = args.only or pictures
    args.output.mkdir(parents=True, exist_ok=True)
    for suffix, colours in THEMES.items():
        with matplotlib.rc_context(style(colours)):
            for name in chosen:
                path = args.output / f"{name}{suffix}.svg"
                figure = pictures[name]()
                figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
                pyplot.close(figure)
    print(f"wrote {len(chosen) * len(THEMES)} pictures to {args.output}")


def style(colours: dict[str, str]) -> dict[str, object]:
    """Returns the settings of matplotlib that give a picture the colours of a theme."""
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    return {
        **dict.fromkeys(inked, colours["text"]),
        "figure.facecolor": colours["page"],
        "savefig.facecolor": colours["page"],
        "axes.facecolor": "none",
        "legend.framealpha": 0,
        "font.size": 11,
        "axes.titlesize": 12,
        "svg.hashsalt": "iart_plugin",  # the same file every time
    }


@cache
def train(lift_size: int, steps: int) -> ImplicitResampler:
    """Trains an implicit alignment to resample sums of sinusoids, as in the study."""
    with tqdm(total=steps, desc=f"{lift_size}x{lift_size} features", unit="step") as bar:
        return train_implicit(
            lift_size=lift_size,
            spectrum="natural",
            steps=steps,
            progress=lambda step, loss: bar.update(),
        )


def photograph(top: int, left: int, height: int, width: int) -> Tensor:
    """Returns a part of the photograph, (1, 1, height, width) in [0, 1]."""
    picture = torch.from_numpy(skimage.data.camera()[top : top + height, left : left + width])
    return picture[None, None].float() / 255


def draw_window() -> Figure:
    """Draws where a pixel's flow points to, with the window and the decimals (Eq. 12, 13)."""
    patch = photograph(112, 256, 28, 28)[..., ::4, ::4]
    flow = torch.tensor(FLOW).view(1, 2, 1, 1).expand(1, 2, 7, 7)
    base, decimal = (part[0, :, PIXEL[1], PIXEL[0]].tolist() for part in split_position(flow))
    (x, y), (dx, dy) = base, decimal
    figure, (whole, close) = pyplot.subplots(1, 2, figsize=(10, 4.6))
    for axis in (whole, close):
        axis.imshow(patch[0, 0], cmap="gray", vmin=0, vmax=1)
        axis.add_patch(Rectangle((x - 0.5, y - 0.5), 2, 2, fill=False, ec=ORANGE, lw=3))
        axis.plot(x + dx, y + dy, "o", color=BLUE, ms=9, mec="white")
    whole.add_patch(Rectangle((PIXEL[0] - 0.5, PIXEL[1] - 0.5), 1, 1, fill=False, ec=GREEN, lw=3))
    arrow = {"arrowstyle": "->", "color": BLUE, "lw": 2.5}
    whole.annotate("", (x + dx, y + dy), PIXEL, arrowprops=arrow)
    whole.set_xticks(range(7))
    whole.set_yticks(range(7))
    whole.set_title(f"pixel p = {PIXEL}, flow = {FLOW}")
    close.set_xlim(x - 0.5, x + 1.5)
    close.set_ylim(y + 1.5, y - 0.5)
    close.set_xticks([x, x + 1])
    close.set_yticks([y, y + 1])
    for j in range(2):
        for i in range(2):
            value = patch[0, 0, y + j, x + i].item()
            close.plot(x + i, y + j, "s", color=ORANGE, ms=7, mec="white")
            ink = "black" if value > 0.5 else "white"
            close.text(x + i, y + j + 0.16, f"{value:.2f}", color=ink, ha="center", va="top")
    close.annotate("", (x + dx, y), (x, y), arrowprops={**arrow, "arrowstyle": "<->"})
    close.annotate("", (x + dx, y + dy), (x + dx, y), arrowprops={**arrow, "arrowstyle": "<->"})
    label = {"color": "white", "bbox": {"fc": BLUE, "ec": "none", "boxstyle": "round"}}
    close.text(x + dx / 2, y - 0.2, f"$d_x$ = {dx:.2f}", ha="center", **label)
    close.text(x + dx + 0.1, y + dy / 2, f"$d_y$ = {dy:.2f}", va="center", **label)
    close.set_title(f"u = ({x + dx:.2f}, {y + dy:.2f}), window from z = ({x}, {y})")
    return figure


def draw_encoding() -> Figure:
    """Draws the encodings of the query's decimal and of the keys' places (Eq. 7, 14)."""
    channels = 64
    decimals = torch.linspace(0, 1, 257)[:-1]
    position = torch.stack((decimals, torch.zeros_like(decimals)), 1)
    query = sinusoidal_encoding(position / (2 + 1e-6), channels)[:, : channels // 2]
    op = ImplicitAlignment(channels, num_heads=8)
    keys = op.window_encoding(torch.device("cpu"), torch.float32)[[0, 2], : channels // 2]
    figure, (left, middle, right) = pyplot.subplots(
        1, 3, figsize=(10, 4), width_ratios=(5, 0.8, 5), layout="constrained"
    )
    shown = {"cmap": "RdBu_r", "vmin": -1, "vmax": 1, "aspect": "auto", "interpolation": "none"}
    left.imshow(query.t(), extent=(0, 1, channels // 2 - 0.5, -0.5), **shown)
    left.set_title("query: decimal $d_y$")
    left.set_xlabel("$d_y$ (pixels)")
    left.set_ylabel("channel of the y half")
    middle.imshow(keys.t(), **shown)
    middle.set_xticks([0, 1], ["row 0", "row 1"], rotation=60)
    middle.set_title("keys")
    for channel, colour in ((0, ORANGE), (8, BLUE), (14, GREEN)):
        right.plot(decimals, query[:, channel], color=colour, label=f"channel {channel}")
    right.set_xlabel("$d_y$ (pixels)")
    right.set_title("three of these channels")
    right.set_ylim(-1.8, 1.05)
    right.legend(loc="lower left")
    return figure


def sub_pixel_weights(op: ImplicitAlignment, features: Tensor, decimals: Tensor) -> Tensor:
    """Returns the weights at one place of ``features`` for every pair of decimals.

    Returns:
        (k, k, heads, window, window) by d_y and d_x.
    """
    dy, dx = torch.meshgrid(decimals, decimals, indexing="ij")
    n, (height, width) = dx.numel(), features.shape[-2:]
    flow = torch.stack((dx.flatten(), dy.flatten()), 1)[..., None, None]
    features = features.expand(n, -1, -1, -1)
    current = torch.zeros_like(features)
    weights = attention_weights(op, features, current, flow.expand(-1, -1, height, width))
    return weights[..., height // 2, width // 2].unflatten(0, dx.shape)


def draw_attention(trained: ImplicitResampler) -> Figure:
    """Draws the attention's weights for every decimal: set to bilinear ones, and trained."""
    decimals = (torch.arange(32) + 0.5) / 32
    bilinear = ImplicitAlignment(64, num_heads=8, **ALIGNMENT_OPTIONS)
    with torch.no_grad():
        set_bilinear(bilinear)
        features = trained.lift(normalized(photograph(112, 256, 32, 32)[..., ::4, ::4]))
    weights = {
        "set to bilinear": sub_pixel_weights(bilinear, torch.zeros(1, 64, 8, 8), decimals),
        "trained, mean of 8 heads": sub_pixel_weights(trained.alignment, features, decimals),
    }
    figure = pyplot.figure(figsize=(10, 4.4), layout="constrained")
    parts = figure.subfigures(1, 3, width_ratios=(3, 3, 4))
    for part, (title, weight) in zip(parts, weights.items(), strict=False):
        part.set_facecolor("none")
        part.suptitle(title, fontsize=12)
        for (j, i), axis in np.ndenumerate(part.subplots(2, 2, sharex=True, sharey=True)):
            values = weight.mean(2)[..., j, i]
            picture = axis.imshow(values, extent=(0, 1, 1, 0), interpolation="none", vmin=0, vmax=1)
            axis.set_xlabel("$d_x$" if j else "")
            axis.set_ylabel("" if i else "$d_y$")
            axis.set_title(f"row {j}, column {i}", fontsize=10)
    figure.colorbar(picture, ax=axis.figure.axes, location="bottom", aspect=40)
    parts[2].set_facecolor("none")
    draw_heads(parts[2].subplots(), weights, decimals)
    return figure


def draw_heads(axis: Axes, weights: dict[str, Tensor], decimals: Tensor) -> None:
    """Draws the weight of the window's second column by d_x, at d_y = 1/2, for every head."""
    bilinear, heads = (weight[16, ..., 1].sum(-1) for weight in weights.values())  # (k, heads)
    lines = axis.plot(decimals, heads, color=BLUE, lw=1, alpha=0.8)
    lines[0].set_label("trained, each head")
    axis.plot(decimals, bilinear[:, 0], color=ORANGE, lw=2.5, label="set to bilinear")
    axis.set_xlabel("$d_x$")
    axis.set_title("weight of the right column")
    axis.legend(loc="upper left")
    print(f"set to bilinear, off by {(bilinear[:, 0] - decimals).abs().max():.4f} at most")


def normalized(picture: Tensor) -> Tensor:
    """Gives a picture the mean and the spread of the sinusoids that the alignments were shown."""
    return (picture - picture.mean()) / picture.std() * 0.7


@cache
def measured(steps: int, frequencies: int) -> tuple[Compared, dict[str, Response]]:
    """Measures the frequency response of every resampling method that is compared."""
    explicit = explicit_resamplers()
    compared = {
        "nearest": (explicit["nearest"], "#8c8c8c"),
        "bilinear": (explicit["bilinear"], ORANGE),
        "bicubic": (explicit["bicubic"], PURPLE),
        "implicit, 1x1 features": (train(1, steps), BLUE),
        "implicit, 3x3 features": (train(3, steps), GREEN),
    }
    responses = {
        name: measure(resampler, num_frequencies=frequencies)
        for name, (resampler, _) in compared.items()
    }
    return compared, responses


def draw_blur(compared: Compared, responses: dict[str, Response]) -> Figure:
    """Draws a wave that is resampled between its samples, and what is left of each frequency."""
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    frequency, size = 0.31, 48
    wave, phase = torch.tensor([[[frequency, 0.0]]]), torch.zeros(1, 1)
    fine = torch.zeros(1, 2, 1, 601)
    fine[0, 0, 0] = torch.linspace(18, 28, 601)
    left.plot(fine[0, 0, 0], sinusoids(wave, phase, fine)[0, 0, 0], color="#8c8c8c", lw=1)
    grid = torch.arange(size).expand(size, size)
    pixels = torch.stack((grid, grid.t()))[None].float()
    reference = sinusoids(wave, phase, pixels)
    columns = slice(18, 28)
    left.plot(
        range(18, 28), reference[0, 0, 24, columns], "o", color="#8c8c8c", label="the samples"
    )
    flow = torch.zeros(1, 2, size, size)
    flow[:, 0] = 0.5
    for name, (resampler, colour) in compared.items():
        with torch.no_grad():
            row = resampler(reference, flow)[0, 0, 24, columns]
        if name in ("bilinear", "implicit, 3x3 features"):
            left.plot(np.arange(18, 28) + 0.5, row, "s", color=colour, label=name)
        frequencies, half = responses[name].frequencies, responses[name].at_half_a_pixel()
        right.plot(frequencies, half, color=colour, label=name)
        left_over = np.interp(frequency, frequencies, half)
        print(f"{name}: {left_over:.2f} of a wave of {frequency} cycles a pixel is left")
    left.set_title(f"{frequency} cycles a pixel, read half a pixel further")
    left.set_xlabel("pixel")
    right.set_title("what is left of a wave half a pixel away")
    right.set_xlabel("frequency (cycles a pixel)")
    left.set_ylim(-1.1, 1.9)
    left.legend(loc="upper left")
    right.legend(loc="lower left", fontsize=9)
    right.set_ylim(0, 1.3)
    return figure


def draw_trips() -> Figure:
    """Draws a photograph that bilinear resampling moved half a pixel and back several times."""
    picture = photograph(60, 196, 128, 128)
    inner = (..., slice(16, -16), slice(16, -16))
    bilinear = explicit_resamplers()["bilinear"]
    figure, axes = pyplot.subplots(1, 1 + len(TRIPS), figsize=(10, 2.9), layout="constrained")
    moved, done = picture, 0
    for axis, trips in zip(axes, (0, *TRIPS), strict=True):
        for _ in range(trips - done):
            for shift in (-0.5, 0.5):
                moved = bilinear(moved, torch.full((1, 2, 128, 128), shift))
        done = trips
        axis.imshow(moved[inner][0, 0], cmap="gray", vmin=0, vmax=1, interpolation="none")
        axis.set_axis_off()
        title = "original"
        if trips:
            error = (moved - picture)[inner].square().mean()
            title = f"{trips} x there and back\n{-10 * error.log10():.1f} dB"
        axis.set_title(title, fontsize=11)
    return figure


if __name__ == "__main__":
    main()

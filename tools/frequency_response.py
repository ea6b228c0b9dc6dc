"""Measure the amplitude response of resampling methods and write docs/frequency_response.md.

    python tools/frequency_response.py

Trains implicit alignment to resample, with several seeds and two spectra, and measures it beside
nearest, bilinear and bicubic, and sinc and sinc^2 (Sec. 3.3 of the paper). Each measurement is kept
in a file, so a run that was stopped can be resumed.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate
from tqdm import tqdm

from iart_plugin.files import AtomicFile
from iart_plugin.study.frequency import (
    SPECTRA,
    Response,
    explicit_resamplers,
    measure,
    plot,
    theory,
    train_implicit,
)

LIFTS = {1: "pointwise features", 3: "3x3 features"}
Responses = dict[str, list[Response]]
"""The measurements by method, one for each seed."""


def main() -> None:
    """Measures every resampling method, then writes the page and its figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--folder", type=Path, default=Path("results/frequency_response"))
    parser.add_argument("--steps", type=int, default=1500, help="training steps of each IA")
    parser.add_argument("--frequencies", type=int, default=25, help="measured frequencies")
    parser.add_argument("--shifts", type=int, default=32, help="measured shifts")
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each IA")
    parser.add_argument("--threads", type=int, help="PyTorch's threads")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    fineness = {"num_frequencies": args.frequencies, "num_shifts": args.shifts}
    responses = {name: [measure(r, **fineness)] for name, r in explicit_resamplers().items()}
    for spectrum in SPECTRA:
        for lift_size, lift in LIFTS.items():
            name = f"IA, {lift}, {spectrum}"
            responses[name] = [
                _trained(name, lift_size, spectrum, seed, fineness, args)
                for seed in range(args.seeds)
            ]
    args.docs.mkdir(parents=True, exist_ok=True)
    plot(responses, args.docs / "frequency_response.png")
    page = args.docs / "frequency_response.md"
    page.write_text(_page(responses, args), encoding="utf-8")
    print(f"wrote {page}")


def _trained(
    name: str,
    lift_size: int,
    spectrum: str,
    seed: int,
    fineness: dict[str, int],
    args: argparse.Namespace,
) -> Response:
    """Returns the response of a trained implicit alignment: from its file, or measured now."""
    parts = (lift_size, spectrum, args.steps, *fineness.values(), seed)
    path = args.folder / f"{'-'.join(map(str, parts))}.npz"
    if not path.exists():
        with tqdm(total=args.steps, desc=f"{name}, seed {seed}", unit="step") as bar:
            network = train_implicit(
                lift_size=lift_size,
                spectrum=spectrum,
                steps=args.steps,
                seed=seed,
                progress=lambda step, loss: bar.update(),
            )
        found = measure(network, **fineness)
        path.parent.mkdir(parents=True, exist_ok=True)
        with AtomicFile(path) as temporary, temporary.open("wb") as file:
            np.savez(file, frequencies=found.frequencies, shifts=found.shifts, values=found.values)
    with np.load(path) as saved:
        return Response(**saved)


def _table(responses: Responses, picked: list[int]) -> str:
    some = next(iter(responses.values()))[0]
    header = ["method"]
    for what in ("mean", "half"):
        header += [f"{what}, {some.frequencies[i]:.2f}" for i in picked]
    rows = [
        [
            name,
            *(_cell(seeds, lambda r, i=i: r.mean_over_shifts()[i]) for i in picked),
            *(_cell(seeds, lambda r, i=i: r.at_half_a_pixel()[i]) for i in picked),
            _cell(seeds, Response.error),
        ]
        for name, seeds in responses.items()
    ]
    return tabulate(rows, [*header, "rms error"], tablefmt="pipe", disable_numparse=True)


def _cell(seeds: list[Response], figure: Callable[[Response], float]) -> str:
    values = [figure(response) for response in seeds]
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def _against_bilinear(responses: Responses, picked: list[int]) -> str:
    """Lists how often IA keeps more of a wave at half a pixel than bilinear resampling does."""
    bilinear = responses["bilinear"][0].at_half_a_pixel()
    frequencies = responses["bilinear"][0].frequencies
    lines = []
    for name, seeds in responses.items():
        if name.startswith("IA"):
            counts = [
                f"{sum(r.at_half_a_pixel()[i] > bilinear[i] for r in seeds)} of {len(seeds)} at "
                f"{frequencies[i]:.2f}"
                for i in picked
            ]
            lines.append(f"* {name}: {', '.join(counts)}.")
    return "\n".join(lines)


def _against_same_support(responses: Responses, picked: list[int]) -> str:
    """Lists how much more of a wave at half a pixel IA keeps than a fixed kernel as wide as it."""
    lines = []
    for name, seeds in responses.items():
        if name.startswith("IA"):
            kernel = "bilinear" if "pointwise" in name else "bicubic"
            fixed = responses[kernel][0]
            frequencies = fixed.frequencies
            mean = np.mean([response.at_half_a_pixel() for response in seeds], axis=0)
            gain = mean - fixed.at_half_a_pixel()
            gains = [f"{gain[i]:+.3f} at {frequencies[i]:.2f}" for i in picked]
            lines.append(f"* {name}, less {kernel}: {', '.join(gains)}.")
    return "\n".join(lines)


def _page(responses: Responses, args: argparse.Namespace) -> str:
    some = next(iter(responses.values()))[0]
    picked = [int(np.abs(some.frequencies - f).argmin()) for f in (0.1, 0.2, 0.3, 0.4)]
    curves = theory(some.frequencies)
    largest = max(np.abs(responses[n][0].mean_over_shifts() - c).max() for n, c in curves.items())
    return f"""\
# Frequency response of resampling

<!-- Written by tools/frequency_response.py. Do not edit: run it again. -->

A sinusoid of a known frequency is resampled at a constant sub-pixel shift and compared with itself
at the shifted position; 1 is perfect. Left: the mean response over all shifts, which for a fixed
kernel is the kernel's Fourier transform. Nearest and bilinear lie on the sinc and the sinc^2 of
Sec. 3.3 (largest difference {largest:.1e}). Middle: the modulus at a shift of half a pixel, where
smoothing is worst. Right: what is left over as a root mean square, smoothing and displacement
together.

![response](frequency_response.png)

Frequencies are in cycles a pixel. "rms error" is over the band 0.02 to 0.48 and all shifts. For IA
the table has the mean and the standard deviation of {args.seeds} trainings with different seeds.

{_table(responses, picked)}

IA was trained for {args.steps} steps on sums of sinusoids, whose frequencies are spread evenly over
moduli and directions. It saw zeros for the current frame, so that only the reference's resampling
is measured. The waves are equally strong ("uniform"), or their amplitude falls with 1 / frequency
as in pictures ("natural"). With pointwise features its support is the 2x2 window that bilinear has.
With 3x3 features it is 4x4, as bicubic's.

## Does it keep what bilinear attenuates?

Sec. 3.3 says that bilinear resampling attenuates high frequencies which the coordinate network
keeps. These are the numbers of seeds with which IA's modulus at half a pixel is above bilinear's,
by frequency:

{_against_bilinear(responses, picked)}

A fixed kernel with the same support is the fairer comparison: bilinear for pointwise features,
bicubic for 3x3 features. This is the mean of IA's modulus at half a pixel less that kernel's:

{_against_same_support(responses, picked)}

A modulus above 1 is an overshoot, which the rms error counts as well. Nearest keeps every amplitude
and displaces instead, which its rms error shows. Training decides what IA does: it fits the
spectrum that it was shown.
"""


if __name__ == "__main__":
    main()

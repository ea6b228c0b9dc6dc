"""``iart-plugin doctor``: shows what is installed and used, and checks the fast forms' results."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version

import torch
from tabulate import tabulate

import iart_plugin
from iart_plugin import extras
from iart_plugin.fused import VARIABLE
from iart_plugin.inference.memory import free_memory
from iart_plugin.kernels.availability import failures, reason_against
from iart_plugin.ops.processor import device_name

from .console import EXIT_ERROR, one_line
from .self_check import CASES, Case, run_checks

ADVICE = f"Set {VARIABLE}=0 in the environment: the reference forms are then used everywhere."

PACKAGES = ("torch", "torchvision", "triton", "numpy", "opencv-python", "av")
FRAMEWORKS = {
    "basicsr": ("basicsr",),
    "mmagic": ("mmagic", "mmengine", "mmcv", "mmcv-lite"),
}
"""For each framework, the packages whose versions are printed."""

ENCODERS = (
    *("libx264", "libx264rgb", "libx265", "libsvtav1", "libvpx-vp9", "ffv1", "png"),
    *("h264_nvenc", "hevc_nvenc", "av1_nvenc", "h264_videotoolbox", "hevc_videotoolbox"),
)
"""The encoders that ``upscale`` knows how to set up, and the usual hardware encoders."""

Rows = Iterator[tuple[str, str]]


def installed(package: str) -> str:
    """A package's version, or a text that says that it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def versions() -> Rows:
    """The versions of this package, of Python and of the libraries that it uses."""
    yield "iart_plugin", iart_plugin.__version__
    yield "Python", f"{platform.python_version()}, {platform.platform()}"
    for package in PACKAGES:
        yield package, installed(package)
    yield "PyTorch's build", f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"


def devices() -> Rows:
    """The CPU and every GPU: name, capability and memory."""
    cpu = torch.device("cpu")
    yield (
        "cpu",
        f"{device_name(cpu)}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"{_gib(free_memory(cpu))} free",
    )
    for index in range(torch.cuda.device_count()):
        device = torch.device("cuda", index)
        major, minor = torch.cuda.get_device_capability(device)
        _, total = torch.cuda.mem_get_info(device)
        yield (
            str(device),
            f"{device_name(device)}, capability {major}.{minor}, "
            f"{_gib(free_memory(device))} free of {_gib(total)}",
        )
    if torch.backends.mps.is_available():
        yield "mps", f"Apple's GPU, {_gib(free_memory(torch.device('mps')))} free"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def kernels(device: torch.device) -> Rows:
    """Whether the fused kernels are used on a device in each precision, and why not."""
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        yield _name(dtype), reason_against(device, dtype) or "fused kernels are used"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def frameworks() -> Rows:
    """Each framework's version, and the repairs that its adapter made in this process."""
    for framework, packages in FRAMEWORKS.items():
        found = {package: installed(package) for package in packages}
        if found[framework] == "not installed":
            yield framework, extras.advice(framework) or "not installed"
            continue
        there = {name: text for name, text in found.items() if text != "not installed"}
        yield framework, ", ".join(f"{name} {text}" for name, text in there.items())
        try:
            with warnings.catch_warnings(action="ignore"):
                importlib.import_module(f"iart_plugin.{framework}")
        except Exception as error:  # whatever a foreign package raises while it is imported
            yield "", f"cannot be imported: {one_line(error)}"
        mends = importlib.import_module(f"iart_plugin.compat.{framework}").MENDS
        for mend in mends:
            yield (
                "",
                f"{'repaired' if mend.applied else 'not needed'}: {mend.summary.replace('``', '')}",
            )


def encoders() -> Rows:
    """Which of the encoders that ``upscale`` may use are in PyAV."""
    try:
        import av
    except ImportError:
        yield "PyAV", extras.advice("av") or ""
        return
    known = [name for name in ENCODERS if _has_encoder(av, name)]
    yield "PyAV", ", ".join(known)


def _has_encoder(av, name: str) -> bool:
    try:
        av.codec.Codec(name, "w")
    except (av.codec.codec.UnknownCodecError, ValueError):
        return False
    return True


def print_part(title: str, rows: Rows) -> None:
    """Print a part of the report, row by row as it is found."""
    print(f"\n{title}")
    for name, text in rows:
        print(f"  {name:<16}{text}", flush=True)


def check_kernels(device: torch.device, cases: tuple[Case, ...]) -> bool:
    """Print the table of the comparison and return whether all cases agree."""
    print(f"\nFused forms against the reference forms on {device_name(device)}, random weights")
    results = list(run_checks(device, cases))
    print(
        tabulate(
            [
                (
                    result.name,
                    _name(result.dtype),
                    f"{result.error:.1e}",
                    f"{1e3 * result.seconds:.1f}",
                    f"{1e3 * result.reference_seconds:.1f}",
                    result.failure or ("agrees" if result.agrees else "DISAGREES"),
                )
                for result in results
            ],
            headers=("what", "precision", "error", "fused ms", "reference ms", ""),
            disable_numparse=True,
            colalign=("left", "left", "right", "right", "right", "left"),
        )
    )
    for kernel, failure in failures().items():
        print(f"the kernel {kernel} failed and its reference form was used: {failure}")
    return all(result.agrees for result in results) and not failures()


def main(argv: Sequence[str] | None = None, *, cases: tuple[Case, ...] = CASES) -> int:
    """Run the command.

    Args:
        argv: Its arguments.
        cases: What to compare.

    Returns:
        0 if every fused form agrees with its reference form, else 1.
    """
    parser = argparse.ArgumentParser(
        prog="iart-plugin doctor",
        description="Say what is installed and used, and compare every fused form with its "
        "reference form on this machine. Paste the output into an issue.",
    )
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=default, help=f"where to compare (here {default})")
    device = torch.device(parser.parse_args(argv).device)
    print_part("Versions", versions())
    print_part("Devices", devices())
    print_part(f"Fused kernels on {device}", kernels(device))
    print_part("Frameworks", frameworks())
    print_part("Encoders", encoders())
    if not check_kernels(device, cases):
        print(f"\n{ADVICE}")
        return EXIT_ERROR
    print("\nAll agree.")
    return 0

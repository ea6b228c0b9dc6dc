"""Finds out how many registers and how much memory every kernel needs, without a GPU.

Each kernel's module yields its uses from ``shipped()``, see
:class:`~iart_plugin.kernels.launching.Shipped`. A use is started with tensors that have no data,
and its launches are recorded and compiled exactly as Triton would compile those of the real call.
"""

import importlib
import pkgutil
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import create_function_from_signature

import iart_plugin.kernels

from .launching import Launch, Shipped, recorded

CARDS = {80: 163, 86: 99, 89: 99, 90: 227}
"""KiB of shared memory that one block may have, for each compute capability times ten."""


class Line(NamedTuple):
    """The report's line for a kernel on a card."""

    name: str
    kernel: str
    card: int
    warps: int
    registers: int
    spilled: int
    shared: int

    @property
    def problem(self) -> str | None:
        """Why the kernel does not fit the card; None if it does."""
        if self.spilled:
            return f"{self.spilled} bytes spilled"
        if self.shared > CARDS[self.card] * 1024:
            return f"more shared memory than the {CARDS[self.card]} KiB of sm_{self.card}"
        return None

    def __str__(self) -> str:
        return (
            f"| {self.name}: {self.kernel} | sm_{self.card} | {self.warps} | {self.registers} "
            f"| {self.spilled} | {self.shared / 1024:.1f} KiB |"
        )


def uses() -> Iterator[Shipped]:
    """Yields the uses of the kernels of all modules of this package."""
    for module in pkgutil.iter_modules(iart_plugin.kernels.__path__):
        if module.name == "report":
            continue
        loaded = importlib.import_module(f"iart_plugin.kernels.{module.name}")
        if hasattr(loaded, "shipped"):
            yield from loaded.shipped()


def report(only: str = "", cards: Iterable[int] = CARDS) -> Iterator[Line]:
    """Compiles the kernels whose use's name contains ``only``, and yields a line for each card."""
    for use in uses():
        if only not in use.name:
            continue
        for card in cards:
            with recorded(divmod(card, 10)) as launches:
                use.start()
            for launch in launches:
                yield _line(use.name, launch, card)


def _line(name: str, launch: Launch, card: int) -> Line:
    compiled = _compile(launch, card)
    usage = _ptxas(compiled.asm["ptx"], card)
    return Line(
        name,
        launch.kernel.__name__.lstrip("_"),
        card,
        compiled.metadata.num_warps,
        int(re.search(r"Used (\d+) registers", usage)[1]),
        int(re.search(r"(\d+) bytes spill stores", usage)[1]),
        compiled.metadata.shared,
    )


def _compile(launch: Launch, card: int):
    """Compiles a launch with all that Triton knows about its arguments, such as divisibility."""
    kernel, target = launch.kernel, GPUTarget("cuda", card, 32)
    backend = make_backend(target)
    bind = create_function_from_signature(kernel.signature, kernel.params, backend)
    bound, specialization, options = bind(**launch.arguments)
    options, signature, constants, attributes = kernel._pack_args(
        backend, options, bound, specialization, options
    )
    source = ASTSource(kernel, signature, constants, attributes)
    return triton.compile(source, target=target, options=options.__dict__)


def _ptxas(ptx: str, card: int) -> str:
    """The output of ptxas about a kernel's registers, spills and memory."""
    ptxas = next(Path(triton.__file__).parent.glob("backends/nvidia/bin/ptxas"))
    architecture = re.search(r"\.target (sm_\w+)", ptx)[1]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "kernel.ptx")
        file.write_text(ptx)
        command = [ptxas, "-v", f"-arch={architecture}", file, "-o", Path(folder, "kernel.cubin")]
        return subprocess.run(command, capture_output=True, text=True, check=True).stderr

"""The house's rules, read off the source: who may import whom, and how long things may get.

``docs/architecture.md`` explains the rules. There are no exceptions.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "iart_plugin"
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60  # of code: without the docstring, comments and blank lines

FRAMEWORKS = {"basicsr", "mmagic", "mmcv", "mmengine", "vapoursynth"}
CORE = ("kernels", "ops", "flow", "alignment", "archs", "data")
MAY_IMPORT = {
    "kernels": set(),
    "ops": {"kernels"},
    "flow": {"ops", "kernels"},
    "alignment": {"ops", "kernels"},
    "archs": {"ops", "kernels", "flow", "alignment"},
    "data": {"flow"},
    "inference": set(CORE),
    "video": set(),
    "compat": set(),
    "vapoursynth": {*CORE, "inference"},
    "study": {*CORE, "inference"},
    "basicsr": {*CORE, "compat", "study"},
    "mmagic": {*CORE, "compat", "study"},
}
"""What the files of a folder may import beside their own and the single files beside the folders.

``commands`` leads everything and may import everything; nothing imports ``commands``.
"""


def python_files(*folders: str) -> list[Path]:
    """Every Python file of these folders."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    """The dotted name of a file of the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in python_files("iart_plugin")}


@cache
def imports(module: str) -> frozenset[str]:
    """What a file imports: at its top, in a function or for type checkers alone."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: -(node.level - 1) or None] if node.level else []
            source = ".".join([*parents, *([node.module] if node.module else [])])
            names = {f"{source}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else source for name in names}
    return frozenset(found - {module})


def folder(module: str) -> str:
    """The folder of ``iart_plugin`` that a file is in; "" for the single files beside them."""
    top = PACKAGE / module.split(".")[1] if module.count(".") else PACKAGE
    return top.name if top.is_dir() and top != PACKAGE else ""


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_imports_point_one_way(name):
    allowed = MAY_IMPORT[name] | {name, ""}
    wrong = [
        f"{module} imports {other}"
        for module in MODULES
        if folder(module) == name
        for other in imports(module)
        if other in MODULES and folder(other) not in allowed
    ]
    assert not wrong, f"{name} may import {sorted(allowed - {''})} alone"


def test_single_files_import_no_folder_above_the_operations():
    wrong = [
        f"{module} imports {other}"
        for module in MODULES
        if folder(module) == "" and module != "iart_plugin.__main__"
        for other in imports(module)
        if other in MODULES and folder(other)
    ]
    assert not wrong


def test_the_core_and_the_pipeline_know_no_framework():
    wrong = [
        f"{module} imports {other}"
        for module in MODULES
        if folder(module) in (*CORE, "inference", "video", "")
        for other in imports(module)
        if other.split(".")[0] in FRAMEWORKS
    ]
    assert not wrong


def test_kernels_alone_import_triton():
    wrong = [
        module
        for module in MODULES
        if folder(module) != "kernels"
        and any(other.split(".")[0] == "triton" for other in imports(module))
    ]
    assert not wrong


def test_no_circle_of_imports():
    graph = {module: imports(module) & set(MODULES) for module in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("a circle of imports: " + " <- ".join(error.args[1]))


def test_files_are_short():
    long = {
        path.relative_to(ROOT).as_posix()
        for path in python_files("iart_plugin", "integrations", "tools", "benchmarks", "tests")
        if len(path.read_text(encoding="utf-8").splitlines()) > MAX_FILE_LINES
    }
    assert not long, f"over {MAX_FILE_LINES} lines"


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> int:
    """The lines from ``def`` to the end that are neither blank, a comment nor the docstring."""
    first = function.body[0]
    documented = ast.get_docstring(function) is not None
    docstring = range(first.lineno, first.end_lineno + 1) if documented else ()
    numbers = range(function.lineno, function.end_lineno + 1)
    texts = (lines[number - 1].strip() for number in numbers if number not in docstring)
    return sum(1 for text in texts if text and not text.startswith("#"))


def test_functions_fit_a_screen():
    long = []
    for path in python_files("iart_plugin", "integrations", "tools", "benchmarks", "tests"):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                count = code_lines(node, text.splitlines())
                if count > MAX_FUNCTION_LINES:
                    long.append(f"{path.relative_to(ROOT)}: {node.name} has {count}")
    assert not long, f"over {MAX_FUNCTION_LINES} lines of code"


def test_importing_the_package_imports_nothing_heavy():
    program = (
        "import sys, iart_plugin; "
        "print(*{'torch', 'numpy', 'cv2', 'basicsr', 'mmengine'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.split() == []

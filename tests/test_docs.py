"""The pages and the README: their Python runs, their commands, files and links exist."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from iart_plugin import __version__
from iart_plugin.__main__ import COMMANDS
from tests.videos import Clip, pictures, write_clip

ROOT = Path(__file__).parents[1]
FOLDERS = ("docs", "model_cards")
PAGES = [ROOT / "README.md", *(p for name in FOLDERS for p in sorted((ROOT / name).glob("*.md")))]
NOT_RUN = re.compile(r"<!-- not run: (.+?) -->\s*$")
FENCE = re.compile(r'^```(\w*)(?: title="(.+?)")?\n(.*?)^```', re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)")
PATH = re.compile(r"`([a-z_]+/(?:[\w.-]+/)*[\w-]+\.(?:py|yml|md|txt))`")


class Block(NamedTuple):
    """A fenced block of a page; its title is the file that the reader writes or changes."""

    page: str
    line: int
    language: str
    title: str | None
    text: str
    excuse: str | None


def blocks() -> list[Block]:
    """Every fenced block, in the order of the pages."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            before = text[: match.start()]
            excuse = NOT_RUN.search(before)
            line = before.count("\n") + 1
            name = page.relative_to(ROOT).as_posix()
            found.append(Block(name, line, *match.groups(), excuse and excuse[1]))
    return found


BLOCKS = blocks()
FOLLOWED = ("docs/extending.md",)
"""Pages whose blocks are steps that build on each other."""
SHELL = ("", "bash", "sh", "shell", "console")


def named(block: Block) -> str:
    """The name of a block's test."""
    return f"{block.page}:{block.line}"


def test_every_block_says_its_kind():
    kinds = {*SHELL, "python", "yaml", "text", "ini", "toml", "diff"}
    assert not [named(block) for block in BLOCKS if block.language not in kinds]


@pytest.mark.parametrize(
    "block",
    [b for b in BLOCKS if b.language == "python" and not b.excuse and b.page not in FOLLOWED],
    ids=named,
)
def test_python_runs(block, tmp_path, basicvsr_weights):
    (tmp_path / "BasicVSR_Vimeo90K_BIx4.pth").symlink_to(basicvsr_weights)
    result = subprocess.run(
        [sys.executable, "-c", block.text], capture_output=True, text=True, cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("page", FOLLOWED)
def test_a_page_can_be_followed_literally(page, tmp_path):
    for folder in ("iart_plugin", "tests"):
        shutil.copytree(
            ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    write_clip(tmp_path / "in.mp4", Clip(frames=pictures(3)))
    binaries = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(tmp_path),
    }
    for block in BLOCKS:
        if block.page != page or block.excuse:
            continue
        if block.title:
            write_step(block, tmp_path / block.title)
            continue
        starts = {"python": [sys.executable, "-c"], "bash": ["bash", "-ec"]}
        result = subprocess.run(
            [*starts[block.language], block.text],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
        )
        assert result.returncode == 0, f"{named(block)}: {result.stdout}{result.stderr}"
    assert (tmp_path / "out.mp4").is_file()


def write_step(block: Block, path: Path) -> None:
    """Writes a new file, or replaces lines of one as a block with - and + says."""
    if block.language != "diff":
        assert not path.exists(), f"{named(block)}: {block.title} exists"
        path.write_text(block.text, encoding="utf-8")
        return
    text = path.read_text(encoding="utf-8")
    for old, new in re.findall(r"^-(.*\n)((?:^\+.*\n)+)", block.text, re.MULTILINE):
        assert text.count(old) == 1, f"{named(block)}: {block.title} has no single line {old}"
        text = text.replace(old, re.sub(r"^\+", "", new, flags=re.MULTILINE))
    path.write_text(text, encoding="utf-8")


def help_of(command: tuple[str, ...], monkeypatch, capsys) -> str:
    """What a command prints with ``--help``."""
    start = runpy.run_module if command[0] == "-m" else runpy.run_path
    monkeypatch.setattr("sys.argv", [*command[command[0] == "-m" :], "--help"])
    with pytest.raises(SystemExit):
        start(command[1] if command[0] == "-m" else str(ROOT / command[0]), run_name="__main__")
    return capsys.readouterr().out


class Call(NamedTuple):
    """A call of one of the project's commands in a page: how Python starts it, and its options."""

    command: tuple[str, ...]
    options: tuple[str, ...]


def own_calls(text: str) -> Iterator[Call]:
    """The calls of the project's commands, tools and benchmarks in a shell's lines."""
    for line in re.split(r"\n|&&|[|;()]", text.replace("\\\n", " ")):
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue
        for index, word in enumerate(words):
            is_module = words[max(index - 1, 0)] == "-m"
            command = None
            if (word == "iart-plugin" or (word == "iart_plugin" and is_module)) and words[
                index + 1 :
            ]:
                command = ("-m", "iart_plugin", words[index + 1])
            elif word == "benchmarks" and is_module:
                command = ("-m", "benchmarks")
            elif re.fullmatch(r"tools/\w+\.py", word):
                command = (word,)
            if command and not command[-1].startswith("-"):
                options = (w.partition("=")[0] for w in words[index:] if re.match(r"--[a-z]", w))
                yield Call(command, tuple(options))


CALLS = [
    (call, named(block))
    for block in BLOCKS
    if block.language in SHELL and not block.excuse
    for call in own_calls(block.text)
]
WITHOUT_HELP = ("tools/basicsr_train.py", "tools/basicsr_test.py")  # BasicSR's and torchrun's


@pytest.mark.parametrize("command", sorted({call.command for call, _ in CALLS}), ids=" ".join)
def test_commands_exist_with_their_options(command, monkeypatch, capsys):
    if command[:2] == ("-m", "iart_plugin"):
        assert command[2] in COMMANDS
    if command[0] in WITHOUT_HELP:
        assert (ROOT / command[0]).is_file()
        return
    text = help_of(command, monkeypatch, capsys)
    wrong = [
        f"{place}: {' '.join(command)} {option}"
        for call, place in CALLS
        if call.command == command
        for option in call.options
        if option not in text
    ]
    assert not wrong


def is_checked(line: str) -> bool:
    """Whether a shell's line calls the project's commands, a make target, or pip with extras."""
    extras = re.match(r'pip install "\.\[([a-z,]+)\]"', line)
    if extras:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return set(extras[1].split(",")) <= set(project["optional-dependencies"])
    target = re.match(r"make ([a-z]+)", line)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return bool(target and f"\n{target[1]}:" in makefile) or any(own_calls(line))


def test_shell_blocks_are_checked_or_say_why_not():
    unknown = [
        f"{named(block)}: {line}"
        for block in BLOCKS
        if block.language in SHELL and not block.excuse and block.page not in FOLLOWED
        for line in block.text.replace("\\\n", " ").splitlines()
        if line.partition("#")[0].strip() and not is_checked(line)
    ]
    assert not unknown, "\n".join(["write <!-- not run: why --> above these blocks:", *unknown])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_paths_lead_somewhere(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    links = [link for link in LINK.findall(text) if "://" not in link and "mailto:" not in link]
    lost = [link for link in links if not (page.parent / link).exists()]
    places = (ROOT, ROOT / "iart_plugin", page.parent)
    lost += [
        path for path in PATH.findall(text) if not any((place / path).exists() for place in places)
    ]
    assert not lost


def test_the_site_lists_every_page():
    listed = re.findall(r": (\w+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = [page.name for page in (ROOT / "docs").glob("*.md")]
    of_the_top = ["contributing.md", "security.md", "code_of_conduct.md"]  # docs/hooks.py
    assert sorted(listed) == sorted(pages + of_the_top)


def test_the_changelog_begins_with_the_version():
    page = (ROOT / "docs" / "changelog.md").read_text(encoding="utf-8")
    assert re.search(r"^## (\S+)", page, re.MULTILINE)[1] == __version__


def test_results_quote_the_papers_table():
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    quoted = page.partition("## The paper's figures")[2].partition("## Ours")[0]
    for name in ("ia_cnn", "ia_rt"):
        metafile = yaml.safe_load((ROOT / f"configs/mmagic/{name}/metafile.yml").read_text())
        for model in metafile["Models"]:
            if model["Metadata"].get("Results From") == "the paper, Table 2":
                for result in model["Results"]:
                    psnr, ssim = result["Metrics"].values()
                    assert f"{psnr:.2f} / {ssim:.4f}" in quoted, model["Name"]

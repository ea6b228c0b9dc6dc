"""``iart-plugin configs``: lists, prints or copies the option files and configs.

A wheel holds them in MIM's layout, ``iart_plugin/.mim/configs``; a clone has them in ``configs``.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import shutil
from collections.abc import Sequence
from pathlib import Path

import iart_plugin
from iart_plugin.commands.console import fail

EXAMPLES = """\
A config is named by its path in the list or by the end of that path.

  iart-plugin configs                                       lists all of them
  iart-plugin configs IACNN_Vid4.yml                        prints one
  iart-plugin configs IACNN_Vid4.yml --copy .               copies it, to be edited
  mim test mmagic $(iart-plugin configs ia-cnn_c64b30_vid4-bi --path) --checkpoint FILE
"""


def configs_folder() -> Path:
    """The folder that holds ``basicsr`` and ``mmagic``, in the wheel or in the clone.

    Raises:
        FileNotFoundError: There is no such folder in either.
    """
    package = Path(iart_plugin.__file__).parent
    for folder in (package / ".mim" / "configs", package.parent / "configs"):
        if (folder / "basicsr").is_dir():
            return folder
    raise FileNotFoundError(f"{package}: this installation has no configs")


def list_configs(folder: Path) -> list[str]:
    """The paths in the folder of all configs that can be run; bases and metafiles are left out."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(
        path.as_posix()
        for path in files
        if path.suffix in (".yml", ".py")
        and path.name != "metafile.yml"
        and not {"_base_", "__pycache__"} & set(path.parts)
    )


def find_config(folder: Path, name: str) -> Path:
    """The config of this name, with or without its suffix and its folders.

    Raises:
        ValueError: There is none, or there are several.
    """
    names = list_configs(folder)
    wanted = tuple(Path(name).parts)
    found = [
        path
        for path in map(Path, names)
        if wanted in (path.parts[-len(wanted) :], path.with_suffix("").parts[-len(wanted) :])
    ]
    if len(found) == 1:
        return folder / found[0]
    if found:
        raise ValueError(f"{name} is the name of several: {', '.join(map(str, found))}")
    stems = {Path(known).stem: known for known in names}
    near = difflib.get_close_matches(Path(name).stem, stems, n=3)
    hint = f"did you mean {' or '.join(stems[stem] for stem in near)}?" if near else ""
    raise ValueError(f"no config is named {name}; {hint or '`iart-plugin configs` lists them'}")


def bases(config: Path) -> list[Path]:
    """All files that an MMagic config inherits from, directly or indirectly."""
    if config.suffix != ".py":
        return []
    found = []
    for node in ast.parse(config.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_base_":
            value = ast.literal_eval(node.value)
            for name in [value] if isinstance(value, str) else value:
                if "::" not in name:  # "mmagic::…" is a config of the installed MMagic
                    base = (config.parent / name).resolve()
                    found += [base, *bases(base)]
    return found


def copy_config(config: Path, folder: Path, target: Path) -> Path:
    """Copy a config. If it has bases, they are copied too, with the same folders between them.

    Args:
        config: The file.
        folder: The configs' folder.
        target: The folder to copy into.

    Returns:
        The copy.

    Raises:
        FileExistsError: A file of that name is there already.
    """
    inherited = list(dict.fromkeys(bases(config)))
    top = folder.resolve() / "mmagic" if inherited else config.parent.resolve()
    copies = {file: target / file.relative_to(top) for file in (config.resolve(), *inherited)}
    for copy in copies.values():
        if copy.exists():
            raise FileExistsError(f"{copy} exists; name another folder")
    for file, copy in copies.items():
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    return copies[config.resolve()]


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of ``configs``."""
    parser = argparse.ArgumentParser(
        prog="iart-plugin configs",
        description="List, print or copy BasicSR's option files and MMagic's configs.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", help="the config; without it, all are listed")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--path", action="store_true", help="print where the file is")
    action.add_argument("--copy", type=Path, metavar="FOLDER", help="copy it with its bases")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return the exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        folder = configs_folder()
        if args.name is None:
            if args.copy:
                parser.error("--copy needs the name of a config")
            print(folder if args.path else "\n".join(list_configs(folder)))
            return 0
        config = find_config(folder, args.name)
        if args.copy:
            print(copy_config(config, folder, args.copy))
        elif args.path:
            print(config)
        else:
            print(config.read_text(encoding="utf-8"), end="")
    except (OSError, ValueError) as error:
        return fail(error)
    return 0

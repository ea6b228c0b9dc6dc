"""A record beside a folder's files of what they were made with, so that others do not join them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iart_plugin.files import write_atomically

RECIPE = "recipe.json"


def record_recipe(
    folder: Path, recipe: Mapping[str, Any], *, files: str | None = None, grows: bool = False
) -> None:
    """Write down what a folder's files are made with, or compare with what it says already.

    Args:
        folder: Made if absent.
        recipe: What JSON can hold.
        files: A pattern. Files that it matches are refused where there is no recipe, because nobody
            knows what they were made with.
        grows: Whether entries may be added to a recipe that is there.

    Raises:
        ValueError: If the folder's files were made with something else or nobody knows what, or
            its record is damaged.
    """
    path = folder / RECIPE
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ValueError(f"{path} is damaged; remove {folder} and start again")
        for key in [*found, *(() if grows else recipe)]:
            if found.get(key) != recipe.get(key):
                raise ValueError(
                    f"{folder} holds files made with {key} = {found.get(key)}, not "
                    f"{recipe.get(key)}; use another folder, or remove it"
                )
        if len(found) == len(recipe):
            return
    elif files and (unknown := next(folder.glob(files), None)):
        raise ValueError(
            f"{unknown} is there, and {path}, which would say what it was made with, is not; use "
            "another folder, or remove it"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(recipe, indent=2) + "\n")

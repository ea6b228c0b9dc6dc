"""Records what a folder's files were made with, so that other files are not mixed with them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iart_plugin.files import write_atomically

RECIPE = "recipe.json"


def record_recipe(
    folder: Path, recipe: Mapping[str, Any], *, files: str | None = None, grows: bool = False
) -> None:
    """Record what a folder's files are made with, or compare it with the existing record.

    Args:
        folder: The folder, which is made if it does not exist.
        recipe: The settings that the files are made with, in values that JSON can hold.
        files: A pattern. If there is no record, the folder must not hold files that match it,
            because it is unknown what they were made with.
        grows: Whether entries may be added to an existing record.

    Raises:
        ValueError: If the folder's files were made with other or unknown settings, or the record is
            damaged.
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

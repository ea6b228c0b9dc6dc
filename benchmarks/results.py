"""The files that measurements are kept in: lists of rows, each with a name."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def keep(row: Mapping[str, Any], path: Path) -> None:
    """Puts a row into the file, in place of an older one of its name, as soon as it is known."""
    rows = json.loads(path.read_text()) if path.exists() else []
    rows = [old for old in rows if old["name"] != row["name"]]
    path.write_text(json.dumps([*rows, row], indent=1) + "\n")

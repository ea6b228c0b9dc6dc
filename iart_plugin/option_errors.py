"""The error for an option that cannot be used, and the names that its message gives."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable


class OptionError(ValueError):
    """An option file, or something that it names, cannot be used; the message says what to do."""


def nearest(name: object, known: Collection[str]) -> str:
    """The question "Did you mean …?" for a misspelt name; empty if ``known`` is empty."""
    names = {known_name.lower(): known_name for known_name in known}
    found = difflib.get_close_matches(str(name).lower(), names, n=1, cutoff=0.0)
    return f"Did you mean '{names[found[0]]}'?" if found else ""


def check_keys(given: Iterable[str], known: Collection[str], where: str) -> None:
    """Raise an error for a key that nothing reads.

    Args:
        given: the keys of a section.
        known: the keys that are read.
        where: the section's name in the message, such as ``train``.

    Raises:
        OptionError: naming the first unknown key and the nearest known one.
    """
    for key in given:
        if key not in known:
            raise OptionError(
                f"Unknown key '{key}' in {where}. {nearest(key, known)} "
                f"Known keys: {', '.join(sorted(known))}."
            )


def as_arguments(message: str) -> str:
    """Reword a message that names options, so that it names arguments: warm_up for --warm-up."""
    return re.sub(r"--([a-z][a-z-]*)", lambda option: option[1].replace("-", "_"), message)

"""Makes BasicSR option files that are wrong in ways that a seed decides."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

VALUES = (
    *(None, True, False, -1, 0, 1, 2.5, 10**12, -(10**12), float("nan"), float("inf")),
    *("", "1e-3", "64", "none", "../x", "nowhere", [], [0], [-1], [None], {}, {"type": "x"}),
)
TAGS = (
    "!!python/object/apply:os.getcwd []",
    "!!python/name:os.system",
    "!x 1",
    "&a [*a]",
    "!!int x",
)
Options = dict[str, Any]
Change = Callable[[random.Random, Options], None]


def _places(section: Any) -> Iterator[tuple[dict, str]]:
    """Every key of the options, with the section that it is in."""
    for key, value in section.items():
        yield section, key
        if isinstance(value, dict):
            yield from _places(value)


def _removed(rng: random.Random, opt: Options) -> None:
    section, key = rng.choice(list(_places(opt)))
    del section[key]


def _misspelt(rng: random.Random, opt: Options) -> None:
    section, key = rng.choice(list(_places(opt)))
    at = rng.randrange(len(key))
    other = rng.choice(
        (key[:at] + key[at + 1 :], key + "s", key.upper(), key[:at] + "_" + key[at:])
    )
    section[other] = section.pop(key)


def _other_value(rng: random.Random, opt: Options) -> None:
    section, key = rng.choice(list(_places(opt)))
    section[key] = copy.deepcopy(rng.choice(VALUES))


def _misspelt_value(rng: random.Random, opt: Options) -> None:
    texts = [(s, k) for s, k in _places(opt) if isinstance(s[k], str) and s[k]]
    section, key = rng.choice(texts)
    at = rng.randrange(len(section[key]))
    section[key] = section[key][:at] + rng.choice(("", "x")) + section[key][at + 1 :]


def _other_number(rng: random.Random, opt: Options) -> None:
    numbers = [(s, k) for s, k in _places(opt) if isinstance(s[k], (int, float))]
    section, key = rng.choice(numbers)
    section[key] = rng.choice((-section[key], section[key] * 1000, str(section[key]), 0, 0.5, -1))


def _moved(rng: random.Random, opt: Options) -> None:
    (one, key), (other, _) = rng.choices(list(_places(opt)), k=2)
    value = one.pop(key)
    if value is not other:
        other[key] = value


CHANGES: tuple[Change, ...] = (
    *(_removed, _misspelt, _other_value, _other_value, _misspelt_value, _other_number, _moved),
)


def every_key(folder: Path, good: Options, *, seed: int) -> Iterator[tuple[str, Path]]:
    """Write option files in which one key is misspelt or has another value, for every key.

    Args:
        folder: where they are written, one after the other under one name.
        good: the options that they are made from.
        seed: decides which of the values each key gets.

    Yields:
        What was done, and the file's path.
    """
    path = folder / "options.yml"
    for index, (_, key) in enumerate(list(_places(good))):
        value = VALUES[(index + seed) % len(VALUES)]
        for done, change in (
            (f"{key} misspelt", {key + "x": 1}),
            (f"{key}: {value}", {key: value}),
        ):
            opt = copy.deepcopy(good)
            section, _ = list(_places(opt))[index]
            del section[key]
            section.update(copy.deepcopy(change))
            path.write_text(yaml.safe_dump(opt))
            yield f"{seed}, {done}", path


def _damaged_text(rng: random.Random, text: str) -> str:
    """The file's text with a line twice, a tag, a cut, or characters that are not meant."""
    lines = text.splitlines()
    at = rng.randrange(len(lines))
    kind = rng.randrange(5)
    if kind == 0:
        return "\n".join([*lines[: at + 1], *lines[at:]])
    if kind == 1:
        key = lines[at].partition(":")[0]
        return "\n".join([*lines[:at], f"{key}: {rng.choice(TAGS)}", *lines[at + 1 :]])
    if kind == 2:
        return text[: rng.randrange(len(text))]
    place = rng.randrange(len(text))
    return text[:place] + rng.choice("\t\0{}[]:&*!%@`\n\ufeff") + text[place + 1 :]


def malformed_option_files(
    folder: Path, good: Options, *, seed: int, count: int
) -> Iterator[tuple[str, Path]]:
    """Write option files, one after the other under one name.

    Args:
        folder: where they are written.
        good: the options that they are made from.
        seed: decides what is wrong with them.
        count: how many to make.

    Yields:
        What was done, and the file's path.
    """
    rng = random.Random(seed)
    path = folder / "options.yml"
    for index in range(count):
        opt, done = copy.deepcopy(good), []
        for _ in range(rng.choice((1, 1, 1, 2))):
            change = rng.choice(CHANGES)
            change(rng, opt)
            done.append(change.__name__)
        text = yaml.safe_dump(opt)
        if rng.random() < 0.2:
            text = _damaged_text(rng, text)
            done.append("text")
        path.write_bytes(text.encode())
        yield f"{seed}/{index}: {', '.join(done)}", path

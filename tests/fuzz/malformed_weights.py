"""Makes weight files that are wrong in every way that was met, out of a sound network."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import save, save_file
from torch import Tensor

State = dict[str, Tensor]
Make = Callable[[State, Path], None]


class _Payload:
    """What an attacker would put into a file: it makes a folder as soon as it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("unpickled",)


def _saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _with(change: Callable[[State], object]) -> Make:
    """A file of BasicSR's layout whose weights were changed."""

    def make(state: State, path: Path) -> None:
        state = {key: value.clone() for key, value in state.items()}
        changed = change(state)
        torch.save({"params": state if changed is None else changed}, path)

    return make


def _all(change: Callable[[Tensor], Tensor]) -> Make:
    return _with(lambda state: {key: change(value) for key, value in state.items()})


def _one(key: str, change: Callable[[Tensor], Tensor]) -> Make:
    return _with(lambda state: state.__setitem__(key, change(state[key])))


def _value(number: float) -> Callable[[Tensor], Tensor]:
    def change(value: Tensor) -> Tensor:
        value = value.clone()
        value.flatten()[-1] = number
        return value

    return change


def _bytes(content: Callable[[State], bytes]) -> Make:
    return lambda state, path: path.write_bytes(content(state))


def _rezipped(change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> Make:
    def make(state: State, path: Path) -> None:
        source = zipfile.ZipFile(io.BytesIO(_saved({"params": state})))
        with zipfile.ZipFile(path, "w", compression) as target:
            for name in source.namelist():
                target.writestr(name, change(name, source.read(name)))

    return make


def _wrong_checksum(state: State, path: Path) -> None:
    content = bytearray(_saved({"params": state}))
    weight = state["fusion.weight"].numpy().tobytes()
    content[content.index(weight) + 1] ^= 0x10
    path.write_bytes(bytes(content))


def _bomb(state: State, path: Path) -> None:
    """300 kB that hold 300 MiB of zeros."""
    _rezipped(lambda _, data: data, zipfile.ZIP_DEFLATED)(state, path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as target:
        target.writestr("archive/data/9999", bytes(300 << 20))


def _safetensors(metadata: object) -> Make:
    def make(state: State, path: Path) -> None:
        content = save(state)
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        header["__metadata__"] = metadata
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])

    return make


def _mixed(prefix: str) -> Make:
    return _with(
        lambda state: {
            (prefix if i % 2 else "") + key: value for i, (key, value) in enumerate(state.items())
        }
    )


def _folder(state: State, path: Path) -> None:
    path.mkdir()


def _dangling(state: State, path: Path) -> None:
    path.symlink_to(path.with_name("gone"))


def _fifo(state: State, path: Path) -> None:
    os.mkfifo(path)


def _options(options: object) -> Make:
    return lambda state, path: torch.save({"params": state, "options": options}, path)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 17\n"

CASES: dict[str, Make] = {
    "empty": _bytes(lambda state: b""),
    "text": _bytes(lambda state: b"no weights"),
    "LFS pointer": _bytes(lambda state: LFS),
    "web page": _bytes(lambda state: b"<!DOCTYPE html><html>Not found</html>"),
    "folder": _folder,
    "dangling link": _dangling,
    "cut zip": _bytes(lambda state: _saved(state)[:-4000]),
    "cut pickle": _bytes(lambda state: pickle.dumps({"a": 1})[:-3]),
    "pickle of a number": _bytes(lambda state: pickle.dumps(7)),
    "pickle with code": _bytes(lambda state: _saved({"params": state, "x": _Payload()})),
    "old pickle with code": _bytes(lambda state: pickle.dumps(_Payload())),
    "other zip": _rezipped(lambda name, data: b"", zipfile.ZIP_STORED),
    "zip without pickle": lambda state, path: zipfile.ZipFile(path, "w").writestr("a.txt", "b"),
    "wrong checksum": _wrong_checksum,
    "bomb": _bomb,
    "list": lambda state, path: torch.save([1, 2], path),
    "no tensors": lambda state, path: torch.save({"meta": {"epoch": 1}}, path),
    "empty params": lambda state, path: torch.save({"params": {}}, path),
    "params a tensor": lambda state, path: torch.save({"params": torch.ones(2)}, path),
    "params None": lambda state, path: torch.save({"params": None}, path),
    "two networks": lambda state, path: torch.save({"net_a": state, "net_b": state}, path),
    "another network": lambda state, path: torch.save({"head.weight": torch.ones(2)}, path),
    "key missing": _with(lambda state: {k: v for k, v in state.items() if k != "conv_hr.bias"}),
    "key of the options missing": _with(
        lambda state: {k: v for k, v in state.items() if k != "fusion.weight"}
    ),
    "key too many": _with(lambda state: state | {"fusion.gain": torch.ones(1)}),
    "huge number in a key": _with(
        lambda state: state | {"backward_trunk.main.2.1000000000.weight": torch.ones(1)}
    ),
    "wrong shape": _one("upconv1.weight", lambda value: value[:-1]),
    "lying width": _one("fusion.weight", lambda value: torch.ones(100_000, 2, 1, 1)),
    "lying extent": _one("fusion.weight", lambda value: torch.ones(1).expand(100_000, 100_000)),
    "scalar": _one("fusion.weight", lambda value: torch.tensor(1.0)),
    "zero channels": _with(lambda state: {k: v[:0] if v.dim() else v for k, v in state.items()}),
    "mixed module.": _mixed("module."),
    "mixed generator.": _mixed("generator."),
    "NaN": _one("conv_last.bias", _value(float("nan"))),
    "infinite": _one("spynet.basic_module.3.basic_module.0.weight", _value(float("-inf"))),
    "integer": _all(lambda value: (100 * value).to(torch.int32)),
    "bool": _all(lambda value: value > 0),
    "complex": _all(lambda value: value.to(torch.complex64)),
    "all zero": _all(torch.zeros_like),
    "sparse": _one("fusion.weight", lambda value: value.to_sparse()),
    "meta": _one("fusion.weight", lambda value: value.to("meta")),
    "options a list": _options([1, 2]),
    "options of another network": _options({"embed_dim": 8}),
    "options with a path": _options({"spynet_path": "/etc/hostname"}),
    "options that shapes deny": _options({"num_block": 1_000_000_000}),
    "options of a wrong type": _options({"alignment_options": 7}),
    "unknown alignment": _options({"alignment": "magic"}),
    "safetensors metadata no JSON": _safetensors({"options": "{num_heads: 8"}),
    "safetensors metadata a list": _safetensors({"options": "[8]"}),
    "safetensors metadata deep": _safetensors({"options": "[" * 100_000}),
    "safetensors metadata no text": _safetensors({"options": 8}),
    "safetensors metadata itself a list": _safetensors([8]),
    "cut safetensors": _bytes(lambda state: save(state)[:-100]),
    "safetensors header too long": _bytes(
        lambda state: (1 << 60).to_bytes(8, "little") + save(state)[8:]
    ),
    "cut safetensors header": _bytes(lambda state: save(state)[:200]),
} | ({"pipe": _fifo} if hasattr(os, "mkfifo") else {})
"""Files that everything must refuse, by what is wrong with them."""


def damaged(state: State, folder: Path, seed: int, count: int) -> Iterator[tuple[str, Path]]:
    """Sound files with random bytes changed, taken out, put in or cut off.

    Args:
        state: the weights.
        folder: where the files are written.
        seed: what decides the damage.
        count: how many files.

    Yields:
        What was done, and the file.
    """
    save_file(state, folder / "sound.safetensors")
    torch.save({"params": state}, folder / "sound.pth")
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)
    sound = [(folder / name).read_bytes() for name in ("sound.safetensors", "sound.pth", "old.pth")]
    generator = random.Random(seed)
    for i in range(count):
        content = bytearray(sound[i % 3])
        # Most of a file is numbers: half of the damage goes to the ends, where its structure is.
        reach = generator.choice([200, 4000, len(content)])
        place = generator.randrange(min(reach, len(content)))
        place = generator.choice([place, len(content) - 1 - place])
        length = generator.choice([1, 4, 64])
        what = generator.choice(["changed", "taken out", "put in", "cut off", "zeroed"])
        if what == "changed":
            content[place] ^= 1 << generator.randrange(8)
        elif what == "taken out":
            del content[place : place + length]
        elif what == "put in":
            content[place:place] = generator.randbytes(length)
        elif what == "cut off":
            del content[place:]
        else:
            content[place : place + length] = bytes(min(length, len(content) - place))
        path = folder / f"damaged_{i}{('.safetensors', '.pth', '.pth')[i % 3]}"
        path.write_bytes(bytes(content))
        yield f"{length} bytes {what} at {place} of {path.name}", path

"""Reads option files without running code from them, and completes them as BasicSR does.

BasicSR reads option files with PyYAML's full loader, which runs any code that a file names. Here a
safe loader reads them. Apart from YAML's own tags it knows only ``!!python/name:iart_plugin…``, the
tag of the plugin's line.
"""

from __future__ import annotations

import argparse
import importlib
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from basicsr.utils import set_random_seed
from basicsr.utils.dist_util import get_dist_info, init_dist

from iart_plugin.option_errors import OptionError, nearest

MAX_BYTES = 1_000_000
"""Option files have a few kilobytes. A file larger than this is refused."""

MAX_VALUES = 100_000
"""The largest number of values in a file, where every alias counts as what it stands for."""

NAME_TAG = "tag:yaml.org,2002:python/name:"


class OptionLoader(yaml.SafeLoader):
    """A safe loader that also refuses repeated keys, and aliases that multiply the values."""

    def get_single_node(self) -> yaml.Node | None:
        """Compose the document and refuse it if it is too large."""
        node = super().get_single_node()
        _count_values(node, {})
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """Make a dictionary from a mapping, and refuse a key that is given twice."""
        seen: dict[str, int] = {}
        for key, _ in node.value:
            name = getattr(key, "value", None)
            if isinstance(name, str) and name != "<<":
                line = key.start_mark.line + 1
                if name in seen:
                    raise OptionError(f"'{name}' is given twice, in lines {seen[name]} and {line}.")
                seen[name] = line
        return super().construct_mapping(node, deep)

    def construct_plugin_name(self, name: str, node: yaml.Node) -> str:
        """The text that ``!!python/name:iart_plugin…`` stands for."""
        module, _, attribute = name.rpartition(".")
        value = None
        if module.partition(".")[0] == "iart_plugin":
            value = getattr(importlib.import_module(module), attribute, None)
        if not isinstance(value, str):
            self.refuse_tag(name, node)
        return value

    def refuse_tag(self, name: str, node: yaml.Node) -> None:
        """Refuse a tag, and name it in the error."""
        tag = node.tag.replace("tag:yaml.org,2002:", "!!")
        raise OptionError(
            f"Line {node.start_mark.line + 1} has the tag {tag}, which is not read here: a tag can "
            "run code. Known are !!float and !!python/name:iart_plugin.basicsr.PLUGIN."
        )


OptionLoader.add_multi_constructor(NAME_TAG, OptionLoader.construct_plugin_name)
OptionLoader.add_multi_constructor("", OptionLoader.refuse_tag)


def _count_values(node: yaml.Node | None, known: dict[int, int]) -> int:
    """The number of values below a node, with every alias written out."""
    if node is None or isinstance(node, yaml.ScalarNode):
        return 1
    if known.get(id(node)) == 0:
        raise OptionError(f"Line {node.start_mark.line + 1} contains itself through an alias.")
    if id(node) not in known:
        known[id(node)] = 0  # being counted
        parts = node.value
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in parts for part in pair]
        known[id(node)] = 1 + sum(_count_values(part, known) for part in parts)
    if known[id(node)] > MAX_VALUES:
        raise OptionError(f"It holds over {MAX_VALUES:,} values once its aliases are written out.")
    return known[id(node)]


def read_option_file(path: Path) -> dict[str, Any]:
    """Read an option file without running anything that it names.

    Raises:
        OptionError: in one line, if the file is missing, is not YAML, or is not an option file.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise OptionError(f"The option file {path} cannot be read: {error.strerror}.") from error
    if len(data) > MAX_BYTES:
        raise OptionError(f"{path} has {len(data):,} bytes: it is no option file.")
    try:
        opt = yaml.load(data, Loader=OptionLoader)
    except OptionError as error:
        raise OptionError(f"{path}: {error}") from error
    except RecursionError as error:
        raise OptionError(f"{path} is nested too deeply.") from error
    except (yaml.YAMLError, ValueError) as error:
        raise OptionError(f"{path} is not readable as YAML: {_one_line(error)}") from error
    if not isinstance(opt, dict):
        what = "is empty" if opt is None else f"holds a {type(opt).__name__}"
        raise OptionError(f"{path} {what}; an option file holds sections of options.")
    return opt


def _one_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f" in line {mark.line + 1}" if mark else ""
    return f"{getattr(error, 'problem', None) or ' '.join(str(error).split())}{place}."


def change_options(opt: dict[str, Any], changes: Sequence[str]) -> None:
    """Apply the changes that ``--force_yml`` lists, such as ``train:total_iter=100``.

    Raises:
        OptionError: if a change has another form, or names a section that the file lacks.
    """
    for change in changes:
        keys, equals, text = change.partition("=")
        *sections, last = (key.strip() for key in keys.split(":"))
        if not equals or not last:
            raise OptionError(f"--force_yml takes SECTION:KEY=VALUE, got '{change}'.")
        section = opt
        for key in sections:
            if not isinstance(section.get(key), dict):
                raise OptionError(
                    f"--force_yml {change}: the options have no section '{key}'. "
                    f"{nearest(key, [k for k, v in section.items() if isinstance(v, dict)])}"
                )
            section = section[key]
        section[last] = _value(text.strip())


def _value(text: str) -> Any:
    """Read a command line's value as YAML; ``none`` means no value, ``!!float1e-3`` works too."""
    if text.lower() == "none":
        return None
    try:
        if text.startswith("!!float"):
            return float(text.removeprefix("!!float"))
        value = yaml.load(text, Loader=OptionLoader)
    except (yaml.YAMLError, ValueError):
        return text
    if isinstance(value, (str, list, dict)) and not text.startswith(("[", "{", '"', "'")):
        return text
    return value


def read_arguments() -> argparse.Namespace:
    """Read a command line with the arguments of ``python -m basicsr.train`` or ``basicsr.test``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-opt", required=True, help="the option file")
    launchers = ["none", "pytorch", "slurm"]
    parser.add_argument("--launcher", choices=launchers, default="none", help="what starts the job")
    parser.add_argument("--auto_resume", action="store_true", help="go on after the newest save")
    parser.add_argument("--debug", action="store_true", help="log, save and validate often")
    parser.add_argument("--local_rank", type=int, default=0, help="not used")
    text = "change options, as in train:ema_decay=0.999 path:resume_state=none"
    parser.add_argument(
        "--force_yml", nargs="+", default=[], metavar="SECTION:KEY=VALUE", help=text
    )
    return parser.parse_args()


def read_options(is_train: bool, check: Callable[[dict[str, Any]], None]) -> tuple[dict, str]:
    """Read the command line and its option file, and complete the options as BasicSR does.

    Args:
        is_train: whether the options are for a training.
        check: a function that refuses wrong options; it is called before they are completed.

    Returns:
        The options, and the option file's name.

    Raises:
        OptionError: if ``check`` refuses the options, or the file cannot be read.
    """
    arguments = read_arguments()
    opt = read_option_file(Path(arguments.opt))
    change_options(opt, arguments.force_yml)
    opt["is_train"] = is_train
    check(opt)
    opt["auto_resume"] = arguments.auto_resume
    _start_processes(opt, arguments.launcher)
    if opt.get("manual_seed") is None:
        opt["manual_seed"] = random.randint(1, 10000)
    set_random_seed(opt["manual_seed"] + opt["rank"])
    if opt["num_gpu"] == "auto":
        opt["num_gpu"] = torch.cuda.device_count()
    if arguments.debug:
        _make_debug(opt)
    _complete_datasets(opt)
    _complete_paths(opt)
    return opt, arguments.opt


def _start_processes(opt: dict[str, Any], launcher: str) -> None:
    opt["dist"] = launcher != "none"
    if opt["dist"]:
        init_dist(launcher, **((opt.get("dist_params") or {}) if launcher == "slurm" else {}))
    opt["rank"], opt["world_size"] = get_dist_info()


def _make_debug(opt: dict[str, Any]) -> None:
    """BasicSR's debug mode: a run of another name that logs, saves and validates often."""
    if not opt["name"].startswith("debug"):
        opt["name"] = f"debug_{opt['name']}"
    if opt["is_train"]:
        if opt.get("val"):
            opt["val"]["val_freq"] = 8
        opt["logger"].update(print_freq=1, save_checkpoint_freq=8)


def _complete_datasets(opt: dict[str, Any]) -> None:
    for section, data in opt["datasets"].items():
        data["phase"] = section.partition("_")[0]  # of val, val_2, test_1
        if "scale" in opt:
            data["scale"] = opt["scale"]
        for key in ("dataroot_gt", "dataroot_lq"):
            if data.get(key) is not None:
                data[key] = str(Path(data[key]).expanduser())


def _complete_paths(opt: dict[str, Any]) -> None:
    paths = opt.setdefault("path", {})
    for key, value in paths.items():
        if isinstance(value, str) and ("resume_state" in key or "pretrain_network" in key):
            paths[key] = str(Path(value).expanduser())
    opt["root_path"] = str(Path.cwd())
    root = Path.cwd() / ("experiments" if opt["is_train"] else "results") / opt["name"]
    paths["experiments_root" if opt["is_train"] else "results_root"] = str(root)
    paths["log"], paths["visualization"] = str(root), str(root / "visualization")
    if opt["is_train"]:
        for folder in ("models", "training_states"):
            paths[folder] = str(root / folder)

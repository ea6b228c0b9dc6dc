"""BasicSR's own train and test pipelines, with this package's checks in front of them."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from basicsr.utils.dist_util import get_dist_info

from iart_plugin import compat
from iart_plugin.basicsr import resume
from iart_plugin.basicsr.checks import OptionError, check_dataset, check_options

_checked: set[str] = set()  # data sets that this process has found in order


def install() -> None:
    """Check data sets before they are built, and read training data resumably. Idempotent."""
    compat.replace_in_basicsr_pipelines("build_dataset", _checked_build_dataset)
    resume.install()


def _checked_build_dataset(build_dataset: Callable) -> Callable:
    @functools.wraps(build_dataset)
    def checked(dataset_opt: dict[str, Any]):
        _check_dataset_once(dataset_opt)
        dataset = build_dataset(dataset_opt)
        return resume.SeededDataset(dataset, 0) if dataset_opt["phase"] == "train" else dataset

    return checked


def _check_dataset_once(dataset_opt: dict[str, Any]) -> None:
    key = repr(sorted(dataset_opt.items()))
    if get_dist_info()[0] == 0 and key not in _checked:  # one process looks, torchrun ends all
        check_dataset(dataset_opt)
        _checked.add(key)


def _checked_parse_options(parse_options: Callable) -> Callable:
    @functools.wraps(parse_options)
    def checked(*args: Any, **kwargs: Any):
        opt, arguments = parse_options(*args, **kwargs)
        check_options(opt)
        # Here already, because the pipeline moves an earlier run of this name aside next.
        for dataset_opt in opt["datasets"].values():
            _check_dataset_once(dataset_opt)
        return opt, arguments

    return checked


def run(kind: Literal["train", "test"]) -> None:
    """Run BasicSR's pipeline on the command line's option file, writing to the working directory.

    The command line is that of ``python -m basicsr.train`` or ``basicsr.test``. The option file may
    do without the plugin's line.

    Raises:
        SystemExit: with one line on standard error, if :mod:`iart_plugin.basicsr.checks` finds
            something wrong.
    """
    compat.replace_in_basicsr_pipelines("parse_options", _checked_parse_options)
    module = sys.modules[f"basicsr.{kind}"]
    try:
        getattr(module, f"{kind}_pipeline")(str(Path.cwd()))
    except OptionError as error:
        logging.getLogger("basicsr").debug("Refused.", exc_info=True)
        sys.exit(f"error: {error}")

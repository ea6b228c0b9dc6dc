"""Trains and tests with BasicSR: one function each, which takes the options and does the rest.

``tools/basicsr_train.py`` and ``tools/basicsr_test.py`` run these functions. ``python -m
basicsr.train`` and ``basicsr.test`` run them too: the plugin's line in an option file imports this
package, and :func:`take_over` then replaces the rest of BasicSR's own pipeline.
"""

from __future__ import annotations

import argparse
import functools
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from basicsr.data import build_dataloader, build_dataset
from basicsr.models import build_model
from basicsr.train import init_tb_loggers
from basicsr.utils import (
    AvgTimer,
    MessageLogger,
    get_env_info,
    get_root_logger,
    get_time_str,
    make_exp_dirs,
    mkdir_and_rename,
)
from basicsr.utils.options import copy_opt_file, dict2str, parse_options

from iart_plugin.basicsr import resume
from iart_plugin.basicsr.checks import (
    OptionError,
    check_datasets,
    check_options,
    check_weights,
)
from iart_plugin.basicsr.checks.schema import check_schema
from iart_plugin.basicsr.option_files import read_options
from iart_plugin.basicsr.random_state import of_first_process
from iart_plugin.basicsr.training_data import TrainingData

FIRST_STEP = {"train": "load_resume_state", "test": "make_exp_dirs"}
"""The function that each of BasicSR's pipelines calls first after it has read its options."""


def run(kind: Literal["train", "test"]) -> None:
    """Train or test with the command line's option file. Outputs go to the working directory.

    The arguments are those of ``python -m basicsr.train`` or ``basicsr.test``. The option file need
    not have the plugin's line.

    Raises:
        SystemExit: with one line on standard error, if :mod:`iart_plugin.basicsr.checks` finds
            something wrong.
    """
    try:
        opt, option_file = read_options(kind == "train", check_schema)
        PIPELINES[kind](opt, option_file)
    except OptionError as error:
        _refuse(error)


def train(opt: dict[str, Any], option_file: str) -> None:
    """Train as the options say. A resumed run goes on as if it had not been stopped.

    Everything that can be checked is checked first. Only then is anything written, or an earlier
    run of the same name moved aside.

    Args:
        opt: BasicSR's options, complete, with ``root_path``.
        option_file: the file that they come from, which is copied beside the results.

    Raises:
        OptionError: if something is wrong that can be known before training.
    """
    check_options(opt)
    state = resume.load_resume_state(opt)
    check_weights(opt)
    check_datasets(opt)
    opt["manual_seed"] = of_first_process(opt["manual_seed"])  # BasicSR draws one for each process
    torch.backends.cudnn.benchmark = True

    if state is None:
        _make_new_folders(opt)
    copy_opt_file(option_file, opt["path"]["experiments_root"])
    _start_log(opt, "train")
    board = _open_board(opt)
    data = TrainingData(opt)
    validation_loaders = _loaders(opt, "val")
    model = build_model(opt)
    first = 0
    if state is not None:
        model.resume_training(state)
        data.continue_after(
            state["epoch"], state["iter"], state.get("data_seed", opt["manual_seed"])
        )
        first = state["iter"]
        get_root_logger().info(
            f"Resuming training from epoch: {state['epoch']}, iter: {state['iter']}."
        )

    def validate(iteration: int) -> None:
        for loader in validation_loaders:
            model.validation(loader, iteration, board, opt["val"]["save_img"])

    _iterate(opt, model, data, first, board, validate)
    get_root_logger().info("End of training. Save the latest model.")
    model.save(epoch=-1, current_iter=-1)  # -1 stands for the latest
    if opt.get("val") is not None:
        validate(int(opt["train"]["total_iter"]))
    if board:
        board.close()


def _iterate(
    opt: dict[str, Any],
    model: Any,
    data: TrainingData,
    first: int,
    board: Any,
    validate: Callable[[int], None],
) -> None:
    """Train from the iteration after ``first`` to the last, log, save and validate."""
    last, logger = int(opt["train"]["total_iter"]), get_root_logger()
    warmup = opt["train"].get("warmup_iter", -1)
    messages = MessageLogger(opt, first, board)
    whole, waiting = AvgTimer(), AvgTimer()
    logger.info(f"Start training after iteration {first}, up to iteration {last}.")
    if first >= last:
        return
    for iteration, (epoch, batch) in enumerate(data, first + 1):
        waiting.record()
        model.update_learning_rate(iteration, warmup_iter=warmup)
        model.feed_data(batch)
        model.optimize_parameters(iteration)
        whole.record()
        if iteration == 1:  # the first iteration is slow, so the time estimate leaves it out
            messages.reset_start_time()
        if iteration % opt["logger"]["print_freq"] == 0:
            times = {"time": whole.get_avg_time(), "data_time": waiting.get_avg_time()}
            rates = model.get_current_learning_rate()
            progress = {"epoch": epoch, "iter": iteration, "lrs": rates, **times}
            messages({**progress, **model.get_current_log()})
        if iteration % opt["logger"]["save_checkpoint_freq"] == 0:
            logger.info("Saving models and training states.")
            model.save(epoch, iteration)
        if opt.get("val") is not None and iteration % opt["val"]["val_freq"] == 0:
            validate(iteration)
        if iteration == last:
            return
        waiting.start()
        whole.start()


def test(opt: dict[str, Any], option_file: str = "") -> None:
    """Test as the options say.

    Args:
        opt: BasicSR's options, complete.
        option_file: not used; it is here because :func:`train` takes it.

    Raises:
        OptionError: if something is wrong that can be known before testing.
    """
    check_options(opt)
    check_weights(opt)
    check_datasets(opt)
    torch.backends.cudnn.benchmark = True
    make_exp_dirs(opt)
    _start_log(opt, "test")
    loaders = _loaders(opt, "test")
    model = build_model(opt)
    for loader in loaders:
        get_root_logger().info(f"Testing {loader.dataset.opt['name']}...")
        save_img = opt["val"]["save_img"]
        model.validation(loader, current_iter=opt["name"], tb_logger=None, save_img=save_img)


test.__test__ = False  # tells pytest that this is not a test

PIPELINES = {"train": train, "test": test}


def _make_new_folders(opt: dict[str, Any]) -> None:
    """Make the folders of a new run. BasicSR moves an earlier run of the same name aside."""
    make_exp_dirs(opt)
    if opt["logger"].get("use_tb_logger") and "debug" not in opt["name"] and opt["rank"] == 0:
        mkdir_and_rename(str(Path(opt["root_path"], "tb_logger", opt["name"])))


def _start_log(opt: dict[str, Any], kind: str) -> None:
    file = Path(opt["path"]["log"], f"{kind}_{opt['name']}_{get_time_str()}.log")
    logger = get_root_logger(log_level=logging.INFO, log_file=str(file))
    logger.info(get_env_info())
    logger.info(dict2str(opt))


def _open_board(opt: dict[str, Any]) -> Any:
    """TensorBoard's writer, or None. Values that a stopped run logged after its save are hidden."""
    board = init_tb_loggers(opt)
    resumed = Path(opt["path"].get("resume_state") or "").stem
    if board is not None and resumed.isdecimal():
        board.purge_step = int(resumed) + 1
        board.close()  # the next value opens the writer again, which hides the later values
    return board


def _loaders(opt: dict[str, Any], phase: str) -> list[Any]:
    """One loader for each data set of a phase; BasicSR names them ``val`` and ``val_2``."""
    loaders = []
    for _, data in sorted(opt["datasets"].items()):
        if data["phase"] == phase:
            dataset = build_dataset(data)
            seed = opt["manual_seed"]
            loaders.append(build_dataloader(dataset, data, opt["num_gpu"], opt["dist"], None, seed))
            get_root_logger().info(f"Number of folders or images in {data['name']}: {len(dataset)}")
    return loaders


def take_over() -> None:
    """Let BasicSR's own commands run the functions of this file once they have their options.

    BasicSR imports this package while it reads an option file, in the middle of its pipeline. The
    first function that the pipeline calls after that is replaced by one that does all of the rest
    and ends the program. ``python -m basicsr.train`` runs a second copy of ``basicsr/train.py`` as
    ``__main__``, so the function is replaced in both copies.
    """
    main = sys.modules.get("__main__")
    for kind, name in FIRST_STEP.items():
        # A star import may shadow the attribute `basicsr.train`, but not the entry in sys.modules.
        modules = [sys.modules[f"basicsr.{kind}"]]
        if getattr(getattr(main, "__spec__", None), "name", None) == f"basicsr.{kind}":
            modules.append(main)
        for module in modules:
            setattr(module, name, functools.partial(_run_and_exit, PIPELINES[kind]))
        # Programs may call this function themselves and go on afterwards.
        setattr(modules[0], f"{kind}_pipeline", functools.partial(_run_from, kind))


def _run_from(kind: Literal["train", "test"], root_path: str) -> None:
    """Replace ``basicsr.train.train_pipeline`` or ``basicsr.test.test_pipeline``."""
    opt, arguments = parse_options(root_path, is_train=kind == "train")
    opt["root_path"] = root_path
    PIPELINES[kind](opt, arguments.opt)


def _run_and_exit(pipeline: Callable[[dict[str, Any], str], None], opt: dict[str, Any]) -> NoReturn:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-opt", required=True)
    try:
        pipeline(opt, parser.parse_known_args()[0].opt)
    except OptionError as error:
        _refuse(error)
    sys.exit()


def _refuse(error: OptionError) -> NoReturn:
    logging.getLogger("basicsr").debug("Refused.", exc_info=True)
    sys.exit(f"error: {error}")

"""Commands that train any row of the study in BasicSR or MMagic, at the paper's scale or on a CPU.

Each framework has one base file, which trains implicit alignment with ground-truth flow at the
paper's scale. MMagic also has a small config for every other row of Table 1, for its model zoo. The
commands change everything else by the frameworks' own override options: ``--force_yml`` in BasicSR
and ``--cfg-options`` in MMagic.
"""

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from .rows import ROWS, Row
from .scale import CPU_SCALE, PAPER_SCALE

BASICSR_FILE = "configs/basicsr/train/AlignmentStudy_Sintel_100K.yml"
MMAGIC_FOLDER = "configs/mmagic/alignment_study"
BASE_ROW = ROWS["implicit"]
WEIGHTS = {"gt": None, "raft": None, "spynet": "weights/spynet_sintel_final.pth"}
SCALES = {"paper": PAPER_SCALE, "cpu": CPU_SCALE}
CPU_DATA = "datasets/synthetic_flow"  # what tools/make_flow_dataset.py writes
CPU_SAVE_EVERY = 1000  # steps


def basicsr_command(row: Row, flow: str, scale: str = "paper") -> list[str]:
    """The command that trains a row with BasicSR.

    Args:
        row: A row of the study.
        flow: 'gt', 'raft' or 'spynet'.
        scale: 'paper' or 'cpu'.

    Returns:
        The words of the command line. ``--force_yml`` and its overrides are the last ones.
    """
    command = ["python", "tools/basicsr_train.py", "-opt", BASICSR_FILE]
    changes = basicsr_overrides(row, flow, scale)
    if not changes:
        return command
    changes = {"name": _run_name("AlignmentStudy", row, flow, scale, "_"), **changes}
    words = [f"{key}={_basicsr_value(value)}" for key, value in changes.items()]
    return [*command, "--force_yml", *words]


def basicsr_overrides(row: Row, flow: str, scale: str = "paper") -> dict[str, Any]:
    """The changes that ``--force_yml`` makes to BasicSR's option file, by key."""
    network = SCALES[scale].network_of(row.network)
    changes = {f"network_g:{key}": value for key, value in _network_changes(network, ":")}
    for part in ("train", "val"):
        changes |= {f"datasets:{part}:{key}": v for key, v in _flow(flow).items()}
    if scale == "paper":
        return changes
    size = SCALES[scale]
    changes |= {f"network_g:{key}": value for key, value in size.network.items()}
    return changes | {
        "num_gpu": 0,
        "datasets:train:dataroot": CPU_DATA,
        "datasets:val:dataroot": CPU_DATA,
        "datasets:train:num_frame": size.num_frames,
        "datasets:train:gt_size": 4 * size.crop_size,
        "datasets:train:num_worker_per_gpu": 0,
        "datasets:train:batch_size_per_gpu": size.batch_size,
        "datasets:train:dataset_enlarge_ratio": 10,
        "train:optim_g:lr": size.learning_rate,
        "train:scheduler:periods": [size.iterations],
        "train:scheduler:eta_min": size.final_learning_rate,
        "train:total_iter": size.iterations,
        "val:val_freq": CPU_SAVE_EVERY,
        "logger:save_checkpoint_freq": CPU_SAVE_EVERY,
    }


def mmagic_command(row: Row, flow: str, scale: str = "paper") -> list[str]:
    """The command that trains a row with MMagic.

    Args:
        row: A row of the study.
        flow: 'gt', 'raft' or 'spynet'.
        scale: 'paper' or 'cpu'.

    Returns:
        The words of the command line. ``--cfg-options`` and its overrides are the last ones.
    """
    command = ["mim", "train", "mmagic", mmagic_config(row)]
    changes = mmagic_overrides(row, flow, scale)
    if not changes:
        return command
    name = _run_name("alignment-study", row, flow, scale, "-")
    if scale == "cpu":
        command += ["--gpus", "0"]
    changes = {"experiment_name": name, **changes}
    words = [f"{key}={_mmagic_value(value)}" for key, value in changes.items()]
    return [*command, "--work-dir", f"work_dirs/{name}", "--cfg-options", *words]


def mmagic_config(row: Row) -> str:
    """The path of the MMagic config that a row starts from: its own or the base file."""
    key = row.key if "Table 1" in row.tables else BASE_ROW.key
    return f"{MMAGIC_FOLDER}/alignment-study_c60_{key}_1xb8-100k_sintel.py"


def mmagic_overrides(row: Row, flow: str, scale: str = "paper") -> dict[str, Any]:
    """The changes that ``--cfg-options`` makes to the row's MMagic config, by key."""
    network = SCALES[scale].network_of(row.network)
    if "Table 1" in row.tables:  # the row's own config already has its network
        network = {k: v for k, v in network.items() if v != row.network.get(k)}
    changes = {f"model.generator.{key}": value for key, value in _network_changes(network, ".")}
    loaders = ("train_dataloader", "val_dataloader", "test_dataloader.0")
    for loader in loaders:
        changes |= {f"{loader}.dataset.{key}": v for key, v in _flow(flow).items()}
    if scale == "paper":
        return changes
    size = SCALES[scale]
    changes |= {f"model.generator.{key}": value for key, value in size.network.items()}
    changes |= {f"{loader}.dataset.root": CPU_DATA for loader in loaders}
    changes |= {f"{loader}.num_workers": 0 for loader in loaders}
    return changes | {
        "train_dataloader.batch_size": size.batch_size,
        "train_dataloader.dataset.num_frames": size.num_frames,
        "train_dataloader.dataset.augment.crop_size": size.crop_size,
        "optim_wrapper.optimizer.lr": size.learning_rate,
        "param_scheduler.periods": [size.iterations],
        "param_scheduler.eta_min": size.final_learning_rate,
        "train_cfg.max_iters": size.iterations,
        "train_cfg.val_interval": CPU_SAVE_EVERY,
        "default_hooks.checkpoint.interval": CPU_SAVE_EVERY,
    }


def command_lines(
    rows: Sequence[Row], flows: Sequence[str], *, frameworks: Sequence[str], scale: str = "paper"
) -> Iterator[str]:
    """The command line for every row with every flow that the paper reports for it.

    Args:
        rows: Rows of the study.
        flows: One or more of 'gt', 'raft' and 'spynet'. A row is left out for the flows for which
            the paper does not report it.
        frameworks: One or both of 'basicsr' and 'mmagic'.
        scale: 'paper' or 'cpu'.

    Yields:
        Command lines, quoted for a shell.
    """
    commands = {"basicsr": basicsr_command, "mmagic": mmagic_command}
    for framework in frameworks:
        for row in rows:
            for flow in flows:
                if flow in row.flows:
                    yield shlex.join(commands[framework](row, flow, scale))


def _network_changes(network: dict[str, Any], separator: str) -> Iterator[tuple[str, Any]]:
    """The arguments in which a network differs from the base row's.

    The key of an aligner's option is the name of the options' mapping, the separator and the
    option's own name.
    """
    for key, value in network.items():
        if isinstance(value, dict):
            yield from ((f"{key}{separator}{option}", v) for option, v in value.items())
        elif key not in BASE_ROW.network or value != BASE_ROW.network[key]:
            yield key, value


def _flow(flow: str) -> dict[str, str]:
    """The data set's options for a flow; the base files already ask for ground truth."""
    if flow == "gt":
        return {}
    return {"flow": flow, **({"flow_weights": WEIGHTS[flow]} if WEIGHTS[flow] else {})}


def _run_name(prefix: str, row: Row, flow: str, scale: str, separator: str) -> str:
    parts = (prefix, *(("cpu",) if scale == "cpu" else ()), row.key, flow)
    return separator.join(parts)


def _basicsr_value(value: Any) -> str:
    """Write a value in the form that ``--force_yml`` of ``tools/basicsr_train.py`` reads."""
    if value is None:
        return "~"
    if isinstance(value, str) and value.lower() == "none":
        return f'"{value}"'  # without quotes the word would be read as None
    if isinstance(value, float):
        return f"!!float{value!r}"
    if isinstance(value, tuple):
        value = list(value)
    return str(value).replace(" ", "")


def _mmagic_value(value: Any) -> str:
    """Write a value in the form that MMEngine's ``--cfg-options`` reads."""
    return str(value).replace(" ", "")

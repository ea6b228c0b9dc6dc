"""Option files and configs of every row of the study, for both frameworks, from one source.

BasicSR's option files cannot share parts and MMagic's must name each file, so the files are
written by ``tools/make_study_configs.py`` and never by hand.
"""

from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Any

import yaml

from iart_plugin.archs import AlignmentStudyNet

from .rows import FLOW_LABELS, PAPER_SCALE, ROWS, Row, experiments
from .run import DEFAULT_ROWS
from .training import Scale

BASICSR_FOLDER = Path("configs/basicsr/train/alignment_study")
MMAGIC_FOLDER = Path("configs/mmagic/alignment_study")
WEIGHTS = {"gt": None, "raft": None, "spynet": "weights/spynet_sintel_final.pth"}
WRITTEN_BY = "Written by tools/make_study_configs.py. Do not edit: change iart_plugin/study."

CPU = Scale()
CPU_SCALE = {
    "network": {
        "embed_dim": CPU.embed_dim,
        "mid_channels": CPU.mid_channels,
        "depths": CPU.depths,
        "num_heads": CPU.num_heads,
    },
    "iterations": CPU.iterations,
    "batch_size": CPU.batch_size,
    "learning_rate": CPU.learning_rate,
    "final_learning_rate": CPU.final_learning_rate,
    "num_frames": CPU.num_frames,
    "crop_size": CPU.crop_size,
}

BASICSR = Template("""\
# Alignment study: $label, $flow_label flow ($tables).
# $written_by
name: $name
plugin: !!python/name:iart_plugin.basicsr.PLUGIN
model_type: AlignmentStudyModel
scale: 4
num_gpu: $num_gpu
manual_seed: 0

datasets:
  train:
    name: $data_name
    type: SintelFlowDataset
    dataroot: $data
    render: clean
    clips: train
    num_frame: $num_frames
    flow: $flow$flow_weights
    gt_size: $gt_size
    use_hflip: true
    use_rot: true
    num_worker_per_gpu: $workers
    batch_size_per_gpu: $batch  # for one process; divide by their number to keep the batch
    dataset_enlarge_ratio: $enlarge
    prefetch_mode: ~
  val:
    name: $data_name-test
    type: SintelFlowDataset
    dataroot: $data
    render: clean
    clips: test
    num_frame: -1
    flow: $flow$flow_weights

network_g:
  type: AlignmentStudyNet
$network

path:
  pretrain_network_g: ~
  strict_load_g: true
  resume_state: ~

train:
  ema_decay: 0
  amp_dtype: fp32
  optim_g:
    type: Adam
    lr: !!float $rate
    weight_decay: 0
    betas: [0.9, 0.99]
  scheduler:
    type: CosineAnnealingRestartLR
    periods: [$iterations]
    restart_weights: [1]
    eta_min: !!float $final_rate
  total_iter: $iterations
  warmup_iter: -1
  pixel_opt:
    type: CharbonnierLoss
    loss_weight: 1.0
    reduction: mean

val:
  val_freq: $frequency
  save_img: false
  metrics:
    psnr:
      type: calculate_psnr
      crop_border: 0
      test_y_channel: false
    ssim:
      type: calculate_ssim
      crop_border: 0
      test_y_channel: false

logger:
  print_freq: 100
  save_checkpoint_freq: $frequency
  use_tb_logger: true

dist_params:
  backend: nccl
  port: 29500
find_unused_parameters: false
use_static_graph: true
""")

MMAGIC_BASE = "alignment-study_c60_implicit_1xb8-100k_sintel"  # written by hand: IA, GT flow
MMAGIC = Template("""\
# Alignment study: $label, $flow_label flow ($tables).
# $written_by
_base_ = './$base.py'

experiment_name = '$name'
work_dir = f'./work_dirs/{experiment_name}'

model = dict(generator=$generator)
""")
MMAGIC_FLOW = Template("""
flow = $flow
train_dataloader = dict(dataset=flow)
val_dataloader = dict(dataset=flow)
test_dataloader = [
    dict(loader, dataset=dict(loader['dataset'], **flow))
    for loader in _base_.test_dataloader
]
""")
METAFILE_HEAD = """\
# Written by tools/make_study_configs.py. Do not edit: change iart_plugin/study.
Collections:
- Name: Alignment study
  Paper:
    Title: Enhancing Video Super-Resolution via Implicit Resampling-based Alignment
    URL: https://arxiv.org/abs/2305.00163
  README: README.md
  Task:
  - video super-resolution
  Year: 2024
Models:
"""


def file_name(row: Row, flow: str) -> str:
    """The name, without suffix, of a row's files."""
    return f"{row.key}_{flow}"


def basicsr_options(row: Row, flow: str, *, cpu: bool = False) -> str:
    """The text of one BasicSR option file, at the paper's scale or at the CPU's."""
    scale = CPU_SCALE if cpu else PAPER_SCALE
    weights = WEIGHTS[flow]
    network = {**row.network, **_plain(scale["network"])}
    lines = yaml.safe_dump(network, sort_keys=False, default_flow_style=None).rstrip()
    return BASICSR.substitute(
        **_headings(row, flow),
        name=f"AlignmentStudy_{'cpu_' if cpu else ''}{file_name(row, flow)}",
        num_gpu=0 if cpu else "auto",
        data_name="synthetic" if cpu else "Sintel",
        data="datasets/synthetic_flow" if cpu else "datasets/sintel",
        flow=flow,
        flow_weights=f"\n    flow_weights: {weights}" if weights else "",
        num_frames=scale["num_frames"],
        gt_size=4 * scale["crop_size"],
        workers=0 if cpu else 4,
        batch=scale["batch_size"],
        enlarge=10 if cpu else 100,
        network="\n".join("  " + line for line in lines.splitlines()),
        rate=f"{scale['learning_rate']:.0e}",
        final_rate=f"{scale['final_learning_rate']:.0e}",
        iterations=scale["iterations"],
        frequency=1000 if cpu else 5000,
    )


def mmagic_name(row: Row, flow: str) -> str:
    """The name of a row's MMagic experiment, by MMagic's rules for names."""
    middle = row.key.replace("_", "-") + ("" if flow == "gt" else f"-{flow}")
    return f"alignment-study_c60_{middle}_1xb8-100k_sintel"


def mmagic_config(row: Row, flow: str) -> str:
    """The text of one MMagic config; what all rows share stands in the base."""
    text = MMAGIC.substitute(
        **_headings(row, flow),
        base=MMAGIC_BASE,
        name=mmagic_name(row, flow),
        generator=_python(row.network),
    )
    if flow == "gt":
        return text
    weights = WEIGHTS[flow]
    data = {"flow": flow, **({"flow_weights": weights} if weights else {})}
    return text + MMAGIC_FLOW.substitute(flow=_python(data))


def metafile() -> str:
    """The text of MMagic's model zoo entry for the whole study."""
    models = []
    for row, flow in experiments():
        network = AlignmentStudyNet(**row.network, **PAPER_SCALE["network"])
        model = {
            "Config": f"{MMAGIC_FOLDER.as_posix()}/{mmagic_name(row, flow)}.py",
            "In Collection": "Alignment study",
            "Name": mmagic_name(row, flow),
            "Metadata": {
                "Training Data": "MPI-Sintel",
                "Parameters": sum(p.numel() for p in network.parameters()),
            },
        }
        if flow in row.paper:
            table = next(t for t in row.tables if t.startswith("Table"))
            model["Metadata"]["Results From"] = f"the paper, {table}"
            metrics = {"PSNR (RGB)": row.paper[flow]}
            model["Results"] = [
                {
                    "Dataset": "MPI-Sintel(BIx4)",
                    "Metrics": metrics,
                    "Task": "Video Super-Resolution",
                }
            ]
        models.append(model)
    return METAFILE_HEAD + yaml.safe_dump(models, sort_keys=False)


def all_files() -> Iterator[tuple[Path, str]]:
    """Every generated file, relative to the repository's root, and its text."""
    for row, flow in experiments():
        yield BASICSR_FOLDER / f"{file_name(row, flow)}.yml", basicsr_options(row, flow)
        if mmagic_name(row, flow) != MMAGIC_BASE:
            yield MMAGIC_FOLDER / f"{mmagic_name(row, flow)}.py", mmagic_config(row, flow)
    for key in DEFAULT_ROWS:
        name = file_name(ROWS[key], "gt")
        yield BASICSR_FOLDER / "cpu" / f"{name}.yml", basicsr_options(ROWS[key], "gt", cpu=True)
    yield MMAGIC_FOLDER / "metafile.yml", metafile()


def _headings(row: Row, flow: str) -> dict[str, str]:
    return {
        "label": row.label,
        "flow_label": FLOW_LABELS[flow],
        "tables": ", ".join(row.tables),
        "written_by": WRITTEN_BY,
    }


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def _python(values: dict[str, Any]) -> str:
    """A dict as MMagic's configs write it."""
    items = (f"{k}={_python(v) if isinstance(v, dict) else repr(v)}" for k, v in values.items())
    return f"dict({', '.join(items)})"

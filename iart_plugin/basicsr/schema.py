"""All keys that the trainers and testers read from an option file, with their types and ranges.

This table has three users: :mod:`iart_plugin.basicsr.checks.schema` refuses values that do not fit
it, the model takes its defaults from it, and ``docs/basicsr.md`` shows its descriptions. A field
that may be left out, but must not be null, has None as its default.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

NUMBER = Field(allow_inf_nan=False)


def _whole(value: float) -> float:
    if value != int(value):
        raise ValueError("it must be a whole number")
    return value


def _folder_name(value: str) -> str:
    if value in ("", ".", "..") or set(value) & set("/\\:\0") or len(value.encode()) > 200:
        raise ValueError(
            "it names the run's folder, so it must be one name without a slash, of at most 200 "
            "bytes"
        )
    return value


Number = Annotated[float, NUMBER]
Positive = Annotated[float, NUMBER, Field(gt=0)]
NotNegative = Annotated[float, NUMBER, Field(ge=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]
# Whole numbers may be written as floats: BasicSR's own files have `val_freq: !!float 5e3`.
Whole = Annotated[float, NUMBER, AfterValidator(_whole)]
Count = Annotated[float, NUMBER, Field(ge=1), AfterValidator(_whole)]
CountOrZero = Annotated[float, NUMBER, Field(ge=0), AfterValidator(_whole)]
# BasicSR passes these to functions that accept only an int.
Int = Annotated[int, Field(ge=1)]
IntOrZero = Annotated[int, Field(ge=0)]
FolderName = Annotated[str, AfterValidator(_folder_name)]


class Section(BaseModel):
    """A section of an option file, which refuses unknown keys, and text in place of a number."""

    model_config = ConfigDict(strict=True, extra="forbid", protected_namespaces=())


class OpenSection(Section):
    """A section that may hold keys of other programs too."""

    model_config = ConfigDict(extra="allow")


class Adam(Section):
    """The optimizer Adam. It is the only one that BasicSR's base model builds."""

    type: Literal["Adam"]
    lr: Positive
    weight_decay: NotNegative = 0
    betas: Annotated[list[Beta], Field(min_length=2, max_length=2)] = [0.9, 0.999]
    eps: Positive = 1e-8
    amsgrad: bool = False
    maximize: bool = False
    foreach: bool | None = None
    fused: bool | None = None
    capturable: bool = False
    differentiable: bool = False


class MultiStep(Section):
    """A learning rate that falls at milestones."""

    type: Literal["MultiStepLR", "MultiStepRestartLR"]
    milestones: list[IntOrZero]
    gamma: Positive = 0.1
    restarts: list[IntOrZero] = [0]
    restart_weights: list[Positive] = [1]


class CosineAnnealing(Section):
    """A learning rate that follows a cosine in each of its periods."""

    type: Literal["CosineAnnealingRestartLR"]
    periods: Annotated[list[Count], Field(min_length=1)]
    restart_weights: list[Positive] = [1]
    eta_min: NotNegative = 0


class Loss(OpenSection):
    """A loss of BasicSR's registry; its other keys are the arguments of its class."""

    type: str
    loss_weight: NotNegative = 1.0
    reduction: Literal["mean", "sum"] = "mean"


class Perceptual(OpenSection):
    """A perceptual loss; its other keys are the arguments of its class."""

    type: str
    vgg_path: str | None = None
    vgg_type: str = "vgg19"
    layer_weights: dict[str, Number] | None = None
    perceptual_weight: NotNegative = 1.0
    style_weight: NotNegative = 0.0
    use_input_norm: bool = True
    range_norm: bool = False
    criterion: Literal["l1", "fro"] = "l1"  # BasicSR cannot build its own "l2"


class GanLoss(Section):
    """``GANLoss``, the loss of a discriminator and of the network that it judges."""

    type: Literal["GANLoss"]
    gan_type: Literal["vanilla", "lsgan", "wgan", "wgan_softplus", "hinge"]
    real_label_val: Number = 1.0
    fake_label_val: Number = 0.0
    loss_weight: NotNegative = 1.0


class TrainOptions(Section):
    """``train:`` of ``RecurrentMixPrecisionRTModel`` and ``AlignmentStudyModel``."""

    total_iter: Annotated[Count, Field(description="iterations of the whole training")]
    optim_g: Annotated[Adam, Field(description="the optimizer: `type: Adam` and its arguments")]
    scheduler: Annotated[
        MultiStep | CosineAnnealing,
        Field(discriminator="type", description="the learning rate's course"),
    ]
    pixel_opt: Annotated[Loss | None, Field(description="the loss on pixels")] = None
    perceptual_opt: Annotated[
        Perceptual | None,
        Field(
            description="the loss on a VGG network's features; `vgg_path` names torchvision's file "
            "of its weights"
        ),
    ] = None
    warmup_iter: Annotated[
        Number,
        Field(ge=-1, description="iterations in which the rate rises from 0; -1 for none"),
    ] = -1
    ema_decay: Annotated[
        Number,
        Field(ge=0, lt=1, description="decay of the weights' moving average; 0 for no average"),
    ] = 0
    fix_flow: Annotated[
        CountOrZero | None,
        Field(description="iterations at the start in which the flow network keeps its weights"),
    ] = None
    flow_lr_mul: Annotated[
        NotNegative,
        Field(
            description="learning rate of the flow network, as a factor; 0 keeps its weights as "
            "they are"
        ),
    ] = 1
    lr_mul: Annotated[
        dict[str, NotNegative] | None,
        Field(
            description="factors of the learning rate by the beginnings of weights' names, "
            "`{spynet: 0, backward_trunk: 0.25}`; 0 keeps weights as they are"
        ),
    ] = None
    amp_dtype: Annotated[
        Literal["fp16", "bf16", "fp32"] | None,
        Field(
            description="precision of the network's forward pass: `fp32`, `bf16` or `fp16`, which "
            "needs a GPU; without a value, `fp16` on a GPU and `fp32` on a CPU"
        ),
    ] = None
    init_loss_scale: Annotated[Positive, Field(description="first loss scale of `fp16`")] = 65536
    max_skipped_steps: Annotated[
        Count,
        Field(description="steps in a row without finite gradients after which the run stops"),
    ] = 50
    grad_clip_norm: Annotated[
        Positive | None,
        Field(description="largest norm of a network's whole gradient, after unscaling"),
    ] = None
    accumulate: Annotated[
        Int,
        Field(
            description="parts of a process's batch whose gradients are added up, to save memory"
        ),
    ] = 1


class RealTrainOptions(TrainOptions):
    """``train:`` of ``RealRecurrentModel``."""

    cleaning_opt: Annotated[
        Loss | None,
        Field(description="the loss on the cleaned frames, against the reduced ground truth"),
    ] = None
    gan_opt: Annotated[
        GanLoss | None,
        Field(description="the discriminator's loss; it needs `network_d` and `optim_d`"),
    ] = None
    optim_d: Annotated[Adam | None, Field(description="the discriminator's optimizer")] = None
    l1_gt_usm: Annotated[
        bool, Field(description="`pixel_opt` and `cleaning_opt` use the sharpened ground truth")
    ] = False
    percep_gt_usm: Annotated[
        bool, Field(description="`perceptual_opt` uses the sharpened ground truth")
    ] = False
    gan_gt_usm: Annotated[
        bool, Field(description="the discriminator sees the sharpened ground truth")
    ] = False


def train_table(schema: type[TrainOptions], leave_out: type[BaseModel] = BaseModel) -> str:
    """The fields of a schema that another schema lacks, as a table in Markdown."""
    rows = ["| `train:` | meaning | default |", "|---|---|---|"]
    for name, field in schema.model_fields.items():
        if name in leave_out.model_fields:
            continue
        default = "required" if field.is_required() else field.default
        rows.append(
            f"| `{name}` | {field.description} | {'none' if default is None else default} |"
        )
    return "\n".join(rows)


class Metric(OpenSection):
    """A metric of BasicSR's registry."""

    type: str
    crop_border: IntOrZero
    test_y_channel: bool = False
    input_order: Literal["HWC"] = "HWC"
    convert_to: Literal["y", "gray"] = "y"
    better: Literal["higher", "lower"] = "higher"


class Validation(Section):
    """``val:``, in trainings and tests."""

    val_freq: Count = None
    save_img: bool
    metrics: dict[str, Metric] | None = None
    flip_seq: bool = False
    center_frame_only: bool = False
    suffix: str | None = None
    pbar: bool = False


class Wandb(Section):
    """``logger.wandb:``."""

    project: str | None = None
    resume_id: str | None = None


class Logger(Section):
    """``logger:``."""

    print_freq: Count
    save_checkpoint_freq: Count
    use_tb_logger: bool
    wandb: Wandb | None = None


class DistParams(Section):
    """``dist_params:``, which is read where Slurm starts the processes."""

    backend: Literal["nccl", "gloo", "mpi"] = "nccl"
    port: Annotated[int, Field(ge=1, le=65535)] | None = None


class Paths(OpenSection):
    """``path:``; the networks' own keys end in the network's letter."""

    pretrain_network_g: str | None = None
    param_key_g: str | None = None
    strict_load_g: bool = True
    pretrain_network_d: str | None = None
    param_key_d: str | None = None
    strict_load_d: bool = True
    resume_state: str | None = None
    ignore_resume_networks: list[str] | None = None


class Options(Section):
    """The top level of an option file. Networks and data sets are checked one by one elsewhere."""

    name: FolderName
    model_type: str
    scale: Int
    num_gpu: IntOrZero | Literal["auto"]
    datasets: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    network_g: dict[str, Any]
    path: Paths = Paths()
    val: Validation | None = None
    plugin: Any = None
    manual_seed: Annotated[int, Field(ge=0, lt=2**32 - 10_000)] | None = None
    dist_params: DistParams | None = None
    find_unused_parameters: bool = False
    use_static_graph: bool = False
    # These keys are not in the file: they are added before a model is built.
    is_train: bool = True
    auto_resume: bool = False
    dist: bool = False
    rank: int = 0
    world_size: int = 1
    root_path: str = ""


class TrainingRun(Options):
    """The top level of an option file for training."""

    train: TrainOptions
    logger: Logger


class RealTrainingRun(TrainingRun):
    """The top level of an option file for training with ``RealRecurrentModel``."""

    train: RealTrainOptions


class TestRun(Options):
    """The top level of an option file for testing. Sections for training may stay in it."""

    __test__ = False  # tells pytest that this is not a test

    val: Validation
    train: dict[str, Any] | None = None
    logger: dict[str, Any] | None = None

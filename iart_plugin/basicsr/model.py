"""``RecurrentMixPrecisionRTModel``: BasicSR's recurrent video model with mixed precision.

The name is that of the official option files. Beside what ``VideoRecurrentModel`` reads, ``train:``
takes

====================== ================================================================= ==========
key                    meaning                                                           default
====================== ================================================================= ==========
``amp_dtype``          ``fp16``, ``bf16`` or ``fp32`` for the network's pass             see below
``init_loss_scale``    first loss scale of ``fp16``                                      65536
``max_skipped_steps``  non-finite steps in a row after which the run stops               50
``grad_clip_norm``     largest norm of the whole gradient                                no limit
``accumulate``         parts of a process's batch whose gradients are added up           1
``lr_mul``             factors of the learning rate by the beginnings of weights' names, none
                       such as ``{spynet: 0, backward_trunk: 0.1}``; 0 keeps weights
                       (of the flow network, ``flow_lr_mul: 0`` too)
====================== ================================================================= ==========

The default precision is ``fp16`` on a GPU, as the model's name says, and ``fp32`` on a CPU, which
has ``bf16`` as its other choice. Flow, sampling positions and losses are float32 in every case.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from basicsr.models.video_recurrent_model import VideoRecurrentModel
from basicsr.utils import get_root_logger
from basicsr.utils.dist_util import master_only
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from iart_plugin.archs import read_state_dict
from iart_plugin.basicsr import resume
from iart_plugin.basicsr.checks import OptionError, check_options, validation_sets
from iart_plugin.basicsr.progress import clip_progress
from iart_plugin.basicsr.random_state import gather_random_states, restore_random_state
from iart_plugin.weight_files import OPTIONS, read_file

AMP_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
# As in BasicSR: the networks whose training `fix_flow` delays.
DELAYED_NETWORKS = ("spynet", "edvr")


class RecurrentMixPrecisionRTModel(VideoRecurrentModel):
    """Trains and tests a recurrent video network in mixed precision, resumable exactly.

    Args:
        opt: BasicSR's options.

    Raises:
        OptionError: on a key that nothing reads, or a precision that the device does not offer.
    """

    sample_frame: Tensor | None = None  # of the validation that is running

    def __init__(self, opt: dict[str, Any]) -> None:
        check_options(opt)
        super().__init__(opt)

    def setup_optimizers(self) -> None:
        """Build the optimizer, with a group of weights for each factor of ``lr_mul``."""
        train_opt = self.opt["train"]
        if not _has_factors(train_opt):
            super().setup_optimizers()
            return
        groups: dict[float, list[nn.Parameter]] = {}
        net = self.get_bare_model(self.net_g)
        factors = rate_factors(net, train_opt)
        for name, parameter in net.named_parameters():
            groups.setdefault(factors[name], []).append(parameter)
        rate = train_opt["optim_g"]["lr"]
        parts = [
            {"params": parameters, "lr": rate * factor}
            for factor, parameters in groups.items()
            if factor
        ]
        optim_type = train_opt["optim_g"].pop("type")
        self.optimizer_g = self.get_optimizer(optim_type, parts, **train_opt["optim_g"])
        self.optimizers.append(self.optimizer_g)
        for factor, parameters in sorted(groups.items()):
            count = sum(parameter.numel() for parameter in parameters)
            get_root_logger().info(f"{count:,} weights train at {factor} times the learning rate.")

    def init_training_settings(self) -> None:
        super().init_training_settings()
        train_opt = self.opt["train"]
        self.amp_dtype = choose_amp_dtype(train_opt.get("amp_dtype"), self.device)
        self.scaler = torch.amp.GradScaler(
            self.device.type,
            enabled=self.amp_dtype is torch.float16,
            init_scale=float(train_opt.get("init_loss_scale", 2.0**16)),
        )
        self.max_skipped_steps = int(train_opt.get("max_skipped_steps", 50))
        self.grad_clip_norm = float(train_opt.get("grad_clip_norm") or math.inf)
        self.accumulate = int(train_opt.get("accumulate", 1))
        batch_size = self.opt["datasets"]["train"]["batch_size_per_gpu"]
        if self.accumulate < 1 or batch_size % self.accumulate:
            raise OptionError(
                f"train.accumulate is {self.accumulate}; it must divide batch_size_per_gpu, "
                f"{batch_size}."
            )
        self.skipped_steps = 0
        self.skipped_in_a_row = 0
        self.data_seed = self.opt["manual_seed"]
        self.sample_keys: Any = None
        self.validations: dict[int, dict[str, Any]] = {}  # by iteration
        precision = str(self.amp_dtype).removeprefix("torch.")
        get_root_logger().info(f"The network trains in {precision} on {self.device.type}.")

    def model_to_device(self, net: nn.Module) -> nn.Module:
        """Move and wrap a network, reading ``find_unused_parameters`` and ``use_static_graph``."""
        net = net.to(self.device)
        if self.is_train and _has_factors(self.opt["train"]):
            # Before the wrapper counts the weights whose gradients it waits for.
            factors = rate_factors(net, self.opt["train"])
            for name, parameter in net.named_parameters():
                parameter.requires_grad_(factors[name] != 0)
        if self.opt["dist"]:
            on_gpu = self.device.type == "cuda"
            return DistributedDataParallel(
                net,
                device_ids=[torch.cuda.current_device()] if on_gpu else None,
                find_unused_parameters=self.opt.get("find_unused_parameters", False),
                static_graph=self.opt.get("use_static_graph", False),
                broadcast_buffers=False,  # none changes in training
            )
        return DataParallel(net) if self.opt["num_gpu"] > 1 else net

    def feed_data(self, data: dict[str, Any]) -> None:
        """Take a batch: ``lq`` (n, t, 3, h, w) and, with ground truth, ``gt`` (n, t, 3, 4h, 4w)."""
        super().feed_data(data)
        self.sample_keys = data.get("key")

    def test(self) -> None:
        """Run the network on the clip, with a progress bar where that takes long."""
        passes = 2 if self.opt["val"].get("flip_seq") else 1
        with clip_progress(self.get_bare_model(self.net_g), passes * self.lq.shape[1]):
            super().test()

    def optimize_parameters(self, current_iter: int) -> None:
        """One training step on the batch that :meth:`feed_data` took.

        A step with a gradient that is not finite changes no weight. The flow network's weights stay
        as they are for the first ``fix_flow`` iterations: their gradients are dropped before the
        step. ``requires_grad`` is never changed, so DistributedDataParallel's buckets and a static
        graph stay valid across the boundary. (BasicSR flips it, and frees the flow network at
        iteration ``fix_flow`` already, one earlier.)

        Args:
            current_iter: The iteration, from 1.

        Raises:
            FloatingPointError: after ``max_skipped_steps`` non-finite steps in a row.
        """
        self.optimizer_g.zero_grad(set_to_none=True)
        losses: OrderedDict[str, Tensor] = OrderedDict()
        parts = zip(self.lq.chunk(self.accumulate), self.gt.chunk(self.accumulate), strict=True)
        for index, (lq, gt) in enumerate(parts):
            # Processes exchange their gradients once, with the last part's. A static graph does not
            # allow that and exchanges them with every part's, with the same result.
            alone = self.opt["dist"] and not self.opt.get("use_static_graph")
            alone = alone and index + 1 < self.accumulate
            with self.net_g.no_sync() if alone else contextlib.nullcontext():
                for name, value in self._backward(lq, gt).items():
                    losses[name] = losses.get(name, 0) + value
        if self.fix_flow_iter and current_iter <= self.fix_flow_iter:
            self._drop_flow_gradients()
        self.scaler.unscale_(self.optimizer_g)
        norm = nn.utils.clip_grad_norm_(self.net_g.parameters(), self.grad_clip_norm)
        self._step(bool(torch.isfinite(norm)), current_iter)
        self.log_dict = self.reduce_loss_dict(losses)
        self.log_dict["skipped_steps"] = self.skipped_steps
        if self.scaler.is_enabled():
            self.log_dict["loss_scale"] = self.scaler.get_scale()

    def _backward(self, lq: Tensor, gt: Tensor) -> dict[str, Tensor]:
        """Add one part's gradients, and return its share of the losses."""
        with torch.autocast(
            self.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not torch.float32
        ):
            self.output = self.net_g(lq)
        losses = self._losses(self.output.float(), gt)
        shares = {name: value / self.accumulate for name, value in losses.items()}
        self.scaler.scale(sum(shares.values())).backward()
        return {name: value.detach() for name, value in shares.items()}

    def _losses(self, output: Tensor, gt: Tensor) -> dict[str, Tensor]:
        losses = {}
        if self.cri_pix:
            losses["l_pix"] = self.cri_pix(output, gt)
        if self.cri_perceptual:
            names = ("l_percep", "l_style")
            values = zip(names, self.cri_perceptual(output, gt), strict=True)
            losses.update((name, value) for name, value in values if value is not None)
        return losses

    def _drop_flow_gradients(self) -> None:
        for name, parameter in self.net_g.named_parameters():
            if any(network in name for network in DELAYED_NETWORKS):
                # Not zeros: Adam would count the step and apply weight decay.
                parameter.grad = None

    def _step(self, finite: bool, current_iter: int) -> None:
        """Apply the gradients, or skip and count them; the same on every process.

        The gradients were averaged over the processes, so all of them see the same norm.
        """
        if finite:
            self.scaler.step(self.optimizer_g)
            self.skipped_in_a_row = 0
            if self.ema_decay > 0:
                self.model_ema(decay=self.ema_decay)
        else:
            self.skipped_steps += 1
            self.skipped_in_a_row += 1
            get_root_logger().warning(
                f"Iteration {current_iter}: the gradient is not finite, the step is skipped "
                f"({self.skipped_in_a_row} in a row, {self.skipped_steps} in all)."
            )
        self.scaler.update()
        if self.skipped_in_a_row >= self.max_skipped_steps:
            inputs = "finite" if torch.isfinite(self.lq).all() else "not finite"
            raise FloatingPointError(
                f"Stopped at iteration {current_iter}: {self.skipped_in_a_row} steps in a row had "
                f"a gradient that is not finite, in {self.amp_dtype} at loss scale "
                f"{self.scaler.get_scale():g}; the last batch ({self.sample_keys}) is {inputs}. "
                "Resume from an earlier checkpoint with train.amp_dtype bf16 or fp32, a lower "
                "learning rate or train.grad_clip_norm."
            )

    def validation(
        self, dataloader: Any, current_iter: int | str, tb_logger: Any, save_img: bool = False
    ) -> None:
        """Validate as BasicSR does, and show one frame in TensorBoard: input, output, truth.

        BasicSR validates again when the training has ended, at an iteration after the last one. A
        data set that was validated at the last one is not again.
        """
        name = dataloader.dataset.opt["name"]
        if self.is_train:
            current_iter = min(current_iter, int(self.opt["train"]["total_iter"]))
            record = self.validations.setdefault(current_iter, {"sets": [], "best": {}})
            if name in record["sets"]:
                return
        self.sample_frame = None
        super().validation(dataloader, current_iter, tb_logger, save_img)
        if tb_logger is not None and self.sample_frame is not None:
            tb_logger.add_image(f"frames/{name}", self.sample_frame, current_iter)
        if self.is_train:
            record["sets"].append(name)
            record["best"] = copy.deepcopy(getattr(self, "best_metric_results", {}))
            if self.opt["rank"] == 0:
                folder = Path(self.opt["path"]["training_states"])
                resume.save_atomically(self.validations, folder / resume.VALIDATIONS)

    def _log_validation_metric_values(
        self, current_iter: int, dataset_name: str, tb_logger: Any
    ) -> None:
        if tb_logger and len(validation_sets(self.opt)) > 1:
            tb_logger = _SetLogger(tb_logger, dataset_name)
        super()._log_validation_metric_values(current_iter, dataset_name, tb_logger)

    def get_current_visuals(self) -> OrderedDict[str, Tensor]:
        visuals = super().get_current_visuals()
        if self.sample_frame is None:
            lq = visuals["lq"]
            if self.opt["val"].get("flip_seq"):  # the clip, and the same backwards
                lq = lq[:, : lq.shape[1] // 2]
            self.sample_frame = side_by_side({**visuals, "lq": lq})
        return visuals

    def load_network(
        self, net: nn.Module, load_path: str, strict: bool = True, param_key: str | None = "params"
    ) -> None:
        """Load a file of BasicSR, MMagic or the released program, or ``.safetensors``.

        Args:
            net: The network, wrapped or not.
            load_path: The file.
            strict: Whether every weight must be there, and no other.
            param_key: The entry that holds the weights. A file without it may hold them in any
                entry that :func:`iart_plugin.archs.read_state_dict` knows.

        Raises:
            OptionError: naming the file, if it holds no weights that fit.
        """
        bare = self.get_bare_model(net)
        try:
            weights, container = _read_weights(load_path, param_key)
            bare.load_state_dict(weights, strict=strict)
        except (OSError, RuntimeError, ValueError) as error:
            raise OptionError(
                f"{load_path} does not fit {type(bare).__name__} as network_g describes it: {error}"
            ) from error
        get_root_logger().info(
            f"{type(bare).__name__} took its weights from {load_path}"
            f"{f', entry {container!r}' if container else ''}."
        )

    @master_only
    def save_network(
        self,
        net: nn.Module | list[nn.Module],
        net_label: str,
        current_iter: int,
        param_key: str | list[str] = "params",
    ) -> None:
        """Save networks as BasicSR does, but never half a file."""
        nets = net if isinstance(net, list) else [net]
        keys = param_key if isinstance(param_key, list) else [param_key]
        payload = {
            key: {k: v.cpu() for k, v in self.get_bare_model(each).state_dict().items()}
            for key, each in zip(keys, nets, strict=True)
        }
        options = getattr(self.get_bare_model(nets[0]), "options", None)
        if options is not None:  # what rebuilds the network where its shapes do not tell it all
            payload[OPTIONS] = options
        name = f"{net_label}_{'latest' if current_iter == -1 else current_iter}.pth"
        resume.save_atomically(payload, Path(self.opt["path"]["models"], name))

    def save_training_state(self, epoch: int, current_iter: int) -> None:
        """Save what :meth:`resume_training` needs to go on as if the run had not stopped.

        Every process calls this: each contributes its random state, the first one writes.
        """
        if current_iter == -1:  # BasicSR's mark for the last save, which is not for resuming
            return
        state = {
            "epoch": epoch,
            "iter": current_iter,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedulers": [scheduler.state_dict() for scheduler in self.schedulers],
            "scaler": self.scaler.state_dict(),
            "skipped": [self.skipped_steps, self.skipped_in_a_row],
            "best_metric_results": getattr(self, "best_metric_results", {}),
            "data_seed": self.data_seed,
            "random": gather_random_states(),
        }
        if self.opt["rank"] == 0:
            folder = self.opt["path"]["training_states"]
            resume.save_atomically(state, Path(folder, f"{current_iter}.state"))

    def resume_training(self, resume_state: dict[str, Any]) -> None:
        """Take up a training state, also one saved by BasicSR's own models.

        Rates, schedule and the optimizer's settings are the option file's, with a warning where
        the state has others: PyTorch would keep the state's without a word.
        """
        resume.check_groups(self.optimizers, resume_state["optimizers"])
        settings = resume.settings_of(self.optimizers, self.schedulers)
        super().resume_training(resume_state)
        if changed := resume.apply_settings(settings, self.optimizers, self.schedulers):
            get_root_logger().warning(
                f"From here on the option file holds, which is not the run's so far: {changed}."
            )
        if "data_seed" not in resume_state:
            get_root_logger().warning(
                "The training state comes from another model: optimizers and schedulers go on from "
                "it, the order of the data and the random numbers start anew."
            )
            return
        if resume_state["scaler"]:
            self.scaler.load_state_dict(resume_state["scaler"])
        self.skipped_steps, self.skipped_in_a_row = resume_state["skipped"]
        self._resume_best(resume_state)
        self.data_seed = resume_state["data_seed"]
        restore_random_state(resume_state["random"])

    def _resume_best(self, resume_state: dict[str, Any]) -> None:
        """Take up what was validated and the best figures: BasicSR validates after it has saved."""
        iteration, val = resume_state["iter"], self.opt.get("val") or {}
        recorded = resume.read_validations(self.opt["path"].get("resume_state"))
        self.validations = {i: record for i, record in recorded.items() if i <= iteration}
        saved = {"sets": [], "best": resume_state["best_metric_results"]}
        last = self.validations.get(iteration, saved)
        best = copy.deepcopy(last["best"])
        metrics = (val.get("metrics") or {}).keys()
        self.best_metric_results = {k: v for k, v in best.items() if v.keys() == metrics}
        missing = [name for name in validation_sets(self.opt) if name not in last["sets"]]
        due = recorded and val and iteration % val["val_freq"] == 0
        if due and missing and iteration < int(self.opt["train"]["total_iter"]):
            get_root_logger().warning(
                f"The run stopped before it had validated iteration {iteration} on "
                f"{', '.join(missing)}: those figures are not in its logs."
            )


class _SetLogger:
    """A TensorBoard writer for one of several validation sets, whose tags would be the same."""

    def __init__(self, writer: Any, name: str) -> None:
        self.writer = writer
        self.name = name

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.writer.add_scalar(tag.replace("metrics/", f"metrics/{self.name}/", 1), value, step)


def _has_factors(train_opt: dict[str, Any]) -> bool:
    """Whether weights have rates, or none, that BasicSR does not give them."""
    # A rate of 0 grows to the schedule's lowest; the weights are to be left alone.
    return bool(train_opt.get("lr_mul")) or train_opt.get("flow_lr_mul") == 0


def rate_factors(net: nn.Module, train_opt: dict[str, Any]) -> dict[str, float]:
    """The factor of the learning rate for each weight's name.

    The longest beginning in ``lr_mul`` that fits a name counts, then ``flow_lr_mul`` for the flow
    network, then 1.

    Raises:
        OptionError: if a beginning fits no name, or a factor is negative or no number.
    """
    lr_mul = train_opt.get("lr_mul") or {}
    given = {"spynet": train_opt.get("flow_lr_mul", 1), **lr_mul}
    names = [name for name, _ in net.named_parameters()]
    for start, factor in given.items():
        if not isinstance(factor, (int, float)) or factor < 0:
            raise OptionError(f"train.lr_mul: '{start}' is {factor!r}; a number from 0 is needed.")
        if start in lr_mul and not any(name.startswith(start) for name in names):
            parts = ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))
            raise OptionError(f"train.lr_mul: no weight's name starts with '{start}'; {parts} do.")
    by_length = sorted(given, key=len, reverse=True)
    return {
        name: float(next((given[start] for start in by_length if name.startswith(start)), 1))
        for name in names
    }


def side_by_side(visuals: dict[str, Tensor]) -> Tensor:
    """The middle frames of a clip, next to each other: input (nearest), output, ground truth.

    Args:
        visuals: ``lq`` (1, t, 3, h, w), ``result`` and perhaps ``gt`` (1, t, 3, 4h, 4w), or
            (1, 3, 4h, 4w) where only the centre frame is tested.

    Returns:
        (3, 4h, 8w or 12w), in [0, 1].
    """
    frames = []
    for name in ("lq", "result", "gt"):
        if name in visuals:
            clip = visuals[name][0]
            frames.append(clip[clip.shape[0] // 2] if clip.dim() == 4 else clip)
    size = frames[1].shape[-2:]
    frames[0] = nn.functional.interpolate(frames[0][None], size=size, mode="nearest")[0]
    return torch.cat(frames, dim=-1).float().clamp(0, 1)


def _read_weights(path: str, param_key: str | None) -> tuple[dict[str, Tensor], str]:
    """A file's weights and the entry that held them, preferring ``param_key``."""
    state, container, _ = read_state_dict(path)
    if param_key is None or container in ("", param_key):
        return state, container
    content = read_file(path)
    if param_key not in content:
        return state, container
    return {k.removeprefix("module."): v for k, v in content[param_key].items()}, param_key


def choose_amp_dtype(name: str | None, device: torch.device) -> torch.dtype:
    """The precision of the network's pass.

    Args:
        name: ``fp16``, ``bf16``, ``fp32``, or None for the device's default.
        device: Where the network runs.

    Raises:
        OptionError: on another name, or one that the device does not offer.
    """
    if name is None:
        return torch.float16 if device.type == "cuda" else torch.float32
    if name not in AMP_DTYPES:
        raise OptionError(f"train.amp_dtype is '{name}'; {', '.join(AMP_DTYPES)} exist.")
    if name == "fp16" and device.type == "cpu":
        raise OptionError("train.amp_dtype is fp16, which needs a GPU; set bf16 or fp32 on a CPU.")
    return AMP_DTYPES[name]

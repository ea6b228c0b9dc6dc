"""``RecurrentMixPrecisionRTModel``: BasicSR's recurrent video model with mixed precision.

The official option files use this name. :class:`iart_plugin.basicsr.schema.TrainOptions` lists the
keys that the model reads from ``train:``. Flow, sampling positions and losses are computed in
float32, whatever the precision of the network's forward pass.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from basicsr.utils import get_root_logger
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from iart_plugin.basicsr import resume
from iart_plugin.basicsr.boards import SetLogger, side_by_side
from iart_plugin.basicsr.checks import check_options, validation_sets
from iart_plugin.basicsr.learning_rates import has_factors, rate_factors
from iart_plugin.basicsr.precision import choose_amp_dtype
from iart_plugin.basicsr.progress import clip_progress
from iart_plugin.basicsr.resumable_model import ResumableModel
from iart_plugin.basicsr.schema import TrainOptions
from iart_plugin.basicsr.vgg import vgg_weights

# As in BasicSR: the networks whose training `fix_flow` delays.
DELAYED_NETWORKS = ("spynet", "edvr")


class RecurrentMixPrecisionRTModel(ResumableModel):
    """Trains and tests a recurrent video network in mixed precision.

    A training that was stopped and resumed ends with the same weights as one that was not.

    Args:
        opt: BasicSR's options.

    Raises:
        OptionError: on a key that nothing reads, or a precision that the device does not offer.
    """

    TRAIN_OPTIONS = TrainOptions
    sample_frame: Tensor | None = None  # of the validation that is running

    def __init__(self, opt: dict[str, Any]) -> None:
        check_options(opt)
        if opt["is_train"]:
            self.settings = self.TRAIN_OPTIONS.model_validate(opt["train"])
        super().__init__(opt)

    def setup_optimizers(self) -> None:
        """Build the optimizer, with a group of weights for each factor of ``lr_mul``."""
        train_opt = self.opt["train"]
        if not has_factors(train_opt):
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
        """Set up training as BasicSR does, and mixed precision as well."""
        with vgg_weights(self.opt["train"].get("perceptual_opt")):
            super().init_training_settings()
        self.amp_dtype = choose_amp_dtype(self.settings.amp_dtype, self.device)
        self.scaler = torch.amp.GradScaler(
            self.device.type,
            enabled=self.amp_dtype is torch.float16,
            init_scale=float(self.settings.init_loss_scale),
        )
        self.grad_clip_norm = float(self.settings.grad_clip_norm or math.inf)
        self.accumulate = self.settings.accumulate
        self.skipped_steps = 0
        self.skipped_in_a_row = 0
        self.data_seed = self.opt["manual_seed"]
        self.sample_keys: Any = None
        self.validations = {}
        precision = str(self.amp_dtype).removeprefix("torch.")
        get_root_logger().info(f"The network trains in {precision} on {self.device.type}.")

    def model_to_device(self, net: nn.Module) -> nn.Module:
        """Move and wrap a network, reading ``find_unused_parameters`` and ``use_static_graph``."""
        net = net.to(self.device)
        if self.is_train and has_factors(self.opt["train"]):
            # This must come first: the wrapper waits for the gradients of all trainable weights.
            factors = rate_factors(net, self.opt["train"])
            for name, parameter in net.named_parameters():
                parameter.requires_grad_(factors[name] != 0)
        return self._distributed(net)

    def _distributed(self, net: nn.Module) -> nn.Module:
        if self.opt["dist"]:
            on_gpu = self.device.type == "cuda"
            return DistributedDataParallel(
                net,
                device_ids=[torch.cuda.current_device()] if on_gpu else None,
                find_unused_parameters=self.opt.get("find_unused_parameters", False),
                static_graph=self.opt.get("use_static_graph", False),
                broadcast_buffers=False,  # only spectral norms change, alike in all processes
            )
        return DataParallel(net) if self.opt["num_gpu"] > 1 else net

    def feed_data(self, data: dict[str, Any]) -> None:
        """Take a batch: ``lq`` (n, t, 3, h, w) and, with ground truth, ``gt`` (n, t, 3, 4h, 4w)."""
        super().feed_data(data)
        self.sample_keys = data.get("key")

    def test(self) -> None:
        """Run the network on the clip, and show a progress bar if that takes long."""
        passes = 2 if self.opt["val"].get("flip_seq") else 1
        with clip_progress(self.get_bare_model(self.net_g), passes * self.lq.shape[1]):
            super().test()

    def optimize_parameters(self, current_iter: int) -> None:
        """One training step on the batch that :meth:`feed_data` took.

        A step whose loss or gradient is not finite changes no weight. If the loss is not finite,
        there is no backward pass at all.

        During the first ``fix_flow`` iterations, the gradients of the flow network are dropped
        before the step, so that its weights do not change. ``requires_grad`` never changes, so that
        DistributedDataParallel's buckets and a static graph stay valid. (BasicSR changes
        ``requires_grad``, and trains the flow network from one iteration earlier.)

        Args:
            current_iter: The iteration, from 1.

        Raises:
            FloatingPointError: after ``max_skipped_steps`` non-finite steps in a row.
        """
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        losses: OrderedDict[str, Tensor] = OrderedDict()
        finite = self._compute_gradients(losses)
        self._step(finite and self._prepare_gradients(current_iter), current_iter)
        if finite:  # otherwise the scaler has seen no gradient
            self.scaler.update()
        self._stop_after_many_skips(current_iter)
        self.log_dict = self.reduce_loss_dict(losses)
        self.log_dict["skipped_steps"] = self.skipped_steps
        if self.scaler.is_enabled():
            self.log_dict["loss_scale"] = self.scaler.get_scale()

    def _compute_gradients(self, losses: OrderedDict[str, Tensor]) -> bool:
        """Add up the gradients of the batch's parts, and their losses in ``losses``.

        Returns:
            Whether all losses are finite. After one that is not, nothing more is computed.
        """
        batch = {name: value.chunk(self.accumulate) for name, value in self._batch().items()}
        for index in range(len(batch["lq"])):
            part = {name: parts[index] for name, parts in batch.items()}
            with self._exchange_after_last_part(self.net_g, index):
                if not self._backward(self._forward(part), losses):
                    return False
        return True

    def _batch(self) -> dict[str, Tensor]:
        """The tensors of the batch that are divided into parts."""
        return {"lq": self.lq, "gt": self.gt}

    def _exchange_after_last_part(
        self, net: nn.Module, index: int
    ) -> contextlib.AbstractContextManager:
        # Processes exchange their gradients once, after the last part. A static graph does not
        # allow this, so there they exchange gradients after every part, with the same result.
        alone = self.opt["dist"] and not self.opt.get("use_static_graph")
        return net.no_sync() if alone and index + 1 < self.accumulate else contextlib.nullcontext()

    def _autocast(self) -> contextlib.AbstractContextManager:
        mixed = self.amp_dtype is not torch.float32
        return torch.autocast(self.device.type, dtype=self.amp_dtype, enabled=mixed)

    def _forward(self, part: dict[str, Tensor]) -> dict[str, Tensor]:
        """Run the network on a part of the batch and return its losses."""
        with self._autocast():
            self.output = self.net_g(part["lq"])
        return self._losses(self.output.float(), part["gt"], part["gt"])

    def _backward(self, losses: dict[str, Tensor], total: OrderedDict[str, Tensor]) -> bool:
        """Add a part's share of the losses to ``total``, and its share of the gradients.

        Returns:
            Whether the losses are finite. If not, their gradient is useless, and computing it may
            index by NaN, so it is not computed.
        """
        for name, value in losses.items():
            total[name] = total.get(name, 0) + value.detach() / self.accumulate
        loss = sum(losses.values()) / self.accumulate
        finite = self._on_every_process(torch.isfinite(loss))
        if finite:
            self.scaler.scale(loss).backward()
        return finite

    def _on_every_process(self, condition: Tensor) -> bool:
        """Whether a condition holds on every process, so that all processes act alike."""
        if self.opt["dist"]:
            condition = condition.float()
            torch.distributed.all_reduce(condition, torch.distributed.ReduceOp.MIN)
        return bool(condition)

    def _prepare_gradients(self, current_iter: int) -> bool:
        """Drop the gradients of a frozen flow network, then unscale and clip each network's others.

        Returns:
            Whether they are finite. Gradients are averaged over the processes, so that all
            processes come to the same result.
        """
        if self.fix_flow_iter and current_iter <= self.fix_flow_iter:
            self._drop_flow_gradients()
        finite = True
        for net, optimizer in zip(self._trained_networks(), self.optimizers, strict=True):
            self.scaler.unscale_(optimizer)
            norm = nn.utils.clip_grad_norm_(net.parameters(), self.grad_clip_norm)
            finite = bool(torch.isfinite(norm)) and finite
        return finite

    def _trained_networks(self) -> list[nn.Module]:
        """The networks, in the order of their optimizers."""
        return [self.net_g]

    def _losses(self, output: Tensor, gt: Tensor, perceptual_gt: Tensor) -> dict[str, Tensor]:
        losses = {}
        if self.cri_pix:
            losses["l_pix"] = self.cri_pix(output, gt)
        if self.cri_perceptual:
            names = ("l_percep", "l_style")
            found = self.cri_perceptual(output.flatten(0, 1), perceptual_gt.flatten(0, 1))
            values = zip(names, found, strict=True)
            losses.update((name, value) for name, value in values if value is not None)
        return losses

    def _drop_flow_gradients(self) -> None:
        for name, parameter in self.net_g.named_parameters():
            if any(network in name for network in DELAYED_NETWORKS):
                # None instead of zeros, with which Adam would count the step and decay the weights.
                parameter.grad = None

    def _step(self, finite: bool, current_iter: int) -> None:
        """Apply the gradients, or skip and count the step."""
        if finite:
            for optimizer in self.optimizers:
                self.scaler.step(optimizer)
            self.skipped_in_a_row = 0
            if self.ema_decay > 0:
                self.model_ema(decay=self.ema_decay)
        else:
            self.skipped_steps += 1
            self.skipped_in_a_row += 1
            get_root_logger().warning(
                f"Iteration {current_iter}: loss or gradient is not finite, the step is skipped "
                f"({self.skipped_in_a_row} in a row, {self.skipped_steps} in all)."
            )

    def _stop_after_many_skips(self, current_iter: int) -> None:
        if self.skipped_in_a_row < self.settings.max_skipped_steps:
            return
        inputs = "finite" if torch.isfinite(self.lq).all() else "not finite"
        raise FloatingPointError(
            f"Stopped at iteration {current_iter}: {self.skipped_in_a_row} steps in a row had a "
            f"loss or gradient that is not finite, in {self.amp_dtype} at loss scale "
            f"{self.scaler.get_scale():g}; the last batch ({self.sample_keys}) is {inputs}. "
            "Resume from an earlier checkpoint with train.amp_dtype bf16 or fp32, a lower "
            "learning rate or train.grad_clip_norm."
        )

    def validation(
        self, dataloader: Any, current_iter: int | str, tb_logger: Any, save_img: bool = False
    ) -> None:
        """Validate as BasicSR does, and show one frame in TensorBoard: input, output, truth.

        After the training BasicSR validates once more, and counts this as the iteration after the
        last. Data sets that were already validated at the last iteration are skipped then.
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
            tb_logger = SetLogger(tb_logger, dataset_name)
        super()._log_validation_metric_values(current_iter, dataset_name, tb_logger)

    def get_current_visuals(self) -> OrderedDict[str, Tensor]:
        """The pictures that are saved or shown of the newest batch."""
        visuals = super().get_current_visuals()
        if self.is_train and self.sample_frame is None:  # which TensorBoard shows
            lq = visuals["lq"]
            if self.opt["val"].get("flip_seq"):  # the clip is followed by its mirror image in time
                lq = lq[:, : lq.shape[1] // 2]
            self.sample_frame = side_by_side({**visuals, "lq": lq})
        return visuals

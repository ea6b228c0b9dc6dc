"""``RealRecurrentModel``: trains a network that cleans frames first, in RealBasicVSR's two stages.

In the first stage, the output is compared with the ground truth and the cleaned frames with the
reduced ground truth. The second stage adds a perceptual loss and a discriminator. Which stage it is
follows from the losses in the option file.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from typing import Any

import torch
from basicsr.archs import build_network
from basicsr.losses import build_loss
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from iart_plugin.basicsr.checks.discriminator import check_discriminator
from iart_plugin.basicsr.model import RecurrentMixPrecisionRTModel
from iart_plugin.basicsr.schema import RealTrainOptions
from iart_plugin.option_errors import OptionError

SHARPENED = ("l1_gt_usm", "percep_gt_usm", "gan_gt_usm")


class RealRecurrentModel(RecurrentMixPrecisionRTModel):
    """Trains and tests a network such as ``RealIACNN``, with a discriminator or without.

    Precision, skipped steps, checkpoints and everything else are as in the class that it derives
    from. Both networks take a step together or not at all, and share one loss scale.

    Args:
        opt: BasicSR's options; :class:`iart_plugin.basicsr.schema.RealTrainOptions` lists the keys
            of ``train:``.

    Raises:
        OptionError: as the base class does, and if options contradict each other.
    """

    TRAIN_OPTIONS = RealTrainOptions
    net_d: nn.Module | None = None

    @staticmethod
    def check(opt: dict[str, Any]) -> None:
        """Refuse options that do not go together; called before anything is built."""
        if not opt["is_train"]:
            return
        train, data, network = opt["train"], opt["datasets"]["train"], opt["network_g"]
        if train.get("cleaning_opt"):
            forward = ARCH_REGISTRY.get(network["type"]).forward
            if "return_lqs" not in inspect.signature(forward).parameters:
                raise OptionError(
                    f"train.cleaning_opt: {network['type']} cleans no frames; RealIACNN does."
                )
            if network.get("clean_passes") != 1:
                raise OptionError(
                    "network_g.clean_passes must be 1 in a training, as in RealBasicVSR's. The "
                    "number for a test does not depend on it."
                )
        parts = {"train.gan_opt": train.get("gan_opt"), "train.optim_d": train.get("optim_d")}
        parts["network_d"] = opt.get("network_d")
        missing = [key for key, value in parts.items() if not value]
        if 0 < len(missing) < len(parts):
            raise OptionError(
                f"{missing[0]} is not set: a training with a discriminator needs "
                f"{', '.join(parts)}; one without it, none of them."
            )
        if not missing:
            check_discriminator(opt["network_d"], int(data.get("gt_size") or 128))
        made = data["type"] == "DegradedClipsDataset" and data.get("sharpen", True)
        if not made and (keys := [key for key in SHARPENED if train.get(key)]):
            raise OptionError(
                f"train.{keys[0]} is true, but datasets.train gives no sharpened ground truth: "
                "DegradedClipsDataset with sharpen: true does."
            )

    def init_training_settings(self) -> None:
        """Set up what the base class does, the discriminator and its losses."""
        self.cri_clean = self._build_loss("cleaning_opt")
        self.cri_gan = self._build_loss("gan_opt")
        if self.cri_gan:
            net_d = build_network(self.opt["network_d"])
            self.net_d = self._distributed(net_d.to(self.device))
            self.print_network(self.net_d)
            paths = self.opt["path"]
            if path := paths.get("pretrain_network_d"):
                key, strict = paths.get("param_key_d", "params"), paths.get("strict_load_d", True)
                self.load_network(self.net_d, path, strict, key)
            self.net_d.train()
        super().init_training_settings()

    def _build_loss(self, key: str) -> nn.Module | None:
        options = self.opt["train"].get(key)
        return build_loss(options).to(self.device) if options else None

    def setup_optimizers(self) -> None:
        """Build the generator's optimizer and then the discriminator's."""
        super().setup_optimizers()
        if self.net_d is not None:
            options = dict(self.opt["train"]["optim_d"])
            kind = options.pop("type")
            self.optimizer_d = self.get_optimizer(kind, self.net_d.parameters(), **options)
            self.optimizers.append(self.optimizer_d)

    def _trained_networks(self) -> list[nn.Module]:
        return [self.net_g] if self.net_d is None else [self.net_g, self.net_d]

    def feed_data(self, data: dict[str, Any]) -> None:
        """Take a batch, with ``gt_usm`` (n, t, 3, 4h, 4w) if the sharpened ground truth is used."""
        super().feed_data(data)
        if "gt_usm" in data:
            self.gt_usm = data["gt_usm"].to(self.device)

    def _batch(self) -> dict[str, Tensor]:
        batch = super()._batch()
        for key in SHARPENED:
            batch[key] = self.gt_usm if getattr(self.settings, key) else self.gt
        return batch

    def _compute_gradients(self, losses: OrderedDict[str, Tensor]) -> bool:
        """Compute the generator's gradients, and then the discriminator's on the same outputs."""
        self.outputs: list[Tensor] = []
        finite = super()._compute_gradients(losses)
        if self.net_d is None or not finite:
            return finite
        truths = self._batch()["gan_gt_usm"].chunk(self.accumulate)
        for index, (truth, output) in enumerate(zip(truths, self.outputs, strict=True)):
            with self._exchange_after_last_part(self.net_d, index):
                if not self._backward(self._judge(truth, output), losses):
                    return False
        return True

    def _forward(self, part: dict[str, Tensor]) -> dict[str, Tensor]:
        with self._autocast():
            if self.cri_clean:
                output, cleaned = self.net_g(part["lq"], return_lqs=True)
            else:
                output = self.net_g(part["lq"])
        output = output.float()
        losses = self._losses(output, part["l1_gt_usm"], part["percep_gt_usm"])
        if self.cri_clean:
            reduced = F.interpolate(
                part["l1_gt_usm"].flatten(0, 1), size=cleaned.shape[-2:], mode="area"
            )
            losses["l_clean"] = self.cri_clean(cleaned.float().flatten(0, 1), reduced)
        if self.net_d is not None:
            losses["l_g_gan"] = self.cri_gan(self._fool(output), True, is_disc=False)
            self.outputs.append(output.detach())
        return losses

    def _fool(self, output: Tensor) -> Tensor:
        """The discriminator's verdict on an output, with gradients for the output alone.

        The wrapper for several processes does not see this pass, in which no weight needs a
        gradient.
        """
        net_d = self.get_bare_model(self.net_d)
        net_d.requires_grad_(False)
        with self._autocast():
            verdict = net_d(output.flatten(0, 1))
        net_d.requires_grad_(True)
        return verdict.float()

    def _judge(self, truth: Tensor, output: Tensor) -> dict[str, Tensor]:
        """The discriminator's losses.

        It sees the truth and the output in one pass, so that processes exchange gradients once.
        """
        with self._autocast():
            verdicts = self.net_d(torch.cat([truth, output]).flatten(0, 1))
        real, fake = verdicts.float().chunk(2)
        return {
            "l_d_real": self.cri_gan(real, True, is_disc=True),
            "l_d_fake": self.cri_gan(fake, False, is_disc=True),
        }

    def save(self, epoch: int, current_iter: int) -> None:
        """Save the discriminator, and then what the base class saves."""
        if self.net_d is not None:
            self.save_network(self.net_d, "net_d", current_iter)
        super().save(epoch, current_iter)

"""A recurrent video model of BasicSR whose checkpoints continue a run exactly."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from basicsr.models.video_recurrent_model import VideoRecurrentModel
from basicsr.utils import get_root_logger
from basicsr.utils.dist_util import master_only
from torch import nn

from iart_plugin.basicsr import network_files, resume
from iart_plugin.basicsr.checks import validation_sets
from iart_plugin.basicsr.random_state import gather_random_states, restore_random_state


class ResumableModel(VideoRecurrentModel):
    """Saves and loads networks and training states; the class that derives from it trains.

    Attributes:
        scaler: the gradient scaler of mixed precision.
        skipped_steps: how many steps were skipped in the run.
        skipped_in_a_row: how many steps were skipped since the last one that was not.
        data_seed: the seed of the training data.
        validations: the figures of each validation, by iteration.
    """

    scaler: torch.amp.GradScaler
    skipped_steps: int
    skipped_in_a_row: int
    data_seed: int
    validations: dict[int, dict[str, Any]]

    def load_network(
        self, net: nn.Module, load_path: str, strict: bool = True, param_key: str | None = "params"
    ) -> None:
        """Load weights from BasicSR, MMagic or the released program, or from ``.safetensors``.

        Args:
            net: the network, wrapped or not.
            load_path: the file.
            strict: whether every weight must be there, and no other.
            param_key: the entry that holds the weights. A file without it may hold them in any
                entry that :func:`iart_plugin.archs.read_state_dict` knows.

        Raises:
            OptionError: naming the file, if it holds no weights that fit.
        """
        network_files.load(self.get_bare_model(net), load_path, strict, param_key)

    @master_only
    def save_network(
        self,
        net: nn.Module | list[nn.Module],
        net_label: str,
        current_iter: int,
        param_key: str | list[str] = "params",
    ) -> None:
        """Save networks as BasicSR does; each file is written completely or not at all."""
        nets = net if isinstance(net, list) else [net]
        keys = param_key if isinstance(param_key, list) else [param_key]
        name = f"{net_label}_{'latest' if current_iter == -1 else current_iter}.pth"
        named = dict(zip(keys, map(self.get_bare_model, nets), strict=True))
        network_files.save(named, Path(self.opt["path"]["models"], name))

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

        Learning rates, schedule and the optimizer's settings are taken from the option file. A
        warning names those that differ in the state. PyTorch would silently keep the state's.
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
        """Restore the record of validations and the best figures.

        They are not in the training state itself, because BasicSR validates after it saves.
        """
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

"""Parts of the alignment study for BasicSR: a data set with flow, and a model that passes it on."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from iart_plugin.basicsr.checks.schema import check_section
from iart_plugin.basicsr.dataset_schema import SintelFlow
from iart_plugin.basicsr.model import RecurrentMixPrecisionRTModel
from iart_plugin.data import FlowAugmentation
from iart_plugin.data import SintelFlowDataset as FlowClips
from iart_plugin.option_errors import OptionError

# For each argument of the core's data set, the option key that sets it.
ARGUMENTS = {
    "dataroot": "root",
    "render": "render",
    "clips": "clips",
    "num_frame": "num_frames",
    "scale": "scale",
    "flow": "flow",
    "on_missing": "on_missing",
    "flow_weights": "flow_weights",
    "flow_cache": "cache_dir",
}


class SintelFlowDataset(torch.utils.data.Dataset):
    """:class:`iart_plugin.data.SintelFlowDataset`, built from BasicSR's options.

    The options are those of the core's data set, except that ``root`` is called ``dataroot``,
    ``num_frames`` is called ``num_frame`` (-1 means whole clips), and ``cache_dir`` is called
    ``flow_cache``. Training has three more: ``gt_size``, ``use_hflip`` (both flips) and ``use_rot``
    (transposition).

    An item has ``lq`` (t, 3, h, w), ``gt`` (t, 3, 4h, 4w), ``flows`` (t - 1, 2, h, w), ``masks``
    (t - 1, 1, h, w), ``key`` and ``folder``.

    Args:
        opt: The options of one data set, ``scale`` and ``phase`` included.

    Raises:
        OptionError: on an unknown key or value, or if files are missing.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        super().__init__()
        name = f"data set '{opt.get('name')}'"
        check_section(SintelFlow, opt, name)
        if not opt.get("dataroot"):
            raise OptionError(f"{name}: dataroot is not set.")
        self.opt = opt
        arguments = {new: opt[key] for key, new in ARGUMENTS.items() if key in opt}
        if arguments.get("num_frames") == -1:
            arguments["num_frames"] = None
        try:
            self.clips = FlowClips(augment=self._augmentation(), **arguments)
        except (OSError, ValueError) as error:
            raise OptionError(f"{name}: {error}") from error
        # BasicSR's validation counts the frames of each folder with this.
        self.data_info = {
            "folder": [self._folder(w) for w in self.clips.windows for _ in range(w.length)]
        }

    def _augmentation(self) -> FlowAugmentation | None:
        if self.opt.get("phase") != "train":
            return None
        size, scale = self.opt.get("gt_size"), self.opt.get("scale", 4)
        if size and size % scale:
            raise ValueError(f"gt_size {size} is no multiple of the scale {scale}")
        return FlowAugmentation(
            crop_size=size // scale if size else None,
            flip=self.opt.get("use_hflip", True),
            transpose=self.opt.get("use_rot", True),
        )

    def _folder(self, window: Any) -> str:
        """A name without a slash, so that saved frames of one clip share a folder."""
        whole = sum(other.clip == window.clip for other in self.clips.windows) == 1
        return window.clip if whole else f"{window.clip}_{window.first:04d}"

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.clips[index]
        sample["masks"] = sample.pop("valid")
        sample["folder"] = self._folder(self.clips.windows[index])
        return sample


class AlignmentStudyModel(RecurrentMixPrecisionRTModel):
    """Trains and tests a network on the flow that comes with the data.

    Options are those of :class:`RecurrentMixPrecisionRTModel`; the network must take ``flows``.

    Raises:
        OptionError: if the network takes no flow, or an option would separate a clip from its flow.
    """

    @staticmethod
    def check(opt: dict[str, Any]) -> None:
        """Refuse options that a clip's flow does not allow; called before anything is built."""
        if opt["num_gpu"] > 1 and not opt["dist"]:
            raise OptionError("num_gpu: AlignmentStudyModel runs one process a GPU (use torchrun).")
        if (opt.get("val") or {}).get("flip_seq"):
            raise OptionError("val.flip_seq: flow goes one way only, a clip cannot be reversed.")
        if (opt.get("train") or {}).get("accumulate", 1) > 1:
            raise OptionError("train.accumulate: AlignmentStudyModel takes a batch as a whole.")
        network = ARCH_REGISTRY.get(opt["network_g"]["type"])
        if "flows" not in inspect.signature(network.forward).parameters:
            raise OptionError(f"network_g.type: {network.__name__} takes no flow.")

    def __init__(self, opt: dict[str, Any]) -> None:
        self.flows: Tensor | None = None
        super().__init__(opt)

    def model_to_device(self, net: nn.Module) -> nn.Module:
        """Move and wrap the network, and add the batch's flow to each of its calls."""
        # BasicSR calls net_g(lq) in several places. This hook adds the flow to every call.
        net.register_forward_pre_hook(self._give_flow, with_kwargs=True)
        return super().model_to_device(net)

    def _give_flow(self, _: nn.Module, inputs: tuple, keywords: dict) -> tuple[tuple, dict]:
        return inputs, {**keywords, "flows": self.flows}

    def feed_data(self, data: dict[str, Any]) -> None:
        """Take a batch, or in validation one clip whose flow has no batch dimension yet."""
        super().feed_data(data)
        flows = data["flows"].to(self.device)
        self.flows = flows.unsqueeze(0) if flows.dim() == 4 else flows

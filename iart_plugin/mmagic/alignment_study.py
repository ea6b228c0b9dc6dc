"""Parts of the alignment study for MMagic: a data set with flow, and a model that passes it on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmagic.models import BasicVSR
from mmagic.registry import DATASETS, MODELS, TRANSFORMS
from mmagic.structures import DataSample
from torch import Tensor

from iart_plugin.data import FlowAugmentation
from iart_plugin.data import SintelFlowDataset as _SintelFlowDataset

WHITE = 255.0
"""The value of white: MMagic's frames are in 0..255 until its preprocessor divides them."""

TRANSFORMS.register_module(module=FlowAugmentation)


@DATASETS.register_module()
class SintelFlowDataset(_SintelFlowDataset):
    """:class:`iart_plugin.data.SintelFlowDataset` with items in MMagic's form.

    An item has ``inputs`` (t, 3, h, w) and ``data_samples``. These hold ``gt_img`` (t, 3, 4h, 4w),
    ``flows`` (t - 1, 2, h, w) and ``masks`` (t - 1, 1, h, w). Frames are RGB in 0..255.

    Args:
        root: the folder above ``training``.
        augment: a callable, or its config.
        options: the other arguments of the core's data set.
    """

    def __init__(
        self, root: str, *, augment: dict | Callable[[dict], dict] | None = None, **options: Any
    ) -> None:
        augment = TRANSFORMS.build(augment) if isinstance(augment, dict) else augment
        super().__init__(root, augment=augment, **options)
        self.metainfo = {"dataset_type": "sintel_flow", "task_name": "vsr"}

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = super().__getitem__(index)
        data_sample = DataSample(
            gt_img=sample["gt"] * WHITE,
            flows=sample["flows"],
            masks=sample["valid"],
            metainfo={
                "key": sample["key"],
                "gt_path": sample["key"],
                "gt_channel_order": "RGB",
                "img_channel_order": "RGB",
            },
        )
        return {"inputs": sample["lq"] * WHITE, "data_samples": data_sample}


@MODELS.register_module()
class FlowGivenVSR(BasicVSR):
    """MMagic's BasicVSR model for a generator that takes the clip's own flow.

    The generator, such as :class:`iart_plugin.archs.AlignmentStudyNet`, is called with the frames
    and with the ``flows`` of the data samples, if they have any.
    """

    def forward_tensor(
        self, inputs: Tensor, data_samples: DataSample | None = None, **options: Any
    ) -> Tensor:
        """Runs the generator: (n, t, 3, h, w) to (n, t, 3, 4h, 4w), both about [0, 1]."""
        flows = None if data_samples is None else data_samples.get("flows")
        return self.generator(inputs, flows, **options)

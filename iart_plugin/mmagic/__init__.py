"""The MMagic adapter: importing it registers the package's parts in MMagic's registries.

A config imports it with ``custom_imports = dict(imports=['iart_plugin.mmagic'],
allow_failed_imports=False)``. MMEngine does so while it reads the config, before the tools import
MMagic's models. This is early enough for :mod:`iart_plugin.compat` to make its repairs.
"""

from iart_plugin import extras
from iart_plugin.compat import mmagic as mends

extras.require("mmagic", "mmengine", "mmcv")
mends.refuse_unsafe_torch()
mends.mend()

from mmagic.registry import MODELS  # noqa: E402

from iart_plugin.archs import network_classes  # noqa: E402
from iart_plugin.ops import ImplicitAlignment  # noqa: E402

from .alignment_study import FlowGivenVSR, SintelFlowDataset  # noqa: E402
from .checkpoint import CheckpointFitHook, accept_other_checkpoints  # noqa: E402
from .config_checks import install as check_configs  # noqa: E402
from .finite_steps import FiniteStepsHook  # noqa: E402
from .flow import FrozenFlowHook, PretrainedFlow  # noqa: E402
from .real_world import StartFromAverageHook, VideoLQNIQE  # noqa: E402
from .resume import ProcessSeedHook, ResumeDataHook, ResumeOwnHook  # noqa: E402
from .visualizer import MiddleFrameVisualizer  # noqa: E402

for _module in (*network_classes(), ImplicitAlignment):
    MODELS.register_module(module=_module)
accept_other_checkpoints()
check_configs()

__all__ = [
    "CheckpointFitHook",
    "FiniteStepsHook",
    "FlowGivenVSR",
    "FrozenFlowHook",
    "ImplicitAlignment",
    "MiddleFrameVisualizer",
    "PretrainedFlow",
    "ProcessSeedHook",
    "ResumeDataHook",
    "ResumeOwnHook",
    "SintelFlowDataset",
    "StartFromAverageHook",
    "VideoLQNIQE",
]

"""The networks, and the checkpoints they read and write."""

from iart_plugin.weight_files import CheckpointMismatch, read_state_dict

from .alignment_study import AlignmentStudyNet
from .architecture import Architecture, network_classes
from .checkpoints import (
    CheckpointInfo,
    build_network,
    export_official,
    load_checkpoint,
    load_ia_cnn,
    save_adapter,
    save_checkpoint,
)
from .ia_cnn import IACNN
from .ia_rt import IART
from .keys import Recognised, recognise
from .real_world import RealIACNN
from .table import ARCHITECTURES
from .warm_start import warm_start

__all__ = [
    "ARCHITECTURES",
    "IACNN",
    "IART",
    "AlignmentStudyNet",
    "Architecture",
    "CheckpointInfo",
    "CheckpointMismatch",
    "RealIACNN",
    "Recognised",
    "build_network",
    "export_official",
    "load_checkpoint",
    "load_ia_cnn",
    "network_classes",
    "read_state_dict",
    "recognise",
    "save_adapter",
    "save_checkpoint",
    "warm_start",
]

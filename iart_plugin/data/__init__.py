"""Data sets of frames and flow, and their degradation, augmentation and preparation."""

from .augment import FlowAugmentation
from .degradation import bicubic_downsample, gaussian_downsample, imresize
from .flow_grid import downsample_flow
from .flow_io import read_flow, write_flow
from .sintel import SintelFlowDataset

__all__ = [
    "FlowAugmentation",
    "SintelFlowDataset",
    "bicubic_downsample",
    "downsample_flow",
    "gaussian_downsample",
    "imresize",
    "read_flow",
    "write_flow",
]

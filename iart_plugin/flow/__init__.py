"""Optical flow between frames, estimated by a network or given by the caller."""

from .estimator import FLOW_ESTIMATORS, build_flow_estimator
from .given import given_flows
from .raft import RAFT
from .spynet import SPyNet, clip_flows, rename_spynet_key

__all__ = [
    "FLOW_ESTIMATORS",
    "RAFT",
    "SPyNet",
    "build_flow_estimator",
    "clip_flows",
    "given_flows",
    "rename_spynet_key",
]

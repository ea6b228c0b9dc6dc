"""Optical flow: where the networks' motion comes from, a network or the caller."""

from .given import given_flows
from .spynet import SPyNet, clip_flows, rename_spynet_key

__all__ = ["SPyNet", "clip_flows", "given_flows", "rename_spynet_key"]

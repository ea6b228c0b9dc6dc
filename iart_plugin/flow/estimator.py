"""The flow networks by the names that data sets and configs use."""

import os
from collections.abc import Callable

from torch import nn

from .raft import RAFT
from .spynet import SPyNet

FLOW_ESTIMATORS: dict[str, Callable[..., nn.Module]] = {"spynet": SPyNet, "raft": RAFT}
"""Every flow network; all are called as ``(current, reference) -> flow``."""


def build_flow_estimator(name: str, weights: str | os.PathLike | None = None) -> nn.Module:
    """Builds a flow network with its weights.

    Args:
        name: a key of :data:`FLOW_ESTIMATORS`.
        weights: the weights file. RAFT does not need one: torchvision then downloads its weights.

    Returns:
        The network in evaluation mode, its parameters frozen.

    Raises:
        ValueError: if the name is unknown, or SPyNet is given no weights.
    """
    if name not in FLOW_ESTIMATORS:
        raise ValueError(f"unknown flow network {name!r}: choose {' or '.join(FLOW_ESTIMATORS)}")
    if name == "spynet" and weights is None:
        raise ValueError("SPyNet needs the path of its weights")
    return FLOW_ESTIMATORS[name](weights).eval().requires_grad_(False)

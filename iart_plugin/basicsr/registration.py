"""Entries in BasicSR's registries, under the names that option files use."""

from __future__ import annotations

from typing import Any

from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, MODEL_REGISTRY, Registry

from iart_plugin import archs, ops
from iart_plugin.basicsr.alignment_study import AlignmentStudyModel, SintelFlowDataset
from iart_plugin.basicsr.degraded_clips import DegradedClipsDataset
from iart_plugin.basicsr.model import RecurrentMixPrecisionRTModel
from iart_plugin.basicsr.real_model import RealRecurrentModel

PARTS = (
    *((ARCH_REGISTRY, network) for network in archs.network_classes()),
    (ARCH_REGISTRY, ops.ImplicitAlignment),
    (DATASET_REGISTRY, DegradedClipsDataset),
    (DATASET_REGISTRY, SintelFlowDataset),
    (MODEL_REGISTRY, AlignmentStudyModel),
    (MODEL_REGISTRY, RealRecurrentModel),
    (MODEL_REGISTRY, RecurrentMixPrecisionRTModel),
)


def register() -> None:
    """Register every part. Harmless when repeated.

    Raises:
        RuntimeError: if another package has taken one of the names.
    """
    for registry, cls in PARTS:
        _register_once(registry, cls)


def _register_once(registry: Registry, cls: Any) -> None:
    name = cls.__name__
    if name not in registry:
        registry.register(cls)
        return
    present = registry.get(name)
    if present.__module__ != cls.__module__:
        raise RuntimeError(
            f"BasicSR's registry already has a '{name}', from {present.__module__}. "
            "Use either that package or iart_plugin in one process."
        )

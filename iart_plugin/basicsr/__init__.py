"""The BasicSR adapter: importing it registers this package's parts and repairs BasicSR.

An option file names it in one line, which BasicSR's own YAML loader resolves::

    plugin: !!python/name:iart_plugin.basicsr.PLUGIN

Registered: the networks ``IART``, ``IACNN``, ``RealIACNN``, ``AlignmentStudyNet`` and the op
``ImplicitAlignment`` in ``ARCH_REGISTRY``, ``SintelFlowDataset`` and ``DegradedClipsDataset`` in
``DATASET_REGISTRY``, and the models ``RecurrentMixPrecisionRTModel``, ``RealRecurrentModel`` and
``AlignmentStudyModel`` in ``MODEL_REGISTRY``.
"""

from __future__ import annotations

from iart_plugin import extras
from iart_plugin.compat import basicsr as mends

extras.require("basicsr")
mends.provide_functional_tensor()  # before BasicSR is imported for the first time

from iart_plugin.basicsr import pipeline  # noqa: E402
from iart_plugin.basicsr.registration import register  # noqa: E402

# A plain string, so that an option file can name it and the options can still be copied.
PLUGIN = "iart_plugin.basicsr"

__all__ = ["PLUGIN", "register"]

mends.mend()
register()
pipeline.take_over()

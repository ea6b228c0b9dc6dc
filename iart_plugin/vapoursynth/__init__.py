"""Upscales VapourSynth's clips: ``from iart_plugin.vapoursynth import upscale``.

Nothing else in the package imports VapourSynth.
"""

from iart_plugin.extras import require

require("vapoursynth")

from .filters import mark_scenes, upscale  # noqa: E402

__all__ = ["mark_scenes", "upscale"]

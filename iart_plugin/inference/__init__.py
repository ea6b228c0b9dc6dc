"""Upscales frames in memory: clips, tiles, scene cuts, memory use and the networks by name.

Nothing here opens a video or an image; :mod:`iart_plugin.video` does that, and
:mod:`iart_plugin.commands.upscale` uses both.
"""

from .models import MODELS, LoadedModel, load_model
from .streaming import upscale

__all__ = ["MODELS", "LoadedModel", "load_model", "upscale"]

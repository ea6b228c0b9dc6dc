"""Frames in, frames out: clips, tiles, scenes, memory and the networks by name.

Nothing here opens a video or an image; :mod:`iart_plugin.video` does, and
:mod:`iart_plugin.commands.upscale` leads both.
"""

from .models import MODELS, LoadedModel, load_model
from .streaming import upscale

__all__ = ["MODELS", "LoadedModel", "load_model", "upscale"]

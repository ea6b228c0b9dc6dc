"""Video in, video out: streaming, tiles, scene cuts, resumable runs.

:func:`upscale` takes and gives frames and needs PyTorch and OpenCV only; :func:`upscale_video`
takes and writes files and needs PyAV as well. What needs PyAV is imported when it is first used.
"""

from typing import Any

from .engine import upscale
from .models import MODELS, LoadedModel, load_model
from .options import UpscaleOptions

__all__ = [
    "MODELS",
    "LoadedModel",
    "UpscaleOptions",
    "load_model",
    "upscale",
    "upscale_video",
]


def __getattr__(name: str) -> Any:
    if name == "upscale_video":
        from .run import upscale_video

        return upscale_video
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""``upscale``: makes a video or images four times as large.

What needs PyAV is imported when it is first used, so that the command can say that it is missing.
"""

from typing import Any

from .options import UpscaleOptions

__all__ = ["Interrupted", "Result", "UpscaleOptions", "upscale_video"]


def __getattr__(name: str) -> Any:
    if name in ("Interrupted", "Result", "upscale_video"):
        from . import run

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

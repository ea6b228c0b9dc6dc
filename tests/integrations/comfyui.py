"""Stand-ins for the modules of ComfyUI that the node pack imports, and its way to load a pack.

ComfyUI is on no package index, so the tests cannot install it. The stand-ins do what ComfyUI's own
modules do, as far as the nodes use them.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import torch

PACK = Path(__file__).parents[2] / "integrations" / "comfyui"


class InterruptProcessingException(Exception):
    """What a run is ended with when the user cancels it."""


class ComfyUI:
    """The state of a ComfyUI: its folders, its memory and the run in progress."""

    def __init__(self, models: Path) -> None:
        self.models = models
        self.freed: list[int] = []  # bytes, by call of free_memory()
        self.emptied = 0
        self.progress: list[tuple[int, int]] = []
        self.checks_until_cancel: int | None = None

    def modules(self) -> dict[str, ModuleType]:
        """The modules by name, for ``sys.modules``."""
        comfy, management, utils = map(
            ModuleType, ("comfy", "comfy.model_management", "comfy.utils")
        )
        comfy.__path__ = []
        comfy.model_management, comfy.utils = management, utils
        management.InterruptProcessingException = InterruptProcessingException
        management.get_torch_device = lambda: torch.device("cpu")
        management.get_total_memory = lambda device: 2**33
        management.free_memory = lambda size, device: self.freed.append(size)
        management.soft_empty_cache = self._empty
        management.throw_exception_if_processing_interrupted = self._check
        utils.ProgressBar = self._progress_bar
        named = (comfy, management, utils, self._folder_paths())
        return {module.__name__: module for module in named}

    def _empty(self) -> None:
        self.emptied += 1

    def _check(self) -> None:
        if self.checks_until_cancel is not None:
            self.checks_until_cancel -= 1
            if self.checks_until_cancel < 0:
                self.checks_until_cancel = None
                raise InterruptProcessingException

    def _progress_bar(self, total: int):
        class ProgressBar:
            def update(_, value: int) -> None:
                before = self.progress[-1][0] if self.progress else 0
                self.progress.append((before + value, total))

        return ProgressBar()

    def _folder_paths(self) -> ModuleType:
        module = ModuleType("folder_paths")
        module.models_dir = str(self.models)
        module.supported_pt_extensions = {".ckpt", ".pt", ".bin", ".pth", ".safetensors"}
        module.folder_names_and_paths = known = {}

        def add_model_folder_path(name: str, path: str) -> None:
            known.setdefault(name, ([], set()))[0].append(path)

        def get_filename_list(name: str) -> list[str]:
            folders, suffixes = known[name]
            files = [p.name for f in folders if os.path.isdir(f) for p in Path(f).iterdir()]
            return sorted(f for f in files if not suffixes or Path(f).suffix in suffixes)

        def get_full_path(name: str, file: str) -> str | None:
            paths = (os.path.join(folder, file) for folder in known[name][0])
            return next((path for path in paths if os.path.isfile(path)), None)

        module.add_model_folder_path = add_model_folder_path
        module.get_folder_paths = lambda name: known[name][0][:]
        module.get_filename_list, module.get_full_path = get_filename_list, get_full_path
        return module


def load_pack(folder: Path = PACK) -> ModuleType:
    """Import a node pack as ComfyUI does: from its folder, under a name made of its path."""
    name = str(folder).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module

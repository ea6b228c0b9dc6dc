"""When kernels are used, and what takes their place when one fails."""

import pytest
import torch

from iart_plugin.fused import fused
from iart_plugin.kernels import availability
from iart_plugin.kernels.availability import (
    Kernel,
    KernelWarning,
    attempt,
    failures,
    reason_against,
    reference_gradients,
    uses_kernel,
)
from tests.kernels.harness import DEVICE

EXAMPLE = Kernel("example", torch.float16, 12)


@pytest.fixture
def no_failures(monkeypatch):
    monkeypatch.setattr(availability, "_failures", {})
    availability._warn_once.cache_clear()


def test_the_switch_turns_kernels_off():
    device = torch.device(DEVICE or "cpu")
    with fused(False):
        assert "IART_PLUGIN_FUSED" in reason_against(device)
        assert not uses_kernel(device, torch.float32)


@pytest.mark.skipif(DEVICE is not None, reason="kernels run on this process's devices")
def test_a_cpu_has_no_kernels_and_gives_no_warning(recwarn):
    assert not uses_kernel(torch.device("cpu"), torch.float32)
    assert "CPU" in reason_against(torch.device("cpu"))
    assert not recwarn.list


def test_other_devices_are_named():
    assert "mps" in reason_against(torch.device("mps"))


@pytest.mark.parametrize(
    ("version", "is_refused"),
    [("3.2.0", True), ("2.3.1", True), ("3.3.0+git", False), ("3.10.1", False), ("4.0", False)],
)
def test_a_triton_that_would_end_the_process_is_refused(version, is_refused, monkeypatch):
    triton = pytest.importorskip("triton")
    monkeypatch.setattr(triton, "__version__", version)
    reason = availability._obstacle_of_triton()
    assert (reason is not None) == is_refused
    if is_refused:
        assert f"Triton {version} is too old" in reason and "PyTorch to 2.7" in reason


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_dtype_without_a_kernel_is_named_once():
    availability._warn_once.cache_clear()
    arguments = torch.device("cuda"), torch.float32, torch.float64
    with pytest.warns(KernelWarning, match="float64") as caught:
        assert not uses_kernel(*arguments)
        assert not uses_kernel(*arguments)
    assert len(caught) == 1


def test_a_kernel_that_fails_is_replaced_with_one_warning(no_failures):
    calls = []

    def launch():
        calls.append(1)
        raise RuntimeError("PassManager::run failed\nand more")

    broken = "'example in float16 with 12 channels'.*PassManager::run failed"
    with pytest.warns(KernelWarning, match=broken) as caught:
        assert attempt(EXAMPLE, launch, lambda: 1) == 1
        assert attempt(EXAMPLE, launch, lambda: 2) == 2
    assert len(caught) == len(calls) == 1
    assert list(failures()) == ["example in float16 with 12 channels"]


@pytest.mark.parametrize("other", [{"dtype": torch.float32}, {"channels": 24}])
def test_a_failing_kernel_turns_no_other_size_or_dtype_off(other, no_failures):
    def launch():
        raise RuntimeError("out of resource: shared memory")

    with pytest.warns(KernelWarning):
        assert attempt(EXAMPLE, launch, lambda: "reference") == "reference"
    assert attempt(EXAMPLE._replace(**other), lambda: "kernel", lambda: "reference") == "kernel"


def test_missing_memory_is_no_failure_of_the_kernel(no_failures):
    def launch():
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.cuda.OutOfMemoryError):
        attempt(EXAMPLE, launch, lambda: 1)
    assert not failures()


def test_gradients_of_the_reference():
    x, index, y = torch.tensor([1.0, 2.0]), torch.tensor([1, 0]), torch.tensor([3.0, 4.0])
    found = reference_gradients(
        lambda x, index, y, _: x[index] * y, [x, index, y, None], torch.ones(2)
    )
    assert found[0].tolist() == [4.0, 3.0]
    assert found[1] is None
    assert found[2].tolist() == [2.0, 1.0]
    assert found[3] is None

